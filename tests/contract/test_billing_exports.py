"""What exports send, keep back and show, against fakes that enforce their vendors' rules, on both databases."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from billing_api import event, get, post, reversal, simple_plan
from export_fake import SECRET
from export_targets import FAKES
from exporting import KINDS, LATER, METER, exporting, units
from pydantic import TypeAdapter
from sqlalchemy.engine import URL
from sqlalchemy.event import listens_for, remove

from sidecar.billing.api.export_shapes import ExportEntries, ExportsShown, Redelivered
from sidecar.billing.exports.config import load_exports
from sidecar.billing.exports.service import Exports
from sidecar.billing.exports.tables import export_meters


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
