"""What must hold before traffic is taken."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import app, preflight
from sidecar.policy.current import FORMER_MAX, CurrentPlan
from sidecar.policy.loading import load_plan
from sidecar.settings import SettingsError, load_settings


def settings(tmp_path, **environ):
    base = {"DATA_DIR": str(tmp_path / "data"), "QUEUE_DIR": "/dev/shm"}
    return load_settings({f"SIDECAR_{name}": value for name, value in (base | environ).items()})[0]


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path):
    yield
    directory = preflight.runtime_dir(settings(tmp_path))
    if directory.exists():
        directory.rmdir()


def test_directories_are_private(tmp_path):
    given = settings(tmp_path)
    plan, warnings = preflight.check(given, {})
    for directory in (given.data_dir, preflight.runtime_dir(given)):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert plan.terms.timeout_ms == 3_600_000
    assert warnings == []


def test_a_queue_on_disk_is_warned_of(tmp_path):
    given = settings(tmp_path, QUEUE_DIR=str(tmp_path))
    _, warnings = preflight.check(given, {})
    assert preflight.filesystem(Path("/dev/shm")) == "tmpfs"
    assert ("not a tmpfs" in str(warnings)) == (preflight.filesystem(tmp_path) not in preflight.TMPFS)


def test_every_problem_at_once(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("rate_plan:\n  name: x\n  billing_mode: PREPAID\n  metrix: []\n")
    file = tmp_path / "file"
    file.write_text("")
    given = settings(tmp_path, PLAN=str(plan), QUEUE_DIR=str(tmp_path / "none"), DATA_DIR=str(file / "x"))
    with pytest.raises(SettingsError) as caught:
        preflight.check(given, {})
    named = [problem.split(":")[0] for problem in caught.value.problems]
    assert named.count("SIDECAR_PLAN") >= 2
    assert {"SIDECAR_QUEUE_DIR", "SIDECAR_DATA_DIR"} <= set(named)


def test_what_the_right_variables_name_is_looked_at_although_others_are_wrong(tmp_path):
    environ = {
        "SIDECAR_MODE": "dry",
        "SIDECAR_ADMIN_LISTEN": "0.0.0.0:8090",
        "SIDECAR_PLAN": str(tmp_path / "none.yaml"),
        "SIDECAR_QUEUE_DIR": str(tmp_path / "none"),
        "SIDECAR_DATA_DIR": str(tmp_path / "data"),
        "SIDECAR_BILLING_LISTEN": "xx",
        "SIDECAR_BILLING_PLAN": str(tmp_path / "none.yaml"),
    }
    with pytest.raises(SettingsError) as caught:
        app.run(environ)
    named = {re.match("[A-Z_]+", problem)[0] for problem in caught.value.problems}
    assert named == {
        *("SIDECAR_MODE", "SIDECAR_ADMIN_TOKEN", "SIDECAR_PLAN", "SIDECAR_QUEUE_DIR"),
        *("SIDECAR_BILLING_LISTEN", "SIDECAR_BILLING_PLAN"),
    }
    assert not (tmp_path / "data").exists()


def test_a_data_directory_belongs_to_one_sidecar(tmp_path):
    given = settings(tmp_path)
    preflight.check(given, {})
    code = (
        "import os; from sidecar import preflight; from sidecar.settings import load_settings\n"
        "preflight.hold(load_settings(os.environ)[0]); print('held', flush=True); input()"
    )
    environ = {**os.environ, "SIDECAR_DATA_DIR": str(given.data_dir)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            SettingsError, match=rf"SIDECAR_DATA_DIR: .* in use by another sidecar \(process {other.pid} "
        ):
            preflight.hold(given)
        other.kill()
        other.wait()
    preflight.hold(given)  # however the other one ended


def test_the_journal_outlives_what_it_rebuilds(tmp_path):
    with pytest.raises(SettingsError, match="SIDECAR_JOURNAL_HOURS: 24 is less"):
        preflight.check(settings(tmp_path, JOURNAL_HOURS="24"), {})


def test_the_last_good_plan_comes_back(tmp_path):
    given = settings(tmp_path)
    plan, _ = preflight.check(given, {})
    preflight.remember_plan(given, plan)
    assert preflight.last_good_plan(given).digest == plan.digest


def test_plans_that_were_in_force_are_kept_for_the_sessions_that_they_opened(tmp_path):
    given = settings(tmp_path)
    preflight.check(given, {})
    folder = given.data_dir / "plans"
    plans = [load_plan(f"rate_plan: {{name: p{n}}}".encode(), "p") for n in range(FORMER_MAX + 4)]
    for number, plan in enumerate(plans):
        preflight.remember_plan(given, plan)
        os.utime(folder / f"{plan.digest.removeprefix('sha256:')}.yaml", ns=(number, number))
    kept = preflight.former_plans(given)
    assert [plan.name for plan in kept] == [plan.name for plan in reversed(plans)][: FORMER_MAX + 1]
    assert preflight.last_good_plan(given).digest == plans[-1].digest
    current = CurrentPlan(plans[-1], None, former=kept)
    assert [plan.name for plan in current.former] == [plan.name for plan in kept[1:]]
    (folder / "broken.yaml").write_text("rate_plan: 1")
    assert len(preflight.former_plans(given)) == FORMER_MAX + 1


def test_the_observer_does_without_the_ledgers_libraries():
    names = "sqlalchemy", "alembic", "asyncpg"
    command = f"import sys, sidecar.app; print([name for name in {names!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout == "[]\n"
