"""The embedded server: one at a time on one data directory, and nothing acknowledged is lost by kill -9."""

import subprocess
import sys
import time

import redis


def start(data_dir, socket):
    return subprocess.Popen([sys.executable, "-m", "sidecar.embedded.redis", str(data_dir), str(socket)])


def client(socket):
    return redis.Redis(unix_socket_path=str(socket))


def answers(socket, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with client(socket) as one:
            try:
                return one.ping()
            except redis.RedisError:
                time.sleep(0.05)
    return False


def test_a_second_server_waits_until_the_first_has_gone_and_finds_its_data(tmp_path):
    first = start(tmp_path, tmp_path / "first.sock")
    second = None
    try:
        assert answers(tmp_path / "first.sock")
        with client(tmp_path / "first.sock") as one:
            one.set("kept", "yes")
        second = start(tmp_path, tmp_path / "second.sock")
        assert not answers(tmp_path / "second.sock", 1)
        assert second.poll() is None
        first.kill()
        assert answers(tmp_path / "second.sock")
        with client(tmp_path / "second.sock") as one:
            assert one.get("kept") == b"yes"
            assert one.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait(10)
