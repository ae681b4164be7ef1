"""Clients that take too much or give too little: each bound has one answer, and the others notice nothing.

`SLOWLORIS_CLIENTS=5000` lets that many silent clients stand against the healthy one instead of a few hundred.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from sidecar.wire.status import Slot

from .conftest import deliver, receive, receive_all, receive_head, scene, wait_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SILENT_CLIENTS = int(os.environ.get("SLOWLORIS_CLIENTS", "400"))


def serve(listener: socket.socket) -> None:
    """Answer GETs on every connection, in threads that end with the sockets."""

    def answer(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while receive_head(sock):
                sock.sendall(OK)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    listener.settimeout(None)
    threading.Thread(target=accept, daemon=True).start()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closes what a test opened, however it ends."""
    with contextlib.ExitStack() as stack:
        yield stack


def code_of(answer: bytes) -> tuple[bytes, bytes]:
    """Status and X-Sidecar-Error."""
    head = answer.partition(b"\r\n\r\n")[0]
    return head.split(b" ")[1], head.partition(b"X-Sidecar-Error: ")[2].partition(b"\r\n")[0]


def test_slow_heads_are_answered_silence_is_not_and_what_is_under_way_has_no_timeout(stack):
    with scene(header_seconds=0.3, idle_seconds=0.3) as (proxy, origin, status):
        patient = stack.enter_context(proxy.client())
        patient.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        silent, slow, idle, trickling = (stack.enter_context(proxy.client()) for _ in range(4))
        slow.sendall(b"GET / HTTP/1.1\r\nHo")
        idle.sendall(GET)
        other = origin.accept()
        receive_head(other)
        other.sendall(OK)
        assert receive(idle, len(OK)) == OK
        with contextlib.suppress(ConnectionError):
            while True:  # each byte comes soon after the last one; the head never ends
                trickling.sendall(b"G")
                trickling.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    first = trickling.recv(1)
                    break
        trickling.settimeout(20)
        assert code_of(first + receive_all(trickling)) == (b"408", b"header-timeout")
        assert code_of(receive_all(slow)) == (b"408", b"header-timeout")
        assert receive_all(silent) == b""
        assert receive_all(idle) == b""
        assert (status.get(Slot.HEADER_TIMEOUTS), status.get(Slot.IDLE_TIMEOUTS)) == (3, 1)
        upstream.sendall(OK)  # three timeouts later
        assert receive(patient, len(OK)) == OK


def test_an_empty_line_behind_a_request_begins_no_head(stack):
    """Old clients send one behind a POST: their idle connection must not get an answer that nobody asked for."""
    with scene(header_seconds=0.2, idle_seconds=0.4) as (proxy, origin, status):
        serve(origin.listener)
        client = stack.enter_context(proxy.client())
        client.sendall(GET + b"\r\n")
        assert receive_all(client) == OK
        assert (status.get(Slot.HEADER_TIMEOUTS), status.get(Slot.IDLE_TIMEOUTS)) == (0, 1)


