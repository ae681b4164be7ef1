"""Real servers for every contract test: the embedded Redis, emptied before each test, PostgreSQL, and billing on it."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import redis as redis_client
import redis.asyncio as redis_async
from billing_api import Clock, serving
from calls import Calls
from console_pages import Console, console_on
from ledgers import BACKENDS, postgres_database, postgres_server
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from session_facts import TENANT, Talk
from sqlalchemy.engine import URL

from sidecar.billing.ledger.database import sqlite_url
from sidecar.embedded.redis import server_argv
from sidecar.observer.journal import Journal
from sidecar.sessions.store import Store


class RedisServer:
    """The embedded server on a Unix socket in a directory of its own. `kill()` is kill -9; data stays for `start()`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sidecar-redis-"))
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            server_argv(self.folder, self.socket), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.wait_ready()

    def wait_ready(self, patience_s: float = 30.0) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            assert self.process is not None
            assert self.process.poll() is None, f"the server exited with {self.process.returncode}"
            try:
                with redis_client.Redis(unix_socket_path=str(self.socket)) as client:
                    client.ping()
            except (redis_client.ConnectionError, redis_client.BusyLoadingError):
                assert time.monotonic() < deadline, "the embedded server does not answer"
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def flush(self) -> None:
        with redis_client.Redis(unix_socket_path=str(self.socket)) as client:
            client.config_set("maxmemory", 0)
            client.flushall()

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _redis_process() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def redis_server(_redis_process: RedisServer) -> RedisServer:
    """The session's server, running and empty."""
    if _redis_process.process is None:
        _redis_process.start()
    _redis_process.flush()
    return _redis_process


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[redis_async.Redis]:
    """A client that tries nothing a second time."""
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket), retry=Retry(NoBackoff(), 0))
    yield client
    await client.aclose()


@pytest.fixture
def talk(redis: redis_async.Redis) -> Talk:
    """With an empty store."""
    return Talk(Store(redis, TENANT))


@pytest.fixture
def calls(redis: redis_async.Redis) -> Calls:
    """With an empty store."""
    return Calls(Store(redis, TENANT))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite3", hours=168, bytes_max=1 << 26)
    yield journal
    journal.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The session's PostgreSQL, started when the first test asks for it."""
    with postgres_server() as url:
        yield url


@pytest.fixture(params=BACKENDS)
async def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[URL]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "billing.sqlite3")
        return
    async with postgres_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
def file_url(tmp_path: Path) -> URL:
    """An empty SQLite alone, for what does not depend on the database."""
    return sqlite_url(tmp_path / "billing.sqlite3")


@pytest.fixture
def clock() -> Clock:
    """Billing's, which stands still until a test sets it."""
    return Clock()


@pytest.fixture
async def api(ledger_url: URL, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the billing service on an empty database of each kind, at the time of `clock`."""
    async with serving(ledger_url, clock=clock) as client:
        yield client


@pytest.fixture
async def console(ledger_url: URL) -> AsyncIterator[Console]:
    """The console on an empty database of each kind, with links to a help desk."""
    async with console_on(ledger_url, help_desk="https://help.example/c/{conversation}?a=1") as found:
        yield found
