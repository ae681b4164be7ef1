"""The plans' JSON Schema takes what the models take, and finds what editors should underline."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from pathlib import Path

import pytest
from jsonschema.validators import Draft202012Validator

from sidecar import cli
from sidecar.policy.loading import builtin_plan, load_plan
from sidecar.policy.schema import plan_schema
from sidecar.policy.tree import read_tree

PLANS = sorted((Path(__file__).parents[3] / "examples" / "plans").glob("*.yaml"))
SCHEMA = Draft202012Validator(plan_schema())


def plain(value):
    """Decimals as the numbers that an editor reads."""
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def tree(source: bytes):
    return plain(read_tree(source).value)


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(plan_schema())


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_example_plans_fit(path: Path) -> None:
    load_plan(path.read_bytes(), path.name)
    assert list(SCHEMA.iter_errors(tree(path.read_bytes()))) == []


def test_the_built_in_plan_fits() -> None:
    assert list(SCHEMA.iter_errors(tree(builtin_plan().source))) == []


COMPOUND = tree(next(path for path in PLANS if path.stem == "compound").read_bytes())


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("rate_plan", "nam"), "x"),
        (("rate_plan", "billing_mode"), "PREPAID"),
        (("rate_plan", "trial_days"), -1),
        (("rate_plan", "metrics", 0, "aggregation"), "AVERAGE"),
        (("rate_plan", "metrics", 0, "filter_conditions", 0, "operator"), "LIKE"),
        (("rate_plan", "metrics", 0, "filter_conditions", 0, "value"), "RESOLVED"),
        (("rate_plan", "charges", 1, "model"), "GRADUATED"),
        (("rate_plan", "charges", 1, "rate"), "a lot"),
        (("rate_plan", "charges", 1, "rate"), -1),
        (("rate_plan", "guardrails", "max_spend_behavior"), "STOP"),
        (("rate_plan", "session_config", "on_return"), "FORGET"),
    ],
)
def test_slips_are_found(where: tuple, value: object) -> None:
    broken = copy.deepcopy(COMPOUND)
    here = broken
    for part in where[:-1]:
        here = here[part]
    here[where[-1]] = value
    assert list(SCHEMA.iter_errors(broken))


def test_every_field_that_a_plan_may_have_says_what_it_means_or_has_a_name_that_does() -> None:
    charge = plan_schema()["$defs"]["Charge"]["properties"]
    assert all("description" in charge[name] for name in ("model", "rate", "tiers", "included_free", "metrics", "when"))


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == plan_schema()
