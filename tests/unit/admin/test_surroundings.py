"""Clocks and ports, as `sidecar doctor` finds them."""

import asyncio
import errno
import fcntl
import socket
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from sidecar.addresses import parse_address
from sidecar.admin import surroundings
from sidecar.settings import load_settings

BASE = {"SIDECAR_QUEUE_DIR": "/dev/shm", "SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_ADMIN_LISTEN": "127.0.0.1:0"}


def settings(tmp_path, **environ):
    made = BASE | {"SIDECAR_DATA_DIR": str(tmp_path)}
    return load_settings(made | {f"SIDECAR_{name}": value for name, value in environ.items()})[0]


@pytest.mark.parametrize(
    ("apart", "verdict", "says"),
    [
        ({}, "ok", "nothing elsewhere"),
        ({"Redis": 0.3, "the billing API": -1.0}, "ok", "agrees with Redis and the billing API"),
        ({"Redis": 30.0}, "warning", "30 s behind that of Redis"),
        ({"the billing API": -7200.0}, "failed", "7200 s ahead of that of the billing API"),
    ],
)
def test_clocks_that_differ(apart, verdict, says):
    [found] = surroundings.judge_clock(apart)
    assert found.verdict == verdict
    assert says in found.says
    assert bool(found.change) is (verdict != "ok")


class WrongClock(BaseHTTPRequestHandler):
    """Answers as a billing API of ten years ago."""

    def do_GET(self):
        self.send_response_only(200)
        self.send_header("Date", formatdate(1_400_000_000, usegmt=True))
        self.end_headers()

    def log_message(self, *_):
        """Says nothing."""


def test_the_billing_apis_clock_is_looked_at(tmp_path):
    with HTTPServer(("127.0.0.1", 0), WrongClock) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        [found] = asyncio.run(surroundings.clock(settings(tmp_path, BILLING_URL=url)))
        thread.join()
    assert found.verdict == "failed"
    assert "ahead of that of the billing API" in found.says


def ports(tmp_path, **environ):
    return asyncio.run(surroundings.ports(settings(tmp_path, UPSTREAM="http://127.0.0.1:1", **environ)))


def test_ports_that_cannot_be_had_are_named_with_their_variable(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        taken, wrong = ports(tmp_path, ADMIN_LISTEN=address, LISTEN="192.0.2.1:8080")[::-1]
    assert (taken.says, taken.change) == (
        f"{address} is taken",
        "stop what listens there, or give another SIDECAR_ADMIN_LISTEN",
    )
    assert (wrong.says, wrong.change) == ("192.0.2.1 is no address of this machine", "correct SIDECAR_LISTEN")
    [folder] = ports(tmp_path, LISTEN=f"unix:{tmp_path}/none/agent.sock")
    assert folder.verdict == "failed"


def test_a_running_sidecar_may_have_its_own_ports(tmp_path):
    assert not surroundings.held(tmp_path)
    with (tmp_path / "lock").open("w") as lock, socket.create_server(("127.0.0.1", 0)) as own:
        fcntl.flock(lock, fcntl.LOCK_EX)
        [found] = ports(tmp_path, LISTEN=f"127.0.0.1:{own.getsockname()[1]}")
        assert found.verdict == "ok"
    assert not surroundings.held(tmp_path)


def test_a_port_that_can_be_had_is_left_as_it_was():
    assert surroundings.taken(parse_address("127.0.0.1:0")) is None
    assert surroundings.taken(parse_address("no-such-host.invalid:80")) == errno.EADDRNOTAVAIL
