"""The embedded server: real, private, and its data outlives kill -9."""

import stat

import pytest
import redis as redis_client

from sidecar.embedded import redis as embedded


def test_what_the_log_holds_outlives_kill(redis_server):
    """With appendfsync everysec a busy disk can cost the last second; WAITAOF says when that is past."""
    written = 0
    for _ in range(3):
        with redis_client.Redis(unix_socket_path=str(redis_server.socket)) as client:
            for _ in range(200):
                written = client.incr("n")
            assert client.execute_command("WAITAOF", 1, 0, 30_000)[0] == 1
        redis_server.restart()
        with redis_client.Redis(unix_socket_path=str(redis_server.socket)) as client:
            assert int(client.get("n")) == written


def test_listens_on_a_private_unix_socket_alone_and_never_evicts(redis_server):
    assert stat.S_IMODE(redis_server.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE((redis_server.folder / "redis").stat().st_mode) == 0o700
    with redis_client.Redis(unix_socket_path=str(redis_server.socket)) as client:
        settings = client.config_get("*")
    assert settings["port"] == "0"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"


def test_a_platform_without_a_binary_is_told_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded.platform, "machine", lambda: "riscv64")
    with pytest.raises(embedded.RedisBinaryMissingError, match="SIDECAR_REDIS_URL"):
        embedded.server_argv(tmp_path, tmp_path / "s")
