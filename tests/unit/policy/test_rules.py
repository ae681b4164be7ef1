"""Rules: what holds, and what a rule's `set` means."""

from __future__ import annotations

import textwrap

import pytest

from sidecar.policy.effect import Effect
from sidecar.policy.loading import builtin_plan, load_plan
from sidecar.policy.rules import Mapped, Rules, builtin_webhook_rules


def rules(text: str) -> Rules:
    return load_plan(b"rate_plan:\n  name: p\n" + textwrap.indent(textwrap.dedent(text), "  ").encode(), "p").rules


@pytest.mark.parametrize("name", ["resolve_conversation", "mark_resolved", "close_ticket"])
def test_built_in_tools_resolve(name: str) -> None:
    [effect] = builtin_plan().rules.judge("tool_call", {"name": name, "arguments": {}}, call="c1", digest="d")
    assert effect == Effect(
        rule=name, kind="tool_call", event="resolve", outcome="RESOLVED", confirmation="CONFIRMED",
        reason=f"{name} tool", call="c1", digest="d",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["transfer_to_human", "escalate_to_human", "handoff_to_agent", "request_human"])
def test_built_in_tools_escalate(name: str) -> None:
    [effect] = builtin_plan().rules.judge("tool_call", {"name": name})
    assert (effect.event, effect.outcome, effect.reason) == ("escalate", None, f"{name} tool")


def test_other_tools_mean_nothing() -> None:
    loaded = builtin_plan().rules
    assert loaded.judge("tool_call", {"name": "search"}) == ()
    assert loaded.wants("tool_call")
    assert not loaded.wants("response")


@pytest.mark.parametrize(
    ("setting", "event", "outcome"),
    [
        ("{outcome: RESOLVED}", "resolve", "RESOLVED"),
        ("{outcome: PROACTIVE_OUTREACH_RESOLVED}", "resolve", "PROACTIVE_OUTREACH_RESOLVED"),
        ("{outcome: ESCALATED_TO_HUMAN}", "escalate", None),
        ("{escalated_to_human: true}", "escalate", None),
        ("{outcome: UNRESOLVED}", "unresolve", None),
        ("{customer: acme}", None, None),
        ("{outcome: QUALIFIED, escalated_to_human: false}", "resolve", "QUALIFIED"),
    ],
)
def test_what_set_means(setting: str, event: str | None, outcome: str | None) -> None:
    [effect] = rules(f"signals: [{{id: s, on: request, set: {setting}}}]").judge("request", {})
    assert (effect.event, effect.outcome, effect.rule, effect.kind) == (event, outcome, "s", "request")


def test_an_empty_list_of_signals_means_no_rules_at_all() -> None:
    assert not rules("signals: []").wants("tool_call")


def test_conditions_names_of_headers_and_order() -> None:
    loaded = rules(
        """
        signals:
          - id: first
            on: response
            conditions: [{field: headers.X-Handoff, operator: EXISTS}, {field: status, operator: LESS_THAN, value: 300}]
            set: {escalated_to_human: true, attributes: {tier: gold}}
          - id: second
            on: response
            conditions: [{field: text, operator: MATCHES, value: "(?i)bye"}]
            set: {outcome: X}
        """
    )
    facts = {"status": 200, "headers": {"x-handoff": "1"}, "text": "Bye!"}
    assert [effect.rule for effect in loaded.judge("response", facts)] == ["first", "second"]
    assert loaded.judge("response", facts)[0].attributes == {"tier": "gold"}
    assert loaded.judge("response", {**facts, "status": 500, "text": ""}) == ()


def test_webhooks_find_their_conversation() -> None:
    loaded = rules(
        """
        signals:
          - id: bad_rating
            on: webhook
            conditions:
              - {field: source, operator: EQUALS, value: intercom}
              - {field: payload.rating, operator: LESS_OR_EQUAL, value: 2}
            alias: {kind: conversation, value: payload.item.id}
            set: {outcome: UNRESOLVED}
        """
    )
    facts = {"source": "intercom", "payload": {"rating": 1, "item": {"id": 77}}}
    [mapped] = loaded.judge_webhook(facts, digest="d")
    assert isinstance(mapped, Mapped)
    assert (mapped.kind, mapped.value, mapped.effect.event, mapped.effect.digest) == (
        "conversation", "77", "unresolve", "d",
    )  # fmt: skip
    for identifier in (None, "", True, "x" * 300, "a\nb", {"no": "id"}):
        assert loaded.judge_webhook({**facts, "payload": {"rating": 1, "item": {"id": identifier}}}) == ()
    assert loaded.judge_webhook({**facts, "source": "zendesk"}) == ()


def test_set_reads_codes_and_numbers_out_of_a_tool_call_never_words() -> None:
    loaded = rules(
        """
        signals:
          - id: lead
            on: tool_call
            set:
              outcome: QUALIFIED
              attributes: {score: arguments.score, tier: arguments.tier, note: arguments.note, hot: arguments.hot, f: x}
        """
    )
    arguments = {"score": 87, "tier": "T-1", "note": "she said she needs it now", "hot": True}
    [effect] = loaded.judge("tool_call", {"name": "qualify", "arguments": arguments})
    assert effect.attributes == {"score": 87, "tier": "T-1", "hot": True, "f": "x"}
    [bare] = loaded.judge("tool_call", {"name": "qualify", "arguments": {"score": 1e300}})
    assert bare.attributes == {"f": "x"}


def test_a_webhook_names_its_customer() -> None:
    loaded = rules(
        """
        signals:
          - id: won
            on: webhook
            alias: {value: payload.deal.conversation}
            set: {outcome: WON, customer: payload.deal.account, attributes: {amount: payload.deal.amount}}
        """
    )
    deal = {"conversation": "c-1", "account": 4711, "amount": 12.5}
    [mapped] = loaded.judge_webhook({"source": "crm", "payload": {"deal": deal}})
    assert (mapped.effect.customer, mapped.effect.attributes) == ("4711", {"amount": "12.5"})
    [unnamed] = loaded.judge_webhook({"source": "crm", "payload": {"deal": {"conversation": "c-1"}}})
    assert (unnamed.effect.customer, unnamed.effect.attributes) == (None, {})


def test_a_webhook_s_rule_may_set_what_the_webhook_tells() -> None:
    loaded = rules(
        """
        signals:
          - id: told
            on: webhook
            alias: {value: conversation}
            set: {customer: headers.X-Customer, attributes: {deal: payload.deal, plan: payload.plan, tier: gold}}
        """
    )
    facts = {"conversation": 7, "payload": {"deal": 1250}, "headers": {"x-customer": "acme"}}
    [mapped] = loaded.judge_webhook(facts)
    assert (mapped.value, mapped.effect.customer) == ("7", "acme")
    assert mapped.effect.attributes == {"deal": "1250", "tier": "gold"}
    [mapped] = loaded.judge_webhook({**facts, "headers": {"x-customer": "x" * 257}})
    assert mapped.effect.customer is None


def test_the_built_in_webhook_rules_are_a_plan_s_rules() -> None:
    names = [rule.id for rule in builtin_webhook_rules()]
    assert len(set(names)) == len(names) > 30
    assert builtin_plan().rules.wants("webhook")
