"""Plans: the reference plans load and mean what they say; every mistake is told at once, with its line."""

from __future__ import annotations

import textwrap
from decimal import Decimal
from pathlib import Path

import pytest

from sidecar.policy.loading import PlanError, Problem, builtin_plan, check_files, load_plan
from sidecar.policy.terms import Terms

PLANS = Path(__file__).parents[3] / "examples" / "plans"


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(PlanError) as caught:
        load_plan(textwrap.dedent(text).lstrip("\n").encode(), "p.yaml")
    assert str(caught.value).splitlines()[0].startswith("p.yaml:")
    return [(problem.line, problem.message) for problem in caught.value.problems]


def plan(body: str):
    text = "rate_plan:\n  name: p\n" + textwrap.indent(textwrap.dedent(body), "  ")
    return load_plan(text.encode(), "p.yaml").plan


def test_the_reference_plan_loads_as_it_stands() -> None:
    source = (PLANS / "fin.yaml").read_bytes()
    loaded = load_plan(source, "fin.yaml")
    [charge] = loaded.plan.all_charges()
    assert (charge.model, charge.rate, charge.included_free) == ("PER_UNIT", Decimal("0.99"), 100)
    assert charge.metrics == ["ai_resolution"]
    assert loaded.plan.trial_days == 14
    assert loaded.plan.currency_code == "USD"
    assert loaded.plan.guardrails.max_spend_behavior == "ALERT"
    assert loaded.terms == Terms("AI Resolution — Outcome-Based", loaded.digest)
    assert loaded.digest == builtin_plan().digest


def test_the_compound_plan_loads_as_it_stands() -> None:
    loaded = load_plan((PLANS / "compound.yaml").read_bytes(), "compound.yaml")
    assert [charge.id for charge in loaded.plan.all_charges()] == [
        "resolutions_pro", "resolutions_basic", "wins", "leads", "platform",
    ]  # fmt: skip
    tiers = loaded.plan.charges[0].tiers
    assert [(tier.up_to, tier.rate) for tier in tiers] == [(1000, Decimal("0.89")), (None, Decimal("0.69"))]
    terms = loaded.terms
    assert (terms.timeout_ms, terms.settle_ms, terms.on_return) == (1_800_000, 600_000, "REVERSE")
    assert terms.incomplete_policy == "HOLD"
    assert loaded.rules.wants("webhook")
    assert not loaded.rules.wants("request")


def test_times_may_be_fractions() -> None:
    text = b"rate_plan: {name: p, session_config: {timeout_minutes: 0.05, settle_minutes: 0.001, reversal_hours: .5}}"
    terms = load_plan(text, "p").terms
    assert (terms.timeout_ms, terms.settle_ms, terms.reversal_ms) == (3000, 60, 1_800_000)


def test_json_is_read_too_and_amounts_may_be_texts() -> None:
    text = b'{"rate_plan": {"name": "p", "charges": [{"id": "c", "metrics": [], "model": "FLAT", "rate": "49.90"}]}}'
    assert load_plan(text, "p").plan.charges[0].rate == Decimal("49.90")


