"""The format of conversations: what may be written, and what is said, with its line, when something else is."""

from __future__ import annotations

import textwrap
from decimal import Decimal

import jsonschema
import pytest
import yaml

from sidecar.plantest.conversation import Conversation, duration_ms, plain, schema
from sidecar.plantest.loading import load_suite

PLAN = "rate_plan: {name: p, metrics: [{id: m, aggregation: COUNT}], pricing: {model: PER_UNIT, rate: 1}}"


@pytest.fixture
def load(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)

    def load_text(text):
        (tmp_path / "t.yaml").write_text(textwrap.dedent(text).lstrip("\n"))
        suite = load_suite([tmp_path])
        return suite.cases, [(problem.line, problem.message) for problem in suite.problems]

    return load_text


@pytest.mark.parametrize(
    ("text", "ms"), [("90s", 90_000), ("5m", 300_000), ("1h30m", 5_400_000), ("3d", 259_200_000), ("0s", 0)]
)
def test_durations(text, ms):
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "1.5h", "-1h", "30m1h", "400d"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=r"duration|year"):
        duration_ms(text)


def test_every_mistake_at_once_with_lines_and_suggestions(load):
    _, found = load(
        """
        plan: plan.yaml
        conversations:
          - name: one
            steps:
              - {usr: "Hello"}
              - {user: "Hello", signal: {outcome: RESOLVED}}
              - {}
              - {wait: 5 minutes}
              - {signal: {outcome: INCONCLUSIVE}}
              - {signal: {source: crm}}
              - {wait: 1h, after: 5m}
              - {user: "x", tools: [{nam: look_up}]}
              - {user: 17}
            expect: {outcom: RESOLVED}
          - name: two
            steps: [{user: "Hello"}]
            expect:
              - {state: RESOLVD}
              - {turns: "2", held: yes}
          - {name: three, start: yesterday, steps: [{user: a}], expect: {}}
        """
    )
    expected = [
        (5, "unknown field 'usr'; did you mean user?"),
        (6, "user and signal are two steps"),
        (7, "nothing happens"),
        (8, "'5 minutes' is no duration"),
        (9, "INCONCLUSIVE is what silence means"),
        (10, "outcome, or escalated_to_human: true, is needed"),
        (11, "wait says how long already"),
        (12, "unknown field 'nam'; did you mean name?"),
        (12, "name is missing"),
        (13, "a text is needed, not 17"),
        (14, "unknown field 'outcom'; did you mean outcome?"),
        (18, "did you mean RESOLVED?"),
        (19, "turns: a whole number is needed"),
        (19, "held: true or false is needed"),
        (20, "'yesterday' is no time"),
    ]
    for line, words in expected:
        assert any(at == line and words in message for at, message in found), (line, words, found)


def test_a_name_stands_once_and_what_the_plan_does_not_have_is_told(load):
    _, found = load(
        """
        plan: plan.yaml
        settings: {session_keys: "nonsense"}
        conversations:
          - {name: one, steps: [{user: a}], expect: {metrics: [m, n]}}
        """
    )
    assert [line for line, _ in found] == [2]
    assert "settings.session_keys" in found[0][1]
    _, found = load(
        """
        plan: plan.yaml
        conversations:
          - {name: one, steps: [{user: a}, {expect: {charges: [x]}}], expect: {metrics: [m, n]}}
          - {name: two, steps: [{user: a}], expect: []}
        """
    )
    assert sorted(found) == [
        (3, "charges: the plan has no 'x'; there are: pricing"),
        (3, "metrics: the plan has no 'n'; there are: m"),
    ]
    _, found = load(
        """
        plan: plan.yaml
        conversations:
          - {name: one, steps: [{user: a}], expect: []}
          - {name: one, steps: [{user: a}], expect: []}
        """
    )
    assert found == [(4, "conversations[1].name: 'one' is the name of another one too")]


def test_a_plan_that_is_missing_or_broken_is_told(load, tmp_path):
    test = "plan: {}\nconversations: [{{name: one, steps: [{{user: a}}], expect: []}}]"
    _, found = load(test.format("absent.yaml"))
    assert found[0][0] == 1
    assert "absent.yaml cannot be read" in found[0][1]
    (tmp_path / "broken.yaml").write_text("rate_plan:\n  nam: p\n")
    cases, found = load(test.format("broken.yaml"))
    assert cases == ()
    assert any("did you mean name?" in message for _, message in found)


def test_plans_beside_the_tests_are_left_alone_and_files_that_are_neither_are_not(load, tmp_path):
    (tmp_path / "other.yaml").write_text("hello: 1")
    _, found = load("plan: plan.yaml\nconversations: [{name: one, steps: [{user: a}], expect: []}]")
    assert any("unknown field 'hello'" in message for _, message in found)


def test_ids_are_made_from_names():
    steps = [{"user": "x"}]
    made = Conversation(name="It's the CRM's turn!", steps=steps, expect=[])
    assert made.known_as == "it-s-the-crm-s-turn"
    assert Conversation(name="…", steps=steps, expect=[]).known_as == "conversation"
    assert Conversation(name="a", id="c-1", steps=steps, expect=[]).known_as == "c-1"


def test_the_json_schema_takes_every_example():
    from pathlib import Path  # noqa: PLC0415

    jsonschema.Draft202012Validator.check_schema(schema())
    files = list((Path(__file__).parents[3] / "examples" / "plans" / "tests").glob("*.yaml"))
    assert len(files) >= 5
    for file in files:
        document = yaml.safe_load(file.read_text())
        for each in document["conversations"]:  # the schema has the list; one mapping is the shorthand
            each["expect"] = each["expect"] if isinstance(each["expect"], list) else [each["expect"]]
            for step in each["steps"]:
                if isinstance(step.get("expect"), dict):
                    step["expect"] = [step["expect"]]
        jsonschema.validate(document, schema())


def test_exact_decimals_become_what_json_has():
    assert plain({"a": Decimal("1.50"), "b": [Decimal("2.0"), "x"], "c": True}) == {"a": 1.5, "b": [2, "x"], "c": True}
