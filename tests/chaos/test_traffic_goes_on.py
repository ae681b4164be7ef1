"""The observer stopped, killed, behind a full queue; Redis and billing standing still or gone: no request fails."""

import contextlib
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from harness import wait_for

BODY = json.dumps({"text": "x" * 20_000}).encode()
CLIENTS = 4
REQUESTS = 60  # of each client while something is broken


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def origin():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def running(sidecar, origin):
    one = sidecar(UPSTREAM=origin, QUEUE_BYTES="1MiB").start()
    one.wait_up()
    wait_for("the billing process", lambda: pid_of(one, "billing"))
    return one


def pid_of(sidecar, child):
    """The newest process of that name, by the proxy's log."""
    started = [
        line["pid"]
        for text in sidecar.log().splitlines()
        if text.startswith("{")
        and (line := json.loads(text)).get("event") == "child_started"
        and line["child"] == child
    ]
    return started[-1] if started else None


class Load:
    """Clients that send requests one after another, on kept and on fresh connections, and count what comes of them."""

    def __init__(self, sidecar):
        self.url = sidecar.url
        self.answered = 0
        self.failed = []
        self._lock = threading.Lock()

    def _client(self, number):
        limits = httpx.Limits(max_keepalive_connections=number % 2)
        with httpx.Client(limits=limits, timeout=60) as client:
            for turn in range(REQUESTS):
                try:
                    answer = client.post(f"{self.url}/v1/things", content=b"q" * 5000)
                    ok = (answer.status_code, answer.content) == (200, BODY)
                    reason = None if ok else answer.status_code
                except httpx.HTTPError as error:
                    ok, reason = False, repr(error)
                with self._lock:
                    self.answered += ok
                    if not ok:
                        self.failed.append((number, turn, reason))

    def run(self):
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert self.failed == []
        assert self.answered == CLIENTS * REQUESTS


@contextlib.contextmanager
def stopped(*pids):
    """SIGSTOP, and SIGCONT at the end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def healthy(sidecar):
    return [httpx.get(sidecar.admin + path, timeout=20).status_code for path in ("/livez", "/readyz", "/healthz")]


def test_with_the_observer_stopped_and_the_queue_full(running):
    with stopped(pid_of(running, "observer")):
        Load(running).run()
        assert healthy(running) == [200, 200, 200]
        assert httpx.get(running.admin + "/metrics", timeout=30).status_code == 503  # this is the observer's to answer
        queue = running.parts()["queue"]
        assert (queue["state"], queue["records_dropped"] > 0) == ("full", True)
        Load(running).run()
    running.wait_up()
    wait_for("the queue to be read", lambda: running.parts()["queue"]["state"] == "ok")
    Load(running).run()
    metrics = httpx.get(running.admin + "/metrics", timeout=30).text
    assert f"sidecar_requests_total {3 * CLIENTS * REQUESTS}.0" in metrics


def test_with_the_observer_killed_again_and_again(running):
    done = threading.Event()
    killed = []

    def kill():
        while not done.wait(0.3):
            pid = pid_of(running, "observer")
            if pid and (not killed or killed[-1] != pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while len(killed) < 3:
            Load(running).run()
            assert healthy(running) == [200, 200, 200]
    finally:
        done.set()
        killer.join(20)
    running.wait_up()


def test_with_redis_and_billing_standing_still_then_gone(running):
    redis, billing = running.redis_pid(), pid_of(running, "billing")
    with stopped(redis, billing):
        Load(running).run()
        assert healthy(running) == [200, 200, 200]
    for pid in (redis, billing):
        os.kill(pid, signal.SIGKILL)
    Load(running).run()
    assert healthy(running) == [200, 200, 200]
    running.wait_up()  # the proxy starts them again
    Load(running).run()