def test_every_mistake_at_once_with_lines_and_suggestions() -> None:
    found = problems(
        """
        rate_plan:
          name: broken
          billing_mode: PREPAID
          curency: USD
          metrics:
            - id: m
              aggregation: CONT
              filter_conditions:
                - {field: outcom, operator: EQUAL, value: RESOLVED}
                - {field: outcome, operator: IN, value: RESOLVED}
            - {id: m, aggregation: SUM}
          charges:
            - {id: c, metrics: [n], model: PER_UNIT}
            - id: d
              metrics: [m]
              model: VOLUME
              tiers:
                - {up_to: 10, rate: 1}
                - {up_to: 5, rate: 0.5}
                - {rate: 0.1}
            - {id: e, metrics: [m], model: PACKAGE, rate: 20, package_size: 0}
            - id: f
              metrics: [m]
              when: [{field: session_id, operator: UNIQUE_WITHIN_WINDOW, window: SESSION}]
              model: PER_UNIT
              rate: yes
          session_config: {idempotency_key_field: conversation, timeout_minutes: 0}
          signals:
            - {id: s, on: tool_call, conditions: [{field: nam, operator: EQUALS, value: x}], set: {outcome: RESOLVED}}
            - {id: w, on: webhook, set: {outcome: RESOLVED}}
        """
    )
    expected = [
        (3, "billing_mode: PREPAID is not supported"),
        (4, "unknown field 'curency'; did you mean currency?"),
        (7, "metrics[0].aggregation: 'CONT' is not allowed: write one of COUNT, SUM, UNIQUE, MAX; did you mean COUNT?"),
        (9, "field: unknown field 'outcom'; did you mean outcome?"),
        (9, "did you mean EQUALS?"),
        (10, "a list of values is needed, like [RESOLVED, QUALIFIED], not 'RESOLVED'"),
        (11, "SUM needs event_field"),
        (11, "the id 'm' is used twice"),
        (13, "no metric has the id 'n'; there are: m"),
        (13, "PER_UNIT needs rate"),
        (19, "tiers must ascend: 5 does not come after 10"),
        (21, "package_size: more than 0 is needed"),
        (24, "belongs into a metric's filter_conditions"),
        (26, "rate: a number like 0.99 is needed, not 'yes'"),
        (27, "idempotency_key_field: 'conversation' is not allowed: write session_id"),
        (27, "timeout_minutes: more than 0 is needed"),
        (29, "unknown field 'nam'; did you mean name?"),
        (30, "a webhook needs alias"),
    ]
    for line, words in expected:
        assert any(at == line and words in message for at, message in found), (line, words, found)
    assert len(found) == len(expected), found


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("pricing: {model: PER_UNIT, rate: 1, tiers: [{rate: 1}]}", "does not use tiers"),
        ("pricing: {model: FLAT, rate: 1, included_free: 5}", "FLAT counts no units"),
        ("pricing: {model: GRADUATED, tiers: [{up_to: 5, rate: 1}]}", "must be open"),
        ("pricing: {model: GRADUATED, tiers: [{rate: 1}, {up_to: 5}]}", "only the last tier may be open"),
        ("pricing: {model: PER_UNIT, rate: -1}", "negative"),
        ("pricing: {model: PER_UNIT, rate: .nan}", "a number like"),
        ("pricing: {model: PER_UNIT, rate: 0.1234567890123}", "at most 12 digits"),
        ("pricing: {model: PER_UNIT, rate: true}", "a number like"),
        ("pricing: {model: PER_UNIT, rate: 1, currency: USDT}", "no ISO 4217"),
        ("{currency: EUR, pricing: {model: FLAT, rate: 1, currency: USD}}", "contradicts"),
        ("{pricing: {model: FLAT, rate: 1}, charges: [{id: c, metrics: [], model: FLAT, rate: 1}]}", "keep one"),
        ("charges: [{id: c, metrics: [], model: PER_UNIT, rate: 1}]", "at least one metric"),
        ("guardrails: {max_spend_behavior: CAP}", "CAP needs max_spend_cap"),
        ("guardrails: {max_spend_cap: 5, min_spend: 6}", "above max_spend_cap"),
        ("signals: [{id: s, on: request, set: {}}]", "nothing is set"),
        ("signals: [{id: s, on: request, set: {outcome: INCONCLUSIVE}}]", "silence"),
        ("signals: [{id: s, on: request, set: {outcome: X, escalated_to_human: true}}]", "contradict"),
        ("signals: [{id: s, on: request, alias: {value: body.id}, set: {outcome: X}}]", "only webhooks"),
        ("signals: [{id: s, on: webhook, alias: {value: payload..id}, set: {outcome: X}}]", "empty part"),
        ("signals: [{id: s, on: tool_call, set: {customer: payload.id}}]", "a tool_call has arguments.…"),
        ("signals: [{id: s, on: request, set: {customer: arguments.id}}]", "a request has none"),
        ("signals: [{id: s, on: request, set: {customer: body.user}}]", "SIDECAR_CUSTOMER"),
        ("signals: [{id: s, on: tool_call, set: {attributes: {x: arguments..y}}}]", "empty part"),
        (
            "signals: [{id: s, on: response, conditions: [{field: status.code, operator: EXISTS}], set: {outcome: X}}]",
            "one value and has no parts",
        ),
        (
            "signals: [{id: s, on: webhook, alias: {value: conversaton}, set: {outcome: X}}]",
            "did you mean conversation",
        ),
        ("signals: [{id: s, on: webhook, alias: {value: payload.id}, set: {customer: payload.}}]", "has an empty part"),
        ("trial_days: 1.5", "trial_days"),
        ("session_config: {timeout_minutes: 999999}", "too long"),
    ],
)
def test_refused(body: str, words: str) -> None:
    flow = body.startswith("{")
    text = f"rate_plan: {{name: p, {body[1:]}" if flow else f"rate_plan:\n  name: p\n  {body}"
    assert any(words in message for _, message in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "empty"),
        (b"rate_plan: [", "not YAML"),
        (b"\xff\xfe", "UTF-8"),
        (b"- 1\n- 2", "a mapping is needed"),
        (b"rate_plan: {name: a}\nrate_plan: {name: b}", "stands twice, first on line 1"),
        (b"rate_plan: !!python/object:os.system {name: a}", "tag"),
        (b"rate_plan: {name: !!int '5'}", "tag"),
        (b"a: {b: c}\n---\nd: e", "not YAML"),
        (b"rate_plan: {name: a, <<: {currency: USD}}", "merge keys"),
        (b"? [a]\n: b", "key must be a plain text"),
        (b"x" * 300_000, "at most 262144"),
        (b"[" * 2000, "nested"),
        (b"rate_plan: " + b"[" * 50 + b"]" * 50, "nested deeper"),
        (b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
            b"%c: &%c [%s]\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 9)) for n in range(ord("a"), ord("i"))
        ), "more than 20000 values"),
        (b"rate_plan: &a {name: p, metrics: [*a]}", "nested deeper"),
    ],
)  # fmt: skip
def test_hostile_or_unreadable_files_are_refused_with_a_reason(source: bytes, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        load_plan(source, "p.yaml")
    assert words in str(caught.value)


def test_on_is_a_key_and_plain_words_stay_words() -> None:
    loaded = plan(
        "signals:\n  - {id: s, on: request, set: {outcome: RESOLVED, attributes: {tier: yes, n: 5, b: true}}}"
    )
    assert loaded.signals[0].set.attributes == {"tier": "yes", "n": "5", "b": "true"}


def test_check_files_tells_all_problems_of_all_files(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("rate_plan: {name: x, trial_days: -1}")
    found = check_files([str(PLANS / "fin.yaml"), str(broken), str(tmp_path / "absent.yaml")])
    assert [(problem.file, problem.line) for problem in found] == [
        (str(broken), 1), (str(tmp_path / "absent.yaml"), 1),
    ]  # fmt: skip
    assert isinstance(found[0], Problem)
    assert check_files([str(path) for path in PLANS.glob("*.yaml")]) == []
