from __future__ import annotations

import pytest

from sidecar import preflight
from sidecar.policy.current import CurrentPlan
from sidecar.settings import SettingsError, load_settings

PLAN = """rate_plan:
  name: "p"
  metrics: [{id: m, aggregation: COUNT}]
  pricing: {model: PER_UNIT, rate: 1}
  session_config: {reversal_hours: %s}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN % 72)
    return path


@pytest.fixture
def current(path, tmp_path):
    environ = {"SIDECAR_DATA_DIR": str(tmp_path / "data"), "SIDECAR_PLAN": str(path), "SIDECAR_UPSTREAM": "http://llm"}
    settings, _ = load_settings(environ | {"SIDECAR_REDIS_URL": "redis://r", "SIDECAR_BILLING_URL": "http://b"})
    return CurrentPlan(
        preflight.read_plan(settings), path, judge=lambda plan: preflight.retention(settings, plan)
    ), settings


def test_a_plan_that_the_journal_is_too_short_for_is_refused_when_it_is_re_read_as_it_is_at_the_start(current, path):
    plan, settings = current
    path.write_text(PLAN % 720)
    assert not plan.refresh()
    assert plan.loaded.terms.reversal_ms == 72 * 3_600_000
    assert plan.refused == 1
    with pytest.raises(SettingsError) as at_start:
        preflight.check(settings, {})
    assert plan.problems == at_start.value.problems
    assert "SIDECAR_JOURNAL_HOURS: 168 is less" in plan.problems[0]
    path.write_text(PLAN % 96)
    assert plan.refresh()
    assert plan.problems == []
    assert plan.loaded.terms.reversal_ms == 96 * 3_600_000


def test_a_broken_version_is_refused_and_a_file_that_is_gone_too(current, path):
    plan, _ = current
    path.write_text("rate_plan: [")
    assert not plan.refresh()
    assert plan.problems
    path.unlink()
    assert not plan.refresh()
    assert "cannot be read" in plan.problems[0]
    assert plan.refused == 2
    path.write_text(PLAN % 72)
    assert not plan.refresh(), "the same plan as before"
    assert plan.problems == []
    assert not plan.refresh()
