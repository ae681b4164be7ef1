from __future__ import annotations

import asyncio

from sidecar.sessions import senders
from sidecar.sessions.senders import Senders
from sidecar.sessions.store import Applied


async def test_an_answer_is_told_to_who_waits_and_to_who_asks_later() -> None:
    some = Senders()
    waiting = asyncio.create_task(some.wait(1))
    await asyncio.sleep(0)
    some.tell(1, Applied("applied", session_id="ses_1"))
    some.tell(1, Applied("duplicate"))  # a replay
    assert (await waiting).session_id == (await some.wait(1)).session_id == "ses_1"


async def test_who_gives_up_leaves_nothing_behind_and_answers_are_kept_for_so_many(monkeypatch) -> None:
    monkeypatch.setattr(senders, "RESULTS_MAX", 2)
    some = Senders()
    waiting = asyncio.create_task(some.wait(1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert some._waiters == {}
    for sequence in (1, 2, 3):
        some.tell(sequence, Applied("applied", sequence))
    assert list(some._results) == [2, 3]
