"""The repository polices itself: what reviewers would otherwise have to say again and again."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES_MAX = 420
TEST_FILE_LINES_MAX = 650
FUNCTION_LINES_MAX = 65
# The wall clock is a parameter of everything that decides; these shells look at it and hand it on.
CLOCK_SHELLS = {
    "sidecar/admin/surroundings.py",  # compares this machine's clock with others
    "sidecar/billing/service.py",  # received_at, and what is being rated now
    "sidecar/cli/tail.py",  # --since 10m
    "sidecar/delivery/courier.py",  # Retry-After with a date (a parameter, this is its default)
    "sidecar/demo/stage.py",
    "sidecar/logs.py",
    "sidecar/observer/pipeline.py",  # now_ms, handed to everything in the observer
    "sidecar/proxy/health.py",
    "sidecar/proxy/log.py",
    "sidecar/proxy/server.py",
    "sidecar/sessions/sweeper.py",  # the statement's hour (a parameter, this is its default)
    "sidecar/wire/ring.py",  # the arrival of bytes: where event time begins
}


def tracked(*patterns):
    listed = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).exists()]


PYTHON = tracked("*.py")
PRODUCT = [path for path in PYTHON if path.is_relative_to(ROOT / "sidecar")]


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_files_and_functions_can_be_seen_whole(path):
    source = path.read_text()
    lines_max = TEST_FILE_LINES_MAX if path.is_relative_to(ROOT / "tests") else FILE_LINES_MAX
    assert len(source.splitlines()) <= lines_max
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, (
                f"{node.name} is {node.end_lineno - node.lineno} lines"
            )


def test_only_the_shells_look_at_the_wall_clock():
    clock = re.compile(r"time\.time\b|time_ns\(|datetime\.(?:now|utcnow|today)\(")
    found = {name(path) for path in PRODUCT if clock.search(path.read_text())}
    assert found == CLOCK_SHELLS


def test_no_generator_lends_its_caller_a_decimal_context():
    """Between two values the caller would compute in it, and may leave it set."""
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.With) and any("localcontext" in ast.dump(item) for item in node.items):
                assert not any(isinstance(one, ast.Yield | ast.YieldFrom) for one in ast.walk(node)), (
                    f"{name(path)}:{node.lineno}: compute first, then yield"
                )


def test_nothing_is_left_for_later_and_no_test_is_skipped():
    marks = re.compile(
        r"# *(?:TO" r"DO|FIX" r"ME|XX" r"X)\b|mark\.(?:sk" r"ip|xf" r"ail)|pytest\.sk" r"ip\(|Not" r"ImplementedError"
    )
    found = [f"{name(path)}: {match[0]}" for path in PYTHON if (match := marks.search(path.read_text()))]
    assert found == []


def test_every_package_says_what_it_owns():
    for init in (ROOT / "sidecar").rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text())), f"{name(init)} has no docstring"


def test_every_link_in_the_docs_leads_somewhere():
    for page in tracked("*.md"):
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{name(page)} links to {target}"
