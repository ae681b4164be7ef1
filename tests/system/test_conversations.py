"""Forty mixed conversations through the official SDKs: forty sessions, each posted once, with the right figures."""

import asyncio
import itertools

import httpx
from harness import ledger, wait_for
from talk import Talk, hold, posted

PLAN = """
rate_plan:
  name: "test"
  billing_mode: POSTPAID
  metrics:
    - id: resolution
      name: Resolutions
      unit: resolution
      aggregation: COUNT
      event_field: outcome
      filter_conditions:
        - {field: outcome, operator: EQUALS, value: RESOLVED}
  pricing: {model: PER_UNIT, rate: 0.99, currency: USD, included_free: 2, overage_behavior: CHARGE}
  session_config: {timeout_minutes: 0.1}
"""


def mixed(count):
    ways = itertools.product(("openai", "anthropic"), (False, True), (False, True))
    kinds = itertools.cycle(("resolved", "escalated", "abandoned", "resolved", "resolved"))
    return [
        Talk(f"c-{number}", kind, f"customer-{number % 3}", provider, stream, sync)
        for number, (kind, (provider, stream, sync)) in enumerate(
            zip(kinds, itertools.islice(itertools.cycle(list(ways)), count), strict=False)
        )
    ]


async def test_forty_conversations_are_forty_sessions_each_posted_once(sidecar, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    running = sidecar(PLAN=plan, BILLING_PLAN=plan).start()
    talks = mixed(40)
    await asyncio.gather(*(hold(talk, running.url) for talk in talks))

    billing = running.billing_url()
    rows = wait_for("forty outcomes", lambda: len(found := ledger(billing)) >= 40 and found)
    running.wait_up()
    assert len(rows) == 40
    assert {row["data"]["conversation"]: posted(row) for row in rows} == {
        talk.conversation: talk.expected() for talk in talks
    }
    assert all(row["data"]["complete"] for row in rows)

    month = rows[0]["time"][:7]
    charged = 0
    for customer in {talk.customer for talk in talks}:
        invoice = httpx.get(f"{billing}/v1/customers/{customer}/invoice", params={"period": month}).json()
        resolved = sum(talk.kind == "resolved" for talk in talks if talk.customer == customer)
        line = invoice["lines"][0]
        assert (line["quantity"], line["free"]) == (resolved, 2)
        charged += resolved - 2
        assert invoice["total"] == f"{(resolved - 2) * 0.99:.2f}"
    summary = httpx.get(f"{billing}/v1/summary", params={"period": month}).json()
    assert summary["sessions"] == 40
    assert summary["charged"] == charged
    assert running.stop() == 0
