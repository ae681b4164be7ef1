"""`sidecar billing` as a process: start, stop, kill -9, and configurations that cannot work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from export_fake import SECRET
from export_targets import FAKES

ARGV = [sys.executable, "-c", "import sys; from sidecar.billing.main import run; sys.exit(run())"]
FIN = Path(__file__).parents[2] / "examples" / "plans" / "fin.yaml"


def environment(directory: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return {**clean, "SIDECAR_DATA_DIR": str(directory), "SIDECAR_BILLING_LISTEN": "127.0.0.1:0", **more}


@asynccontextmanager
async def running(directory: Path, **more: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, dict]]:
    """The process, its base URL, and the log line that told it."""
    process = await asyncio.create_subprocess_exec(
        *ARGV, env=environment(directory, **more), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        while line := await asyncio.wait_for(process.stderr.readline(), 60):
            told = json.loads(line)
            if told["event"] == "listening":
                break
        else:
            raise AssertionError(f"ended with {await process.wait()} before it listened")
        yield process, f"http://{told['address']}", told
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def event(number: int) -> dict:
    data = {"session_id": f"ses_{number}", "outcome": "RESOLVED", "state": "RESOLVED", "escalated_to_human": False}
    return {
        "specversion": "1.0", "id": f"out_{number}", "source": "sidecar/acme", "type": "sidecar.outcome.v1",
        "subject": "customer-17", "time": "2026-11-22T10:00:00Z", "data": data,
    }  # fmt: skip


async def post(client: httpx.AsyncClient, number: int) -> httpx.Response:
    headers = {"Content-Type": "application/cloudevents+json"}
    return await client.post("/v1/outcomes", content=json.dumps(event(number)), headers=headers)


async def test_what_was_answered_with_200_survives_kill_9(tmp_path: Path) -> None:
    answered: list[int] = []
    async with running(tmp_path) as (process, base, _):

        async def client(start: int) -> None:
            async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as http:
                for number in range(start, start + 1000):
                    answer = await post(http, number)
                    assert answer.json()["accepted"] == 1
                    answered.append(number)
                    if len(answered) == 60:
                        process.send_signal(signal.SIGKILL)

        results = await asyncio.gather(*(client(n * 1000) for n in range(4)), return_exceptions=True)
        assert all(isinstance(result, httpx.TransportError) for result in results), results
        await process.wait()
    connection = sqlite3.connect(tmp_path / "billing.sqlite3")
    stored = {identifier for (identifier,) in connection.execute("SELECT id FROM outcomes")}
    connection.close()
    assert len(answered) >= 60
    assert {f"out_{number}" for number in answered} <= stored
    async with running(tmp_path) as (_, base, _), httpx.AsyncClient(base_url=base, trust_env=False) as http:
        assert (await post(http, answered[-1])).json()["duplicates"] == 1
        summary = (await http.get("/v1/summary?period=2026-11")).json()
        assert summary["sessions"] == len(stored)


async def test_it_says_where_it_listens_and_stops_cleanly(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    async with running(directory, SIDECAR_BILLING_PLAN=str(FIN)) as (process, base, told):
        note = json.loads((directory / "billing.json").read_text())
        assert note == {"address": told["address"], "pid": process.pid}
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "billing.sqlite3").stat().st_mode & 0o077 == 0
        async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
            assert (await http.get("/readyz")).status_code == 200
            assert (await http.get("/v1/plans/default")).json()["source"] == FIN.read_text()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert not (directory / "billing.json").exists()


async def test_a_token_from_a_file_lets_it_listen_everywhere(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    more = {"SIDECAR_BILLING_TOKEN_FILE": str(tmp_path / "token"), "SIDECAR_BILLING_LISTEN": "0.0.0.0:0"}
    async with running(tmp_path, **more) as (_, base, _):
        port = base.rpartition(":")[2]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            assert (await post(http, 1)).status_code == 401
            http.headers["Authorization"] = "Bearer s3cret"
            assert (await post(http, 1)).status_code == 200


def failing(directory: Path, **more: str) -> str:
    done = subprocess.run(
        ARGV, env=environment(directory, **more), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_every_wrong_variable_is_named_at_once(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("rate_plan:\n  name: x\n  billing_mode: PREPAID\n  nam: y\n")
    told = failing(
        tmp_path,
        SIDECAR_BILLING_LISTEN="nowhere",
        SIDECAR_BILLING_DATABASE_URL="mysql://x/y",
        SIDECAR_BILLING_PLAN=str(plan),
        SIDECAR_BILLING_TOKEN_FILE=str(tmp_path / "absent"),
        SIDECAR_LOG_LEVEL="loud",
    )
    for words in (
        "SIDECAR_BILLING_LISTEN=nowhere",
        "mysql is not supported",
        f"{plan}:3",
        f"{plan}:4",
        "absent",
        "loud",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"SIDECAR_BILLING_LISTEN": "0.0.0.0:0"}, "SIDECAR_BILLING_TOKEN is needed"),
        ({"SIDECAR_BILLING_DATABASE_URL": "sqlite://"}, "in-memory"),
        ({"SIDECAR_BILLING_DATABASE_URL": "no url"}, "is no database URL"),
        ({"SIDECAR_BILLING_DATABASE_URL": "sqlite:////proc/nowhere/b.sqlite3"}, "database cannot be used"),
        ({"SIDECAR_BILLING_PLAN": "/absent.yaml"}, "cannot be read"),
        ({"SIDECAR_DATA_DIR": "/proc/nowhere"}, "cannot be made"),
    ],
)
def test_refused(tmp_path: Path, more: dict[str, str], words: str) -> None:
    assert words in failing(tmp_path, **more)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        told = failing(tmp_path, SIDECAR_BILLING_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
    assert "cannot listen" in told


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "billing.sqlite3").write_bytes(b"this is something else entirely" * 100)
    assert "database cannot be used" in failing(tmp_path)


async def test_what_it_takes_is_exported(tmp_path: Path) -> None:
    fake = FAKES["lago"](lambda: time.time_ns() // 1000)
    async with fake.listening() as url:
        (tmp_path / "exports.yaml").write_text(
            f"exports:\n- name: lago\n  kind: lago\n  url: {url}\n  secret: {{env: LAGO_KEY}}\n"
            "  meters: [{code: resolved, metrics: [ai_resolution]}]\n"
        )
        more = {"SIDECAR_BILLING_EXPORTS": str(tmp_path / "exports.yaml"), "LAGO_KEY": SECRET}
        async with (
            running(tmp_path, SIDECAR_BILLING_PLAN=str(FIN), **more) as (_, base, _),
            httpx.AsyncClient(base_url=base, trust_env=False) as http,
        ):
            for number in range(3):
                assert (await post(http, number)).status_code == 200
            async with asyncio.timeout(60):
                while (shown := (await http.get("/v1/exports")).json()["exports"][0])["acknowledged"] < 3:
                    await asyncio.sleep(0.05)
            assert (shown["written"], shown["parked"], fake.total("resolved")) == (3, 0, 3)


def test_a_file_of_exports_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "exports.yaml"
    path.write_text("exports:\n- name: x\n  kind: lagoo\n  secret: {env: LAGO_KEY}\n")
    told = failing(tmp_path, SIDECAR_BILLING_EXPORTS=str(path), LAGO_KEY=SECRET)
    assert f"{path}:3: exports[0].kind: write one of" in told
    assert "meters is missing" in told
    assert SECRET not in told
    assert "cannot be read" in failing(tmp_path, SIDECAR_BILLING_EXPORTS="/absent.yaml")
