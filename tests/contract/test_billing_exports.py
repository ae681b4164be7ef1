"""Exports against fakes that enforce their vendors' rules, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from billing_api import DAY_US, Clock, event, get, post, put_plan, reversal, simple_plan
from export_targets import FAKES, HOUR_US, SECRET, OrbStrict
from exporting import METER, exporting, units
from pydantic import TypeAdapter
from sqlalchemy.engine import URL
from sqlalchemy.event import listens_for, remove

from sidecar.billing.api.export_shapes import ExportEntries, ExportsShown, Redelivered
from sidecar.billing.exports.config import load_exports
from sidecar.billing.exports.outbox import CLAIM_US, claim
from sidecar.billing.exports.sender import Sender
from sidecar.billing.exports.service import Exports
from sidecar.billing.exports.tables import export_meters
from sidecar.billing.exports.targets import TARGETS
from sidecar.billing.ledger.database import sqlite_url

KINDS = sorted(TARGETS)
LATER = "2026-11-22T12:00:00Z"


@pytest.fixture
def file_url(tmp_path: Path) -> URL:
    """SQLite alone, for what depends on the vendor and not on the database."""
    return sqlite_url(tmp_path / "billing.sqlite3")


def test_every_target_has_a_fake() -> None:
    assert sorted(FAKES) == KINDS


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_metric_counts_goes_to_its_meter_and_nothing_else(ledger_url: URL, kind: str) -> None:
    async with exporting(ledger_url, [kind]) as it:
        fake = it.fakes[kind]
        escalated = {"state": "NOT_BILLABLE", "outcome": "ESCALATED_TO_HUMAN", "escalated_to_human": True}
        await post(
            it.api, event(1), event(2), event(3, data=escalated), event(4, data={"shadow": True}),
            event(5, data={"held": True}), event(6, data={"billable": False}), event(7, subject="unattributed"),
        )  # fmt: skip
        await it.run()
        assert fake.amounts == {("customer-17", METER): 2}
        shown = await it.meter(kind)
        assert (shown["sent"], shown["acknowledged"], shown["waiting"], shown["parked"]) == (2, 2, 0, 0)
        assert units(shown) == {"ledger": 2, "acknowledged": 2, "waiting": 0, "parked": 0, "difference": 0}
        # Decisions of operators go there too.
        decision = {"actor": "ann", "reason": "looked"}
        for path in ("out_5/release", "out_1/reverse"):
            assert (await it.api.post(f"/v1/outcomes/{path}", json=decision)).status_code == 201
        assigned = await it.api.post("/v1/outcomes/out_7/assign", json={**decision, "customer": "customer-18"})
        assert assigned.status_code == 201
        await it.run(60)
        await it.run(60)
        amounts = {customer: amount for (customer, _), amount in fake.amounts.items()}
        assert amounts == {"customer-17": 2, "customer-18": 1}
        assert units(await it.meter(kind))["difference"] == 0
        sent = len(fake.requests)
        await it.run(3600)
        assert len(fake.requests) == sent, "nothing is sent twice without need"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["429", "409", "500", "dropped", "lost", "stored_500"])
async def test_a_fault_is_followed_by_the_same_bytes_until_it_is_taken_once(
    file_url: URL, kind: str, fault: str
) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, *(event(number) for number in range(3)))
        fake.faults = [fault] * 3
        await it.run()
        shown = await it.meter(kind)
        assert shown["acknowledged"] == 0
        assert shown["waiting"] == 3
        if fault == "429":
            before = len(fake.requests)
            await it.run(6)
            assert len(fake.requests) == before, "Retry-After says 7 seconds"
        for _ in range(8):
            await it.run(10)
        assert fake.total(METER) == 3
        assert all(len(bodies) == 1 for bodies in fake.bodies.values()), "the same bytes at every attempt"
        shown = await it.meter(kind)
        assert (shown["acknowledged"], shown["parked"], shown["oldest_waiting_seconds"]) == (3, 0, None)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if TARGETS[kind].traits.memory_us])
async def test_past_the_memory_of_ids_an_unanswered_entry_is_parked_and_never_guessed(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        memory = TARGETS[kind].traits.memory_us or 0
        await post(it.api, event(1))
        fake.faults = ["lost"]
        await it.run()
        assert fake.total(METER) == 1
        it.clock.now_us += memory
        await it.run()
        shown = await it.meter(kind)
        assert (shown["parked"], shown["causes"], shown["waiting"]) == (1, {"ambiguous": 1}, 0)
        assert fake.total(METER) == 1, "sent again it would count twice"
        assert units(shown)["parked"] == 1
        [entry] = await it.entries(kind, "parked")
        assert entry["cause"] == "ambiguous"
        # Whoever looked there says that it has it.
        assert await it.redeliver(kind, action="acknowledge", entries=[entry["id"]]) == {"decided": 1, "parked": 0}
        await it.run(600)
        assert fake.total(METER) == 1
        assert units(await it.meter(kind))["acknowledged"] == 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if TARGETS[kind].traits.memory_us])
async def test_an_ambiguous_entry_that_the_target_lacks_is_sent_on_request(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1))
        fake.faults = ["dropped"]
        await it.run()
        it.clock.now_us += (TARGETS[kind].traits.memory_us or 0) + HOUR_US
        await it.run()
        assert (await it.meter(kind))["causes"] == {"ambiguous": 1}
        for _ in range(3):  # where its own time has become too old, it is parked for that, and then sent as of now
            await it.redeliver(kind)
            await it.run()
        assert fake.total(METER) == 1
        assert units(await it.meter(kind))["acknowledged"] == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_outage_that_certainly_stored_nothing_may_last_past_the_memory(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1))
        fake.faults = ["429"] * 20
        for _ in range(20):
            await it.run(DAY_US // 1_000_000 // 4)
        await it.run(DAY_US // 1_000_000)
        assert fake.total(METER) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_one_event_that_is_refused_does_not_hold_up_its_batch(file_url: URL, kind: str) -> None:
    fakes = {kind: FAKES[kind](Clock())}
    await _one_refused(file_url, kind, fakes)


async def test_orb_may_refuse_a_batch_with_a_4xx(file_url: URL) -> None:
    await _one_refused(file_url, "orb", {"orb": OrbStrict(Clock())})


async def _one_refused(ledger_url: URL, kind: str, fakes: dict[str, Any]) -> None:
    async with exporting(ledger_url, [kind], fakes=fakes) as it:
        fake = it.fakes[kind]
        fake.broken = {"nobody"}
        await post(it.api, *(event(number, subject="nobody" if number == 3 else "customer-17") for number in range(7)))
        await it.run()
        assert fake.amounts == {("customer-17", METER): 6}
        shown = await it.meter(kind)
        assert (shown["acknowledged"], shown["parked"], shown["causes"]) == (6, 1, {"refused": 1})
        [entry] = await it.entries(kind, "parked")
        assert entry["customer"] == "nobody"
        assert entry["reason"]
        assert units(shown) == {"ledger": 7, "acknowledged": 6, "waiting": 0, "parked": 1, "difference": 0}
        fake.broken = set()
        assert (await it.redeliver(kind))["decided"] == 1
        await it.run()
        assert fake.total(METER) == 7


async def test_lago_throws_a_batch_away_for_one_duplicate_which_is_stripped(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"]) as it:
        fake = it.fakes["lago"]
        await post(it.api, event(1))
        fake.faults = ["lost"]
        await it.run()
        await post(it.api, *(event(number) for number in range(2, 6)))
        await it.run(3)
        assert fake.total(METER) == 5
        paths = [path for path, _, _ in fake.requests]
        assert paths == ["/api/v1/events", "/api/v1/events/batch", "/api/v1/events/batch"]
        assert (await it.meter("lago"))["acknowledged"] == 5


@pytest.mark.parametrize("kind", ["stripe_v1", "stripe_v2"])
@pytest.mark.parametrize("hours", [1, 25])
@pytest.mark.parametrize("faults", [["lost", "500"], ["stored_500", "lost"], ["429", "500", "stored_500"]])
async def test_stripe_cancels_for_a_day_and_credits_afterwards(
    file_url: URL, kind: str, hours: int, faults: list[str]
) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1), event(2))
        await it.run()
        await it.run(hours * 3600)
        await post(it.api, reversal(3, 1, LATER))
        fake.faults = faults[:]
        await it.run()
        for _ in range(4):
            await it.run(10)
        assert fake.total(METER) == 1
        acts = [entry["act"] for entry in await it.entries(kind)]
        assert acts == ["cancel" if hours == 1 else "credit", "usage", "usage"]
        assert units(await it.meter(kind)) == {
            "ledger": 1, "acknowledged": 1, "waiting": 0, "parked": 0, "difference": 0
        }  # fmt: skip


@pytest.mark.parametrize(("fault", "shown"), [("lost", {}), ("500", {}), ("stored_500", {"ambiguous": 1})])
async def test_a_cancellation_is_repeated_under_its_key_until_the_answer_to_it_is_saved(
    file_url: URL, fault: str, shown: dict[str, int]
) -> None:
    """Where Stripe's words for what is cancelled already are others than expected, only an answer of 500 is a doubt."""
    async with exporting(file_url, ["stripe_v1"]) as it:
        fake = it.fakes["stripe_v1"]
        fake.cancelled_already = "no"
        await post(it.api, event(1))
        await it.run()
        await post(it.api, reversal(2, 1, LATER))
        fake.faults = [fault]
        for _ in range(3):
            await it.run(10)
        assert fake.total(METER) == 0
        assert (await it.meter("stripe_v1"))["causes"] == shown


