"""`sidecar plan test` as people run it: the examples hold, and whatever is expected wrongly is found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from sidecar import cli
from sidecar.plantest.conversation import Expected

PLANS = Path(__file__).parents[2] / "examples" / "plans"


@pytest.fixture
def plan_test(capsys):
    def run(*arguments):
        code = cli.main(["plan", "test", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_the_examples_end_as_their_tests_say_and_every_plan_but_the_demos_has_tests(plan_test):
    code, out, err = plan_test(PLANS, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["failed"] == 0
    assert document["passed"] >= 45
    tested = {each["plan"]["name"] for each in document["conversations"]}
    named = {yaml.safe_load(file.read_text())["rate_plan"]["name"] for file in PLANS.glob("*.yaml")}
    assert {name for name in named - tested if not name.startswith("Demo")} == set()


def flipped(name, value):
    """Another value than the one that was expected."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value, "never"]
    if isinstance(value, dict):
        return {**value, "never": "there"}
    other = {"state": ("REVERSED", "RESOLVED"), "confirmation": ("CONFIRMED", "ASSUMED")}.get(name, ("x", "y"))
    return other[0] if value != other[0] else other[1]


def test_each_expectation_of_an_example_turned_round_fails_alone(plan_test, tmp_path):
    """Every field that any example names is really compared: turned round, it alone differs, with its line."""
    text = (PLANS / "tests" / "qualified-lead.yaml").read_text() + "\n"
    (tmp_path / "plan.yaml").write_text((PLANS / "qualified-lead.yaml").read_text())
    document = yaml.safe_load(text)
    seen = set()
    for number, each in enumerate(document["conversations"]):
        for name, value in (each["expect"] if isinstance(each["expect"], dict) else {}).items():
            if name in {"metrics", "charges"} or name in seen:
                continue
            seen.add(name)
            changed = json.loads(json.dumps(document))
            changed["plan"] = "plan.yaml"
            changed["conversations"] = [changed["conversations"][number]]
            changed["conversations"][0]["expect"] = each["expect"] | {name: flipped(name, value)}
            file = tmp_path / "t.yaml"
            file.write_text(yaml.safe_dump(changed, sort_keys=False))
            code, out, err = plan_test(file, "--json")
            assert (code, err) == (1, ""), name
            [conversation] = json.loads(out)["conversations"]
            assert [difference["field"] for difference in conversation["differences"]] == [name]
            line = conversation["differences"][0]["line"]
            assert name in file.read_text().splitlines()[line - 1]
    assert seen >= {"outcome", "attributes", "rules", "state", "posted"}
    assert seen <= set(Expected.model_fields)


def test_a_difference_says_where_it_is_and_why(plan_test, tmp_path):
    (tmp_path / "t.yaml").write_text(
        f"plan: {PLANS / 'fin.yaml'}\n"
        "conversations:\n"
        "  - name: hoped for\n"
        "    steps:\n"
        '      - {user: "Hi", tools: [{name: transfer_to_human}]}\n'
        "      - expect: {state: AI_HANDLING}\n"
        "    expect:\n"
        "      - outcome: RESOLVED\n"
        "        metrics: [ai_resolution]\n"
    )
    code, out, _ = plan_test(tmp_path)
    assert code == 1
    file = re.escape(str(tmp_path / "t.yaml"))
    for pattern in (
        rf"FAIL  {file}:3  hoped for",
        rf"{file}:6: after step 2, session 1: state is NOT_BILLABLE, expected AI_HANDLING",
        rf"{file}:8: session 1: outcome is ESCALATED_TO_HUMAN, expected RESOLVED",
        rf"{file}:9: session 1: metrics is \[\], expected \[ai_resolution\]",
        r"the rule transfer_to_human \(tool_call\) matched",
        r"0 of 1 conversations in 1 file end as expected",
    ):
        assert re.search(pattern, out), (pattern, out)


