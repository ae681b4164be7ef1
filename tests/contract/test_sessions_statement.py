"""What a statement tells of the hours: the same as the posted outcomes, and no more than its bound of them."""

from __future__ import annotations

from collections import Counter

import orjson
from session_facts import HOUR, RESOLVE, T0, signal_effect

from sidecar.delivery.event import event_of
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.view import rfc3339


async def posted(talk):
    """The statements in the outbox, as posted, and how many first outcomes in it have their time in each hour."""
    stated, hours = [], Counter()
    for _, fields in await talk.store.redis.xrange(talk.store.key("outbox")):
        if fields[b"kind"] == b"statement":
            stated.append(orjson.loads(event_of("statement", fields[b"body"]).body))
        elif read_outcome(fields[b"body"]).revision == 0:
            hours[orjson.loads(event_of("outcome", fields[b"body"]).body)["time"][:13]] += 1
    return stated, hours


async def resolve(talk, *times):
    await talk.apply(*(talk.exchange(at, f"c-{at}", effects=(RESOLVE,)) for at in times))


async def test_hours_are_those_of_the_outcomes_own_times(talk):
    await resolve(talk, 0, 1, HOUR, 5 * HOUR)
    await talk.tell(6 * HOUR, signal_effect("unresolve"), "c-0")
    await talk.say(7 * HOUR, "silent")
    for producer in ("ring", "journal"):
        await talk.store.heartbeat(producer, T0 + 40 * HOUR, 1)
    assert (await talk.store.sweep()).fired == 1
    now_ms = T0 + 40 * HOUR
    assert await talk.store.statement(now_ms) == 1
    [stated], hours = await posted(talk)
    assert stated["data"]["finalized_by_hour"] == hours
    assert stated["data"]["finalized"] == {"RESOLVED": 3, "REVERSED": 1, "INCONCLUSIVE": 1}
    assert sum(hours.values()) == 5, "a revision is none of its own"
    assert max(hours) < stated["data"]["hour"], "a time that is over is not the hour in which it was noticed"
    assert (stated["data"]["finalized_before"], stated["data"]["open"]) == (0, 0)
    assert stated["time"] == rfc3339(now_ms), "when they were read"


async def test_older_hours_are_told_as_one_number_and_stay_so(talk):
    most = LIMITS["stated_hours"]
    await resolve(talk, *(n * HOUR for n in range(most + 3)), *(n * HOUR + 1 for n in range(0, most, 7)))
    assert await talk.store.statement(T0 + most * HOUR) == 1
    await resolve(talk, HOUR + 5, (most + 2) * HOUR + 5, (most + 3) * HOUR)  # of an hour long past, too
    assert await talk.store.statement(T0 + (most + 1) * HOUR) == 1
    (first, second), hours = await posted(talk)
    for stated, more in ((first, 0), (second, 3)):
        data = stated["data"]
        told = data["finalized_by_hour"]
        assert len(told) == most
        assert sum(told.values()) + data["finalized_before"] == sum(data["finalized"].values())
        assert sum(told.values()) + data["finalized_before"] == sum(hours.values()) - 3 + more
    told = second["data"]["finalized_by_hour"]
    assert told == {hour: hours[hour] for hour in sorted(hours)[-most:]}
    assert await talk.store.redis.hlen(talk.store.key("finalized")) == most + 1


async def test_a_generation_without_final_sessions_tells_no_hours(talk):
    await talk.say(0, "open")
    assert await talk.store.statement(T0) == 1
    [stated], _ = await posted(talk)
    assert not {"finalized_by_hour", "finalized_before"} & stated["data"].keys()
