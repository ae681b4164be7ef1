"""What `sidecar doctor` finds, on this machine's real directories, sockets and Redis answers."""

import asyncio
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sidecar.admin import doctor
from sidecar.settings import load_settings


def examine(tmp_path, **environ):
    base = {"DATA_DIR": str(tmp_path / "data"), "QUEUE_DIR": "/dev/shm", "JOURNAL_BYTES": "1MiB"}
    base |= {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0"}
    variables = {f"SIDECAR_{name}": value for name, value in (base | environ).items()}
    settings, _ = load_settings(variables)
    findings = asyncio.run(doctor.examine(settings, variables))
    return {finding.part: finding for finding in findings}


class Refusing(BaseHTTPRequestHandler):
    """Answers an empty body as a billing API does."""

    def do_POST(self):
        self.send_error(400)

    def log_message(self, *_):
        pass


@pytest.fixture
def closed_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_embedded_defaults_are_fine(tmp_path):
    found = examine(tmp_path)
    assert {part: finding.verdict for part, finding in found.items()} == dict.fromkeys(
        ("settings", "redis", "plan", "upstream", "billing", "clock", "ports", "disk", "shared memory"), "ok"
    )


def test_what_cannot_be_reached_fails_and_says_what_to_change(tmp_path, closed_port):
    found = examine(
        tmp_path,
        REDIS_URL=f"redis://user:hunter2@127.0.0.1:{closed_port}",
        BILLING_URL=f"http://127.0.0.1:{closed_port}",
        UPSTREAM=f"http://127.0.0.1:{closed_port}",
        PLAN=str(tmp_path / "none.yaml"),
        QUEUE_DIR=str(tmp_path / "none"),
    )
    failed = {part for part, finding in found.items() if finding.verdict == "failed"}
    assert failed == {"redis", "billing", "upstream", "plan", "shared memory"}
    assert "hunter2" not in str(found)
    for part in ("redis", "billing", "upstream", "shared memory"):
        assert found[part].change


def test_a_port_that_the_embedded_billing_service_cannot_have_fails(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = examine(tmp_path, BILLING_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")["billing"]
    assert found.verdict == "failed"
    assert "SIDECAR_BILLING_LISTEN" in found.change
    assert examine(tmp_path)["billing"].verdict == "ok"


def test_variables_that_the_embedded_billing_service_cannot_use_are_named_once(tmp_path):
    found = examine(tmp_path, BILLING_LISTEN="nonsense")
    assert found["settings"].verdict == found["billing"].verdict == "failed"
    assert "SIDECAR_BILLING_LISTEN=nonsense" in found["settings"].says
    assert "nonsense" not in str(found["billing"])


def test_the_billing_api_is_asked_directly_as_outcomes_are_delivered(tmp_path, monkeypatch, closed_port):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        found = examine(tmp_path, BILLING_URL=f"http://127.0.0.1:{server.server_port}")["billing"]
        server.shutdown()
        serving.join()
    assert (found.verdict, found.says.endswith("takes outcomes")) == ("ok", True)


GOOD = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "aof_enabled": 1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"maxmemory_policy": "volatile-ttl"}, "maxmemory-policy is volatile-ttl"),
        ({"aof_enabled": 0}, "append-only persistence is off"),
        ({"redis_version": "6.2.9"}, "is version 6.2.9"),
    ],
)
def test_a_redis_that_would_lose_sessions_fails(changes, says):
    findings = doctor.judge_redis("redis://x", GOOD | changes)
    assert [finding.verdict for finding in findings] == ["failed"]
    assert says in findings[0].says


def test_a_good_redis_is_fine():
    assert [finding.verdict for finding in doctor.judge_redis("redis://x", GOOD)] == ["ok"]
    valkey = GOOD | {"redis_version": "7.2.4", "valkey_version": "9.1.2"}
    assert "9.1.2" in doctor.judge_redis("redis://x", valkey)[0].says


def test_a_file_where_the_data_directory_should_be_fails(tmp_path):
    (tmp_path / "file").touch()
    assert examine(tmp_path, DATA_DIR=str(tmp_path / "file"))["disk"].verdict == "failed"


def test_memory_for_the_queue_but_not_for_long_streams_is_a_warning(tmp_path, monkeypatch):
    usage = doctor.shutil.disk_usage("/dev/shm")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=48 * 2**20))
    assert examine(tmp_path)["shared memory"].verdict == "warning"
    assert examine(tmp_path, QUEUE_BYTES="16MiB")["shared memory"].verdict == "ok"
