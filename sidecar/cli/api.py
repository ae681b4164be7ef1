"""The two HTTP APIs as the command line asks them: addresses and tokens from the environment, errors as sentences.

The admin API is a running sidecar's (sessions); the billing API is the central one (ledger, customers, invoices). Both
answer errors as problem+json, whose `detail` is what the user reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import quote

import httpx

from sidecar import remote
from sidecar.cli.grammar import WRONG_USAGE, CommandError
from sidecar.remote import Remote, RemoteError

TIMEOUT_SECONDS = 30.0
PAGE = 1000  # most rows of one answer


class NotFoundError(CommandError):
    """The API knows no such thing."""


class AwayError(CommandError):
    """The API is there, and says that it cannot answer now."""


class Api:
    """One of the two. Raises CommandError for whatever goes wrong, with what to change."""

    def __init__(self, what: str, client: httpx.Client, token_name: str, option: str) -> None:
        self.what = what
        self._client = client
        self._token_name = token_name
        self._option = option

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """The answer as JSON; parameters that are None are left out.

        Amounts of money come as texts; a number with a point in an event is the nearest float.
        """
        return self._ask("GET", path, params=_given(query)).json()

    def get_or(self, path: str, otherwise: Any) -> Any:
        """Likewise; `otherwise` when there is no such thing."""
        try:
            return self.get(path)
        except NotFoundError:
            return otherwise

    def post(
        self, path: str, body: Any = None, *, content: bytes | None = None, kind: str = "application/json", **query: Any
    ) -> Any:
        """Likewise; `body` as JSON, or `content` as it is."""
        sent = json.dumps(body).encode() if content is None and body is not None else content
        headers = {} if sent is None else {"Content-Type": kind}
        return self._ask("POST", path, params=_given(query), content=sent, headers=headers).json()

    def text(self, path: str, **query: Any) -> str:
        """The answer as it is."""
        return self._ask("GET", path, params=_given(query)).text

    def pages(self, path: str, name: str, limit: int | None, **query: Any) -> Iterator[dict[str, Any]]:
        """The entries under `name`, page after page as they come, until `limit` of them (None: all)."""
        after, left = None, limit
        while left is None or left > 0:
            page = self.get(path, after=after, limit=PAGE if left is None else min(left, PAGE), **query)
            yield from page[name]
            after = page["next"]
            left = None if left is None else left - len(page[name])
            if after is None:
                return

    def some(self, path: str, name: str, limit: int, **query: Any) -> tuple[list[dict[str, Any]], str | None]:
        """Up to `limit` entries, and the cursor after them."""
        found: list[dict[str, Any]] = []
        after = query.pop("after", None)
        while True:
            page = self.get(path, after=after, limit=min(limit - len(found), PAGE), **query)
            found += page[name]
            after = page["next"]
            if after is None or len(found) >= limit:
                return found, after

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._silence(error) from None
        if answer.is_error:
            raise self._refusal(answer)
        if "json" not in answer.headers.get("content-type", "") and "csv" not in answer.headers.get("content-type", ""):
            raise CommandError(f"{self._client.base_url} answers, but not as a {self.what} does: check {self._option}")
        return answer

    def _silence(self, error: httpx.HTTPError) -> CommandError:
        reason = str(error) or type(error).__name__
        return CommandError(
            f"the {self.what} at {self._client.base_url} does not answer: {reason}",
            f"start it, or name another with {self._option}",
        )

    def _refusal(self, answer: httpx.Response) -> CommandError:
        if answer.status_code == 401:  # of a 403 the detail says more: the token is right, and may not do this
            return CommandError(
                f"the {self.what} at {self._client.base_url} refuses the token: give the right one in "
                f"{self._token_name}, or the path of its file in {self._token_name}_FILE"
            )
        kind = {404: NotFoundError, 429: AwayError, 502: AwayError, 503: AwayError, 504: AwayError}.get(
            answer.status_code, CommandError
        )
        try:
            problem = json.loads(answer.text)
            if "error" in problem:  # the proxy's own, when it relays to an observer that does not answer
                return kind(problem["error"]["message"])
            return kind(problem["detail"], *(f"  {_error(error)}" for error in problem.get("errors", [])))
        except (ValueError, LookupError, TypeError):
            said = f"{answer.status_code} {answer.reason_phrase}: {answer.text.strip().partition(chr(10))[0][:200]}"
            return kind(f"the {self.what} at {self._client.base_url} answers {said}")


def _error(error: Any) -> str:
    if isinstance(error, dict) and "message" in error:
        where = error.get("field") or (f"line {error['line']}" if error.get("line") else "")
        return f"{where}: {error['message']}" if where else str(error["message"])
    return str(error)


def _given(query: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}


def segment(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def admin(address: str | None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Api:
    """A running sidecar's admin API, at an address or where the environment says."""
    return _api("admin API", lambda: remote.admin(address), "SIDECAR_ADMIN_TOKEN", "--admin", timeout_seconds)


def billing(url: str | None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Api:
    """The billing API, at a URL or where the environment says."""
    return _api("billing API", lambda: remote.billing(url), "SIDECAR_BILLING_TOKEN", "--billing", timeout_seconds)


def _api(what: str, where: Callable[[], Remote], token_name: str, option: str, timeout_seconds: float) -> Api:
    try:
        client = where().client(timeout_seconds)
    except RemoteError as error:
        raise CommandError(str(error), code=WRONG_USAGE) from None
    return Api(what, client, token_name, option)
