"""The proxy as a process: its imports, start, children, signals and end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE_S = 20.0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sidecar-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def running(directory: Path, **options: object) -> Iterator[tuple[subprocess.Popen[bytes], dict]]:
    process = start(directory, **options)
    try:
        wait_for((directory / "listening.json").exists)
        yield process, json.loads((directory / "listening.json").read_text())
    finally:
        process.kill()
        process.wait()


def start(directory: Path, **options: object) -> subprocess.Popen[bytes]:
    config = {
        "admin_listen": "127.0.0.1:0",
        "runtime_dir": str(directory),
        "observer_socket": str(directory / "observer.sock"),
        "queue_path": str(directory / "queue"),
        "queue_bytes": 1 << 20,
        "drain_seconds": 5.0,
        **options,
    }
    argv = [sys.executable, "-m", "sidecar.proxy", json.dumps(config)]
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(argv, stderr=log)


def log_of(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "log").read_text().splitlines()]


def get(address: str, path: str) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: sock.recv(65_536), b""))


def child(directory: Path, name: str, script: str) -> dict[str, object]:
    """A child that appends its pid to a file of its name, then runs `script`."""
    prelude = f"import os, signal, sys, time; p = {str(directory / name)!r}; f = open(p, 'a', buffering=1)\n"
    return {"name": name, "argv": [sys.executable, "-c", prelude + "print(os.getpid(), file=f)\n" + script]}


def pids(directory: Path, name: str) -> list[int]:
    path = directory / name
    return [int(line) for line in path.read_text().split() if line.isdecimal()] if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_the_process_imports():
    script = (
        "import sys, sidecar.proxy.__main__\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('sidecar.')))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    packages, ours = (set(line.split()) for line in shown.splitlines())
    ready = subprocess.run(
        [sys.executable, "-c", "import sys; print(*{n.partition('.')[0] for n in sys.modules})"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    foreign = {name for name in packages - set(sys.stdlib_module_names) - set(ready) if not name.startswith("_")}
    assert foreign - {"cython_runtime"} == {"sidecar", "uvloop", "httptools"}  # the former is a part of uvloop
    assert {name.split(".")[1] for name in ours} == {"proxy", "wire"}


def test_listening_on_every_kind_of_address(directory):
    routes = [
        {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"},
        {"listen": "[::1]:0", "upstream": "http://127.0.0.1:9"},
        {"listen": f"unix:{directory / 'listen.sock'}", "upstream": "http://127.0.0.1:9"},
    ]
    with running(directory, routes=routes) as (process, listening):
        assert listening["pid"] == process.pid
        assert [route["upstream"] for route in listening["routes"]] == ["http://127.0.0.1:9"] * 3
        for route in listening["routes"][:2]:
            assert b"X-Sidecar-Error: refused" in get(route["listen"], "/")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(directory / "listen.sock"))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"X-Sidecar-Error: refused" in sock.recv(65_536)
        assert get(listening["admin"], "/livez").endswith(b"\r\n\r\nok\n")
        assert b"503" in get(listening["admin"], "/metrics").splitlines()[0]


def test_an_address_in_use(directory):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert start(directory, routes=[{"listen": address, "upstream": "http://h:1"}]).wait(PATIENCE_S) == 1
    assert log_of(directory)[-1]["reason"] == f"cannot listen on {address}: Address already in use"


def test_a_socket_file_left_behind_is_replaced_and_one_in_use_is_not(directory):
    path = directory / "listen.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    routes = [{"listen": f"unix:{path}", "upstream": "http://h:1"}]
    with running(directory, routes=routes):
        again = start(directory, routes=routes, queue_path="")
        assert again.wait(PATIENCE_S) == 1
    assert "Address already in use" in log_of(directory)[-1]["reason"]


@pytest.mark.parametrize("arguments", [[], ["{"], ["{}"], ["{}", "{}"]])
def test_wrong_usage(arguments):
    done = subprocess.run([sys.executable, "-m", "sidecar.proxy", *arguments], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr
    assert b"Traceback" not in done.stderr


def test_sigterm_finishes_open_exchanges_then_stops_children_in_reverse(directory):
    note = f"signal.signal(15, lambda *a: (open({str(directory / 'order')!r}, 'a').write(sys.argv[1]), sys.exit()))\n"
    script = note + "time.sleep(100)"
    first, second = child(directory, "redis", script), child(directory, "observer", script)
    first["argv"].append("redis ")
    second["argv"].append("observer ")
    with socket.create_server(("127.0.0.1", 0)) as origin:
        origin.settimeout(PATIENCE_S)
        routes = [{"listen": "127.0.0.1:0", "upstream": f"http://127.0.0.1:{origin.getsockname()[1]}"}]
        with running(directory, routes=routes, children=[first, second]) as (process, listening):
            wait_for(lambda: pids(directory, "redis") and pids(directory, "observer"))
            host, _, port = listening["routes"][0]["listen"].rpartition(":")
            client = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            upstream, _ = origin.accept()
            upstream.recv(65_536)
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: any(line["event"] == "draining" for line in log_of(directory)))
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)), timeout=PATIENCE_S)
            upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert client.recv(65_536).endswith(b"ok")
            assert client.recv(1) == b""
            client.close()
            upstream.close()
            assert process.wait(PATIENCE_S) == 0
    assert (directory / "order").read_text() == "observer redis "


def test_a_dead_child_is_started_again_and_counted(directory):
    observer = child(directory, "observer", "time.sleep(100)")
    with running(directory, children=[observer]) as (_, listening):
        wait_for(lambda: len(pids(directory, "observer")) == 1)
        os.kill(pids(directory, "observer")[0], signal.SIGKILL)
        wait_for(lambda: len(pids(directory, "observer")) == 2)
        answer = get(listening["admin"], "/readyz?verbose")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["parts"]["observer"]["starts"] == 2


def test_sighup_is_the_observers(directory):
    observer = child(directory, "observer", "signal.signal(1, lambda *a: print('hup', file=f))\ntime.sleep(100)")
    other = child(directory, "redis", "time.sleep(100)")
    with running(directory, children=[other, observer]) as (process, _):
        wait_for(lambda: pids(directory, "observer"))
        time.sleep(0.2)  # its handler is set just after its pid is written

        def told() -> bool:
            process.send_signal(signal.SIGHUP)
            return "hup" in (directory / "observer").read_text()

        wait_for(told)
        assert process.poll() is None


def test_children_die_with_a_killed_proxy(directory):
    with running(directory, children=[child(directory, "observer", "time.sleep(100)")]) as (process, _):
        wait_for(lambda: pids(directory, "observer"))
        (pid,) = pids(directory, "observer")
        assert is_alive(pid)
        process.kill()
        process.wait()
        wait_for(lambda: not is_alive(pid))


def test_a_child_gets_its_own_environment(directory):
    script = "print(os.environ['EXTRA'], file=f)\ntime.sleep(100)"
    observer = {**child(directory, "observer", script), "env": {"EXTRA": "value"}}
    with running(directory, children=[observer]):
        wait_for(lambda: "value" in ((directory / "observer").read_text() if pids(directory, "observer") else ""))
