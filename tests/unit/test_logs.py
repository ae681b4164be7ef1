"""What the log shows of a failure: where it was, never the values that it met."""

import json
import re

import pytest
import structlog

from sidecar import logs


@pytest.fixture(autouse=True)
def _restored():
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
        structlog.get_logger().exception("an exchange could not be observed", sequence=7)
    shown = capsys.readouterr().err
    assert f"{len(prompt)} characters" in shown
    assert "fails" in shown
    assert "4111-4111" not in shown


def test_json_is_one_line_each_and_levels_are_kept(capsys):
    logs.configure("warning", "json")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("heard", part="redis")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "heard"


def test_both_formats_read_like_the_proxys_own_lines(capsys):
    logs.configure("info", "text")
    structlog.get_logger().error("plan refused", plan="fin", problems=["a.yaml:1: this", "a.yaml:2: that"])
    logs.configure("info", "json")
    structlog.get_logger().info("redis answers", backlog=0)
    first, *below, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z \[error  \] plan refused plan=fin", first)
    assert below == ["    a.yaml:1: this", "    a.yaml:2: that"]
    assert list(json.loads(last)) == ["event", "backlog", "level", "timestamp"]