def test_a_tunnel_has_no_timeout():
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with scene(header_seconds=0.2, idle_seconds=0.2) as (proxy, origin, status), proxy.client() as client:
        client.sendall(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        upstream = origin.next()
        receive_head(upstream)
        upstream.sendall(switching)
        assert receive(client, len(switching)) == switching
        with proxy.client() as silent:
            assert receive_all(silent) == b""
        assert status.get(Slot.HEADER_TIMEOUTS) == 1
        upstream.sendall(b"still here")
        assert receive(client, 10) == b"still here"


def test_a_connection_too_many_is_told_so_and_a_crowd_is_cut(stack):
    with scene(connections_max=4) as (proxy, origin, status):
        serve(origin.listener)
        kept = [stack.enter_context(proxy.client()) for _ in range(4)]
        for client in kept:
            client.sendall(GET)
            assert receive(client, len(OK)) == OK
        with proxy.client() as refused:
            assert code_of(receive_all(refused)) == (b"503", b"too-many-connections")
        crowd = [stack.enter_context(proxy.client()) for _ in range(40)]
        answers = []
        for client in crowd:
            try:
                answers.append(receive_all(client))
            except ConnectionResetError:
                answers.append(b"")
        assert answers.count(b"") >= 20
        assert {code_of(answer)[0] for answer in answers if answer} <= {b"503"}
        assert status.get(Slot.CONNECTIONS_REFUSED) == 41
        kept[0].sendall(GET)
        assert receive(kept[0], len(OK)) == OK  # those that are in go on
        kept.pop().close()
        wait_for(lambda: status.get(Slot.CONNECTIONS_OPEN) < 4)
        with proxy.client() as client:
            client.sendall(GET)
            assert receive(client, len(OK)) == OK
        with socket.create_connection(proxy.admin, timeout=20) as admin:  # counted apart: health is always answered
            admin.sendall(b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert receive_all(admin).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "request_",
    [b"GET / HTTP/1.1\r\nX: " + b"a" * 5000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 30 + b"\r\n"],
    ids=["bytes", "fields"],
)
def test_limits_of_heads(request_, delivery):
    with scene(head_bytes_max=4096, fields_max=20) as (proxy, _, status), proxy.client() as client:
        with contextlib.suppress(ConnectionError):
            deliver(client, request_, delivery)
        assert code_of(receive_all(client)) == (b"431", b"head-too-large")
        assert status.get(Slot.HEADS_TOO_LARGE) == status.get(Slot.BAD_REQUESTS) == 1
        assert status.get(Slot.UPSTREAM_CONNECTS) == 0


def test_a_large_head_passes_when_it_may_and_an_answers_too():
    fields = b"X-Large: " + b"a" * 200_000 + b"\r\n" + b"X: 1\r\n" * 500
    with scene(head_bytes_max=400_000, fields_max=1000) as (proxy, origin, _), proxy.client() as client:
        client.sendall(GET[:-2] + fields + b"\r\n")
        upstream = origin.next()
        assert len(receive_head(upstream)) > 200_000
        answer = OK.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n")
        upstream.sendall(answer)
        assert receive(client, len(answer)) == answer


def test_an_answer_with_too_large_a_head():
    with scene(head_bytes_max=4096) as (proxy, origin, _), proxy.client() as client:
        client.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        with contextlib.suppress(ConnectionError):
            upstream.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 5000 + b"\r\n\r\n")
        assert code_of(receive_all(client)) == (b"502", b"bad-response")


def test_silent_clients_do_not_hurt_a_healthy_one(stack):
    """None of its requests fails; the silent ones are shown out, and their memory and files come back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with scene(header_seconds=2.0, connections_max=SILENT_CLIENTS + 10) as (proxy, origin, status):
        serve(origin.listener)
        silent = [stack.enter_context(proxy.client()) for _ in range(SILENT_CLIENTS)]
        for number, sock in enumerate(silent):
            sock.sendall((b"", b"G", GET[:-2])[number % 3])
        with proxy.client() as healthy:
            answered = 0
            while answered < 100 or status.get(Slot.HEADER_TIMEOUTS) < SILENT_CLIENTS:
                healthy.sendall(GET)
                assert receive(healthy, len(OK)) == OK
                answered += 1
        for number, sock in enumerate(silent):
            answer = receive_all(sock)
            assert (answer == b"") == (number % 3 == 0)
        wait_for(lambda: status.get(Slot.CONNECTIONS_OPEN) == 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files_are_said_and_lived_with(tmp_path):
    """With a hard limit of 600 files and a wish for 1,000 connections, fewer are taken, and the log says so."""
    narrow = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 600)); "
    become = "os.execv(sys.executable, [sys.executable, '-m', 'sidecar.proxy', sys.argv[1]])"
    config = (
        f'{{"runtime_dir": "{tmp_path}", "admin_listen": "127.0.0.1:0", "observer_socket": "/nowhere", '
        '"routes": [{"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"}], "connections_max": 1000}'
    )
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-c", narrow + become, config], stderr=errors)
    try:
        wait_for((tmp_path / "listening.json").exists)
        assert b'"event": "file_limit_low", "limit": 600' in log.read_bytes()
        assert b"SIDECAR_MAX_CONNECTIONS" in log.read_bytes()
    finally:
        process.terminate()
        process.wait(20)
