from __future__ import annotations

import json

import pytest

from sidecar.proxy.health import STALLED_MS, Health
from sidecar.wire.framing import Head, Role, Scanner
from sidecar.wire.message import read_response
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage


def head(line: bytes) -> Head:
    found = Scanner(Role.REQUEST).feed(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")[0]
    assert isinstance(found, Head)
    return found


@pytest.fixture
def status():
    return StatusPage(bytearray(STATUS_BYTES))


def health(status, alive=True, used=0):
    return Health(status, "shadow", 800, lambda: used, lambda: alive)


@pytest.mark.parametrize("path", [b"/livez", b"/readyz", b"/healthz", b"/livez?verbose", b"/readyz?verbose=0"])
def test_plain(status, path):
    answer = read_response(health(status).answer(head(b"GET " + path)), method="GET", eof=False)
    assert (answer.status, answer.body, answer.complete) == (200, b"ok\n", True)


def test_head_has_no_body(status):
    answer = health(status).answer(head(b"HEAD /livez"))
    assert answer.endswith(b"Cache-Control: no-store\r\n\r\n")


@pytest.mark.parametrize("line", [b"GET /", b"GET /metrics", b"POST /livez", b"GET /livez/x", b"GET /v1/sessions"])
def test_everything_else_is_the_observers(status, line):
    assert health(status).answer(head(line)) is None


@pytest.mark.parametrize(
    "path", [b"/readyz?verbose", b"/healthz?a&verbose", b"/readyz?verbose=1", b"/readyz?verbose=true"]
)
def test_verbose(status, path):
    status.set(Slot.REDIS_STATE, 1)
    status.set(Slot.BILLING_STATE, 2)
    status.set(Slot.JOURNAL_BACKLOG, 7)
    status.set(Slot.OUTBOX_LENGTH, 8)
    status.set(Slot.RECORDS_DROPPED, 9)
    answer = read_response(health(status, used=100).answer(head(b"GET " + path)), method="GET", eof=False)
    document = json.loads(answer.body)
    parts = document["parts"]
    assert (document["status"], document["mode"]) == ("ok", "shadow")
    assert parts["redis"] == {"state": "ok"}
    assert parts["billing"] == {"state": "down"}
    assert parts["plan"] == {"state": "unknown"}
    assert parts["journal"] == {"state": "unknown", "backlog": 7}
    assert parts["outbox"] == {"length": 8}
    assert parts["queue"] == {"state": "ok", "used_bytes": 100, "capacity_bytes": 800, "records_dropped": 9}


@pytest.mark.parametrize(
    ("alive", "beat_ms", "state"),
    [
        (True, 1_000_000, "ok"),
        (True, 1_000_000 - STALLED_MS - 1, "stalled"),
        (True, 0, "stalled"),
        (False, 1_000_000, "down"),
        (None, 0, "down"),
        (None, 1_000_000, "ok"),
    ],
)
def test_the_observers_state(status, alive, beat_ms, state):
    status.set(Slot.OBSERVER_BEAT_MS, beat_ms)
    assert health(status, alive).document(1_000_000)["parts"]["observer"]["state"] == state


def test_a_full_queue_is_shown(status):
    assert health(status, used=750).document(0)["parts"]["queue"]["state"] == "full"