@pytest.mark.parametrize("kind", ["stripe_v1", "stripe_v2"])
async def test_a_cancellation_that_was_never_answered_is_parked_after_the_day(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1))
        await it.run()
        await it.run(3600)
        await post(it.api, reversal(3, 1, "2026-11-22T11:00:00Z"))
        fake.faults = ["lost"]
        await it.run()
        await it.run(25 * 3600)
        assert (await it.meter(kind))["causes"] == {"ambiguous": 1}
        assert fake.total(METER) == 0


@pytest.mark.parametrize("kind", ["stripe_v1", "stripe_v2", "metronome"])
async def test_what_is_too_old_is_parked_and_becomes_an_event_of_the_day_it_is_redelivered(
    file_url: URL, kind: str
) -> None:
    async with exporting(file_url, [kind]) as it:
        await put_plan(it.api, "then", simple_plan())  # a plan of its own holds for October too
        await it.api.put("/v1/customers/customer-17", json={"plan": "then"})
        await post(it.api, event(1, time="2026-10-10T00:00:00Z"))
        await it.run()
        assert (await it.meter(kind, "2026-10"))["causes"] == {"too_old": 1}
        assert it.fakes[kind].requests == []
        await it.redeliver(kind)
        await it.run()
        assert it.fakes[kind].total(METER) == 1


