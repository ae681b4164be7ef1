"""`sidecar plan evaluate`: asks for the decisions, by conversation id, and compares them with people's labels."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import httpx

from sidecar import remote
from sidecar.plantest.agreement import Decision, agreement
from sidecar.plantest.labels import LabelsError, read_labels

OK, BELOW, WRONG_USAGE = 0, 1, 2
AT_ONCE = 8
TIMEOUT_SECONDS = 30.0


def run(arguments: Any) -> int:
    """0 fine; 1 no answer, or less agreement than `--at-least`; 2 labels or options that cannot be used."""
    try:
        renamed = dict(_pair(text) for text in arguments.map or ())
        labels = read_labels(
            Path(arguments.labels).read_bytes(),
            arguments.labels,
            conversation=arguments.conversation_column,
            outcome=arguments.outcome_column,
            renamed=renamed,
        )
        asked = remote.billing(arguments.billing) if arguments.billing else remote.admin(arguments.admin)
        client = asked.async_client(TIMEOUT_SECONDS)
    except LabelsError as error:
        return _wrong(error.problems)
    except OSError as error:
        return _wrong([f"{error.filename or arguments.labels} cannot be read: {error.strerror}"])
    except ValueError as error:
        return _wrong([str(error)])
    ask = _of_ledger if arguments.billing else _of_sidecar
    try:
        decisions = asyncio.run(_decisions(client, ask, labels.by_conversation))
    except (httpx.HTTPError, ValueError, LookupError) as error:
        print(f"sidecar: {client.base_url} does not answer as it should: {error}", file=sys.stderr)
        return BELOW
    found = agreement(labels.by_conversation, decisions, blank=labels.blank)
    if arguments.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print("\n".join(found.lines(arguments.list)))
    least = arguments.at_least
    return BELOW if least is not None and (found.share is None or found.share < least) else OK


async def _decisions(
    client: httpx.AsyncClient,
    ask: Callable[[httpx.AsyncClient, str], Awaitable[Decision | None]],
    conversations: Iterable[str],
) -> dict[str, Decision]:
    """Of each conversation that is known; a few requests at a time."""
    waiting = iter(conversations)
    found: dict[str, Decision] = {}

    async def work() -> None:
        for conversation in waiting:
            decision = await ask(client, conversation)
            if decision is not None:
                found[conversation] = decision

    try:
        async with client, asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # they all ask the same API: one says it for all
    return found


async def _of_ledger(client: httpx.AsyncClient, conversation: str) -> Decision | None:
    """From the billing API: the last revision of the session that began last."""
    answer = await client.get("/v1/outcomes", params={"conversation": conversation, "limit": "1000"})
    rows = answer.raise_for_status().json()["outcomes"]
    if not rows:
        return None

    def place(row: dict[str, Any]) -> tuple[str, str, int]:
        return str(row["event"]["data"].get("started_at") or row["time"]), row["session_id"], row["revision"]

    last = max(rows, key=place)
    return Decision(last["session_id"], last["outcome"], last["event"]["data"].get("reason") or "")


async def _of_sidecar(client: httpx.AsyncClient, conversation: str) -> Decision | None:
    """From a sidecar: the conversation's newest session, for as long as it is remembered."""
    answer = await client.get("/v1/sessions", params={"alias": f"conversation:{conversation}"})
    if answer.status_code == 404:
        return None
    session = answer.raise_for_status().json()
    return Decision(session["id"], decided(session), session["reason"])


def decided(session: dict[str, Any]) -> str:
    """The outcome that a session of the admin API was posted with; OPEN before."""
    if session["revision"] is None:
        return "OPEN"
    named = {"NOT_BILLABLE": "ESCALATED_TO_HUMAN", "INCONCLUSIVE": "INCONCLUSIVE", "REVERSED": "UNRESOLVED"}
    return named.get(session["state"]) or session["outcome"] or "RESOLVED"


def _pair(text: str) -> tuple[str, str]:
    word, equals, outcome = text.partition("=")
    if not equals or not word or not outcome:
        raise ValueError(f"--map {text}: write WORD=OUTCOME, for example solved=RESOLVED")
    return word, outcome


def _wrong(problems: list[str]) -> int:
    for problem in problems:
        print(f"sidecar: {problem}", file=sys.stderr)
    return WRONG_USAGE
