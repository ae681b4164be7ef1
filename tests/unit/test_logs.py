"""What the log shows of a failure: where it was, never the values that it met."""

import json
import logging
import re
import sys

import pytest
import structlog

from sidecar import logs


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_shows_no_local_variables(log_format, capsys):
    logs.configure("info", log_format)

    def fails(prompt):
        raise ValueError(f"{len(prompt)} characters")

    prompt = "my card is " + "-".join(["4111"] * 4)
    try:
        fails(prompt)
    except ValueError:
        structlog.get_logger().exception("exchange_not_observed", sequence=7)
    shown = capsys.readouterr().err
    assert "ValueError" in shown
    assert "fails" in shown
    assert "4111-4111" not in shown
    assert f"{len(prompt)} characters" not in shown  # an exception's own words often quote what it met


def test_json_is_one_line_each_and_levels_are_kept(capsys):
    logs.configure("warning", "json")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("heard", part="redis")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "heard"


def test_both_formats_read_like_the_proxys_own_lines(capsys):
    logs.configure("info", "text")
    problems = ["a.yaml:1: this", "a.yaml:2: that"]
    structlog.get_logger().error("plan_refused_at_start", plan="fin", problems=problems)
    logs.configure("info", "json")
    structlog.get_logger().info("redis_up", backlog=0)
    first, *below, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z \[error  \] plan refused; .* plan=fin", first)
    assert below == ["    a.yaml:1: this", "    a.yaml:2: that"]
    assert list(json.loads(last)) == ["event", "message", "backlog", "level", "timestamp"]


def test_other_libraries_are_lines_too_without_what_they_put_into_their_words(capsys, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    logs.configure("info", "json")
    logging.getLogger("aiohttp.server").error("cannot read %s", "what somebody wrote")
    logging.getLogger("asyncio").warning("Task exception was never retrieved\nfuture: ValueError('somebody wrote')")
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["logger"], line["said"]) for line in found] == [
        ("library", "aiohttp.server", "cannot read %s"),
        ("library", "asyncio", "Task exception was never retrieved"),
    ]


def test_what_ends_the_process_is_one_line(capsys):
    logs.configure("info", "json")
    try:
        int("somebody wrote")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "crashed"
    assert json.loads(line)["exception"][0]["kind"] == "ValueError"
    assert "somebody" not in line