@pytest.mark.parametrize("kind", ["polar", "stripe_v1", "orb"])
async def test_a_time_in_the_future_is_waited_for_or_parked(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        await post(it.api, event(1, time="2026-11-22T10:30:00Z"), event(2, time="2026-11-25T10:00:00Z"))
        await it.run()
        assert it.fakes[kind].requests == []
        shown = await it.meter(kind)
        assert (shown["waiting"], shown["causes"]) == (1, {"in_the_future": 1})
        await it.run(1801)
        assert it.fakes[kind].total(METER) == 1


async def test_a_customer_that_nobody_has_named_is_parked_until_somebody_does(ledger_url: URL) -> None:
    more = "  customer: attributes.stripe\n"
    async with exporting(ledger_url, ["stripe_v1"], more=more) as it:
        await post(it.api, event(1))
        await it.run()
        [entry] = await it.entries("stripe_v1", "parked")
        assert (entry["cause"], "attributes.stripe of customer-17" in entry["reason"]) == ("no_customer", True)
        await it.api.put("/v1/customers/customer-17", json={"attributes": {"stripe": "cus_9"}})
        await it.redeliver("stripe_v1")
        await it.run()
        assert it.fakes["stripe_v1"].amounts == {("cus_9", METER): 1}


async def test_a_wrong_key_blames_no_event(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["openmeter"]) as it:
        fake = it.fakes["openmeter"]
        await post(it.api, event(1))
        answer = fake.answer
        for status in (401, 403, 404):
            fake.answer = lambda *_, status=status: web.Response(status=status)
            await it.run(600)
            fake.answer = answer
            assert (await it.meter("openmeter"))["waiting"] == 1
        await it.run(600)
        assert fake.total(METER) == 1


async def test_a_sender_that_dies_leaves_its_entries_to_the_others(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"], replicas=2) as it:
        await post(it.api, *(event(number) for number in range(5)))
        await it.note()
        first, second = it.replicas
        taken = await claim(it.api.billing.database, first.destinations[0], it.clock.now_us)
        assert taken is not None
        assert [len(batch) for batch in taken] == [5]
        assert not await second.senders[0].step(), "they are claimed"
        it.clock.now_us += CLAIM_US
        assert await second.senders[0].step()
        assert it.fakes["lago"].total(METER) == 5


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def feeding(sender: Sender) -> AsyncIterator[None]:
    """As upkeep does."""

    async def feed() -> None:
        while True:
            if not await sender.feed():
                await asyncio.sleep(0.01)

    task = asyncio.create_task(feed())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("kind", "customers", "more", "at_once"),
    [
        ("webhook", 1, "", 8),
        ("webhook", 1, "  concurrency_max: 3\n", 3),
        ("stripe_v1", 12, "", 8),
        ("stripe_v2", 2, "", 2),  # of each customer one
        ("stripe_v1", 1, "", 1),
        ("orb", 12, "  batch_max: 1\n", 1),
    ],
)
async def test_as_many_requests_are_on_their_way_as_may_be(
    ledger_url: URL, kind: str, customers: int, more: str, at_once: int
) -> None:
    async with exporting(ledger_url, [kind], more=more) as it:
        fake, sender = it.fakes[kind], it.replicas[0].senders[0]
        await post(it.api, *(event(number, subject=f"customer-{number % customers}") for number in range(12)))
        fake.open.clear()
        it.api.upkeep.start()
        try:
            await until(lambda: fake.under_way == at_once)
            fake.open.set()
            await until(lambda: sender.results["taken"] == 12)
        finally:
            await it.api.upkeep.stop()
        assert fake.most_at_once == at_once
        assert getattr(fake, "met", 0) == 0
        assert bool(sender.held_up) == (at_once == sender.destination.traits.concurrency_max)
        text = (await it.api.get("/metrics")).text
        assert f'sidecar_billing_export_held_up_total{{target="{kind}"}} {float(sender.held_up)}' in text
        assert fake.total(METER) == 12


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_correction_waits_for_what_it_corrects_however_many_go_at_once(ledger_url: URL, replicas: int) -> None:
    async with exporting(ledger_url, ["stripe_v1"], replicas=replicas) as it:
        fake, senders = it.fakes["stripe_v1"], [exports.senders[0] for exports in it.replicas]
        await post(it.api, *(event(number, subject=f"customer-{number % 4}") for number in range(8)))
        await it.note()
        await post(
            it.api, *(reversal(number + 10, number, LATER, subject=f"customer-{number % 4}") for number in range(8))
        )
        await it.note()
        fake.open.clear()
        async with AsyncExitStack() as stack:
            for sender in senders:
                await stack.enter_async_context(feeding(sender))
            await until(lambda: fake.under_way == 4)
            fake.open.set()
            await until(lambda: sum(sender.results["taken"] for sender in senders) == 8)
            it.clock.now_us += 1_000_000
        for _ in range(4):
            await it.run(60)  # what was claimed when feeding ended goes when its claim has
        assert fake.amounts == {(f"customer-{number}", METER): 0 for number in range(4)}
        assert fake.met == 0
        acts = [(entry["act"], entry["state"]) for entry in await it.entries("stripe_v1")]
        assert acts == [("cancel", "acknowledged")] * 8 + [("usage", "acknowledged")] * 8


async def test_what_keeps_an_answer_from_being_written_down_is_told_and_the_entry_goes_again(
    ledger_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exporting(ledger_url, ["webhook"]) as it:
        sender = it.replicas[0].senders[0]
        await post(it.api, event(1))
        await it.note()

        async def failing(*_: Any) -> None:
            raise OSError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr("sidecar.billing.exports.sender.settle", failing)
            assert await sender.feed()
            await until(lambda: sender.results["taken"] == 1)
            with pytest.raises(OSError, match="the disk is full"):
                await until_raises(sender)
        it.clock.now_us += CLAIM_US
        await it.run()
        assert (await it.meter("webhook"))["acknowledged"] == 1
        assert it.fakes["webhook"].total(METER) == 1


async def until_raises(sender: Sender) -> None:
    async with asyncio.timeout(30):
        while True:
            await sender.feed()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["webhook", "stripe_v1"])
async def test_a_target_that_has_too_much_is_left_alone(ledger_url: URL, kind: str) -> None:
    async with exporting(ledger_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, *(event(number, subject=f"customer-{number}") for number in range(5)))
        fake.faults = ["429"]
        await it.run()
        await it.run(6)
        assert len(fake.requests) == 1, "Retry-After says 7 seconds, to all"
        await it.run(1)
        await it.run(10)
        assert fake.total(METER) == 5


async def test_what_is_shown_is_read_from_sums_and_from_what_waits_or_is_parked(file_url: URL) -> None:
    async with exporting(file_url, ["webhook"]) as it:
        it.fakes["webhook"].broken = {"nobody"}
        await post(it.api, event(1), event(2), event(3, subject="nobody"))
        await it.run()
        await post(it.api, event(4))
        await it.note()
        asked: list[tuple[str, Any]] = []
        engine = it.api.billing.database.engine.sync_engine

        @listens_for(engine, "before_cursor_execute")
        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            if "export_events" in statement:
                asked.append((statement, parameters))

        shown = (await get(it.api, "/v1/exports"))["exports"][0]
        await it.api.get("/metrics")
        remove(engine, "before_cursor_execute", note)
        assert asked
        async with it.api.billing.database.reading() as connection:
            for statement, parameters in asked:
                rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plan = [row.detail for row in rows]
                searched = [line for line in plan if line.startswith("SEARCH export_events USING ")]
                assert searched, plan
                assert not [line for line in plan if line.startswith("SCAN")], plan
                assert "state = ?" in statement, "acknowledged ones are not read"
        numbers = ("written", "sent", "acknowledged", "waiting", "parked", "oldest_waiting_seconds")
        assert [shown[name] for name in numbers] == [4, 3, 2, 1, 1, 0]
        assert shown["causes"] == {"refused": 1}


async def test_what_a_plan_couples_and_what_changes_later_comes_out_right(ledger_url: URL) -> None:
    plan = simple_plan(window="BILLING_PERIOD").replace("field: session_id", "field: conversation")
    async with exporting(ledger_url, ["orb"], plan=plan) as it:
        same = {"conversation": "c-1"}
        await post(it.api, event(1, data=same), event(2, data=same), event(3))
        await it.run()
        assert it.fakes["orb"].total(METER) == 2
        await post(it.api, reversal(4, 1, LATER))  # its place in the window goes to the second
        await it.run()
        await it.run(60)
        assert it.fakes["orb"].total(METER) == 2
        assert units(await it.meter("orb"))["difference"] == 0


async def test_meters_get_what_their_metrics_and_plans_count(ledger_url: URL) -> None:
    plan = (
        "rate_plan: {name: p, metrics: [{id: m, aggregation: COUNT}, "
        "{id: t, aggregation: SUM, event_field: attributes.hours}], "
        "charges: [{id: c, metrics: [m, t], model: PER_UNIT, rate: 1}]}"
    )
    more = "  meters: [{code: hours, metrics: [t]}, {code: both, metrics: [m, t], plans: [default]}, "
    more += "{code: none, metrics: [m], plans: [other]}]\n"
    async with exporting(ledger_url, ["orb"], plan=plan) as it:
        fake = FAKES["openmeter"](it.clock)
        async with fake.listening() as url:
            source = f"exports:\n- name: om\n  kind: openmeter\n  url: {url}\n  secret: {{env: K}}\n{more}"
            destinations = load_exports(source.encode(), "f", {"K": SECRET})
            exports, others = Exports(it.api.billing.database, destinations, it.clock), it.replicas[:]
            await exports.begin()
            it.api.billing.exports, it.replicas[:] = exports, [exports]
            await post(it.api, event(1, data={"attributes": {"hours": 2.5}}), event(2))
            await it.run()
            assert {code: amount for (_, code), amount in fake.amounts.items()} == {
                "hours": Decimal("2.5"), "both": Decimal("4.5")
            }  # fmt: skip
            shown = (await get(it.api, "/v1/exports"))["exports"]
            assert [one["meter"] for one in shown] == ["hours", "both", "none"]
            await exports.close()
        assert others[0].senders[0].results == {}


async def test_what_was_there_before_a_meter_does_not_go_to_it(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["polar"]) as it:
        exports, it.api.billing.exports = it.api.billing.exports, None
        await post(it.api, event(1))
        it.clock.now_us += 1
        async with it.api.billing.database.writing() as connection:
            await connection.execute(export_meters.update().values(since_us=it.clock.now_us))
        it.api.billing.exports = exports
        await post(it.api, event(2))
        await it.run()
        assert it.fakes["polar"].total(METER) == 1
        assert units(await it.meter("polar"))["ledger"] == 1


async def test_answers_are_as_they_are_described(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["polar"]) as it:
        await post(it.api, event(1), event(2, time="2026-11-28T00:00:00Z"))
        await it.run()
        shown = await get(it.api, "/v1/exports", period="2026-11")
        page = await get(it.api, "/v1/exports/polar", limit="1")
        assert page["next"]
        rest = await get(it.api, "/v1/exports/polar", after=page["next"])
        assert (len(page["entries"]), len(rest["entries"]), rest["next"]) == (1, 1, None)
        decided = await it.redeliver("polar")
        for answer, shape in (
            (shown, ExportsShown), (page, ExportEntries), (rest, ExportEntries), (decided, Redelivered)
        ):  # fmt: skip
            checked = TypeAdapter(shape).validate_python(answer, strict=True)
            assert checked == answer, "nothing that is not described"
        document = await get(it.api, "/openapi.json")
        assert {path for path in document["paths"] if "exports" in path} == {
            "/v1/exports", "/v1/exports/{target}", "/v1/exports/{target}/redeliver"
        }  # fmt: skip


async def test_requests_that_make_no_sense_are_refused(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["orb"]) as it:
        assert "no target" in (await it.redeliver("nobody", 404))["detail"]
        assert "not parked at orb: exp_1" in (await it.redeliver("orb", 409, entries=["exp_1"]))["detail"]
        await it.redeliver("orb", 422, action="guess")
        await get(it.api, "/v1/exports/nobody", 404)
        await get(it.api, "/v1/exports/orb", 400, state="lost")
        await get(it.api, "/v1/exports", 400, period="x")


async def test_metrics_tell_what_waits_and_what_is_parked(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["polar"]) as it:
        await post(it.api, event(1), event(2, time="2026-11-28T00:00:00Z"))
        it.fakes["polar"].faults = ["500"]
        await it.run()
        it.clock.now_us += 90_000_000
        text = (await it.api.get("/metrics")).text
        for line in (
            f'sidecar_billing_export_entries{{meter="{METER}",state="waiting",target="polar"}} 1.0',
            f'sidecar_billing_export_entries{{meter="{METER}",state="parked",target="polar"}} 1.0',
            f'sidecar_billing_export_oldest_waiting_seconds{{meter="{METER}",target="polar"}} 90.0',
            'sidecar_billing_export_answers_total{result="retry",target="polar"} 1.0',
        ):
            assert line in text


async def test_what_comes_while_sums_are_made_is_exported_the_next_time(ledger_url: URL) -> None:
    """On PostgreSQL events are taken meanwhile: between the exports' look at a group of events and the sums'."""
    async with exporting(ledger_url, ["webhook"]) as it:
        exports = it.api.billing.exports
        note, later = exports.note, [reversal(9, of=1, time=LATER)]

        async def interrupted(*arguments: Any) -> None:
            await note(*arguments)
            if later and ledger_url.get_backend_name() == "postgresql":
                await post(it.api, later.pop())

        exports.note = interrupted
        await post(it.api, event(1))
        await it.run()
        if later:  # SQLite has one writer at a time
            await post(it.api, later.pop())
        await it.run(60)
        await it.run(60)
        assert it.fakes["webhook"].amounts == {("customer-17", METER): 0}
        assert units(await it.meter("webhook"))["difference"] == 0