def test_the_same_conversations_under_another_plan(plan_test):
    tests = PLANS / "tests" / "zendesk-like.yaml"
    code, out, _ = plan_test(tests, "--plan", PLANS / "fin-like.yaml", "--only", "72 hours of silence")
    assert code == 1
    assert "expected AI_HANDLING" in out
    code, out, _ = plan_test(tests, "--only", "72 HOURS of silence", "--verbose")
    assert (code, "takes silence for a resolution" in out) == (0, True)


def test_the_schema_is_printed_for_editors(plan_test):
    code, out, _ = plan_test("--schema")
    assert code == 0
    assert json.loads(out)["properties"]["conversations"]["type"] == "array"
    assert plan_test()[0] == 2


def test_nothing_to_play_is_wrong_usage_and_a_broken_file_is_a_failure(plan_test, tmp_path):
    assert plan_test(tmp_path)[0] == 2
    assert plan_test(tmp_path / "absent")[0] == 2
    assert plan_test(PLANS, "--only", "no such name")[0] == 2
    (tmp_path / "t.yaml").write_text(f"plan: {PLANS / 'fin.yaml'}\nconversation: []\n")
    code, _, err = plan_test(tmp_path)
    assert code == 1
    assert "t.yaml:2: plan: unknown field 'conversation'; did you mean conversations?" in err


def test_shadow_and_requests_of_an_unknown_api(plan_test, tmp_path):
    (tmp_path / "plan.yaml").write_text(
        """
rate_plan:
  name: own api
  metrics: [{id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: DONE}]}]
  pricing: {model: PER_UNIT, rate: 1}
  signals:
    - id: done
      on: response
      conditions:
        - {field: path, operator: STARTS_WITH, value: /agents/}
        - {field: body.result.status, operator: EQUALS, value: done}
        - {field: headers.X-Final, operator: EXISTS}
        - {field: query.v, operator: EQUALS, value: "2"}
      set: {outcome: DONE}
"""
    )
    (tmp_path / "t.yaml").write_text(
        """
plan: plan.yaml
conversations:
  - name: shadow
    shadow: true
    steps:
      - request:
          path: "/agents/7?v=2"
          body: {ask: x}
          response: {body: {result: {status: done}}, headers: {X-Final: y}}
    expect: {outcome: DONE, shadow: true, metrics: [m]}
  - name: not final
    steps:
      - request: {path: "/agents/7?v=2", body: {ask: x}, response: {body: {result: {status: done}}}}
    expect: {state: INCONCLUSIVE, shadow: false}
"""
    )
    assert plan_test(tmp_path)[0] == 0


def test_a_vendors_webhook_maps_as_it_does_in_the_sidecar(plan_test, tmp_path):
    """The built-in rules, and the place of the conversation that the source, or the deployment, says."""
    (tmp_path / "plan.yaml").write_text("rate_plan: {name: built-in rules}")
    (tmp_path / "t.yaml").write_text(
        """
plan: plan.yaml
settings: {webhook_conversations: {zendesk: payload.detail.external_id}}
conversations:
  - name: solved in Zendesk
    id: T-1
    steps:
      - {user: "Hello", agent: "Hello"}
      - webhook:
          source: zendesk
          payload:
            type: "zen:event-type:ticket.status_changed"
            detail: {id: "35436", external_id: T-1}
            event: {current: SOLVED, previous: OPEN}
    expect: {outcome: RESOLVED, rules: [zendesk_solved]}
"""
    )
    assert plan_test(tmp_path)[0] == 0
    text = (tmp_path / "t.yaml").read_text()
    (tmp_path / "t.yaml").write_text(text.replace("payload.detail.external_id", "payload..x"))
    code, _, err = plan_test(tmp_path)
    assert (code, "t.yaml:3: settings: SIDECAR_WEBHOOK_CONVERSATION_ZENDESK" in err) == (1, True)
