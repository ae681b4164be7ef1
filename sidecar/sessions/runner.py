"""How scripts are sent: by digest, in pipelines, in order; a server that does not know one yet is told its text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sidecar.sessions.scripts import script

Answers = list[Any]


class ScriptRunner:
    """Runs the scripts of `lua/` over one tenant's keys. The client may be redis-py or valkey-py, decoding or not."""

    def __init__(self, redis: Any, tenant: str) -> None:
        if "{" in tenant or "}" in tenant:
            raise ValueError("a tenant's name cannot contain { or }: it is a Redis hash tag")
        self.redis = redis
        self.tenant = tenant
        self.prefix = f"sidecar:{{{tenant}}}"
        self._digests: dict[str, str] = {}

    def key(self, *parts: str) -> str:
        """A key's full name; work.lua lists them."""
        return ":".join((self.prefix, *parts))

    async def _run(self, name: str, arguments: Sequence[bytes | str | int]) -> Any:
        answer = (await self._run_many(name, [arguments]))[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _run_many(self, name: str, calls: Sequence[Sequence[bytes | str | int]]) -> Answers:
        """Answers in order; an error answer of Redis is returned as the exception, in its place."""
        if not calls:
            return []
        digest = self._digest(name)
        answers = await self._send(digest, calls)
        missing = next((i for i, answer in enumerate(answers) if _is_noscript(answer)), None)
        if missing is not None:
            await self.redis.script_load(script(name))
            answers[missing:] = await self._send(digest, calls[missing:])
        return answers

    async def _send(self, digest: str, calls: Sequence[Sequence[bytes | str | int]]) -> Answers:
        pipeline = self.redis.pipeline(transaction=False)
        for arguments in calls:
            # By its name: the method is barred in the pipelines of a cluster client, where one slot is what we use.
            pipeline.execute_command("EVALSHA", digest, 1, self.prefix, *arguments)
        return list(await pipeline.execute(raise_on_error=False))

    def _digest(self, name: str) -> str:
        if name not in self._digests:
            text = script(name).encode()
            self._digests[name] = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        return self._digests[name]


def text(value: bytes | str) -> str:
    """What a client that does not decode answers, as text."""
    return value.decode() if isinstance(value, bytes) else value


def _is_noscript(answer: Any) -> bool:
    return isinstance(answer, Exception) and (
        type(answer).__name__ == "NoScriptError" or str(answer).startswith("NOSCRIPT")
    )
