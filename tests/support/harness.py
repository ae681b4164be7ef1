"""Real processes for tests: the sidecar with its children, the billing API, the fake LLM. Bounded, ended by pid.

Nothing here waits for a time: it waits for conditions, with a bound that says what was being waited for.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 40.0


def wait_for(what, condition, seconds=WAIT_SECONDS):
    """The first true value of `condition()`; errors of connections count as not yet."""
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        try:
            last = condition()
        except (httpx.HTTPError, OSError, LookupError, TypeError, ValueError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain for {what}; last: {last!r}")


class Process:
    """One process of ours, its output in a file."""

    def __init__(self, argv, *, env=None, log, cwd=ROOT):
        self.log = Path(log)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                argv, env=clean | (env or {}), cwd=cwd, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )

    @property
    def pid(self):
        return self.popen.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def kill(self, number=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(number)

    def end(self, seconds=30):
        """SIGTERM, and its exit code."""
        self.kill(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self.popen.wait(5)
            raise AssertionError(f"{self.popen.args} did not end on SIGTERM:\n{self.output()[-3000:]}") from None


class FakeLLM:
    """The example's fake LLM, as a process."""

    def __init__(self, directory, *arguments):
        self.process = Process(
            [sys.executable, str(ROOT / "examples" / "fake_llm.py"), "--port", "0", *arguments],
            log=Path(directory) / "llm.log",
        )
        self.url = wait_for("the fake LLM", self._address)

    def _address(self):
        return json.loads(self.process.output().splitlines()[0])["address"]

    def close(self):
        self.process.end()


class Billing:
    """`sidecar billing` on its own, as the central service of a fleet."""

    def __init__(self, directory, **environ):
        self.directory = Path(directory)
        self.directory.mkdir(exist_ok=True, parents=True)
        self.env = {
            "SIDECAR_DATA_DIR": str(self.directory),
            "SIDECAR_BILLING_LISTEN": "127.0.0.1:0",
        } | {f"SIDECAR_{name}": value for name, value in environ.items()}
        self.start()

    def start(self):
        (self.directory / "billing.json").unlink(missing_ok=True)
        argv = [sys.executable, "-m", "sidecar", "billing"]
        self.process = Process(argv, env=self.env, log=self.directory / "billing.log")
        self.url = wait_for("the billing API", self._address)

    def _address(self):
        return "http://" + json.loads((self.directory / "billing.json").read_text())["address"]

    def outcomes(self):
        """Every ledger row, newest first."""
        return ledger(self.url)

    def close(self):
        self.process.end()


class Sidecar:
    """`sidecar run` with its own data directory and queue directory."""

    def __init__(self, directory, **environ):
        self.directory = Path(directory)
        self.data_dir = self.directory / "data"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.queue_dir = Path(tempfile.mkdtemp(prefix="sc-", dir="/dev/shm"))
        self.env = {
            "SIDECAR_DATA_DIR": str(self.data_dir),
            "SIDECAR_QUEUE_DIR": str(self.queue_dir),
            "SIDECAR_QUEUE_BYTES": "8MiB",
            "SIDECAR_LISTEN": "127.0.0.1:0",
            "SIDECAR_ADMIN_LISTEN": "127.0.0.1:0",
            "SIDECAR_BILLING_LISTEN": "127.0.0.1:0",
            "SIDECAR_LOG_FORMAT": "json",
        } | {f"SIDECAR_{name}": str(value) for name, value in environ.items()}
        self.process = None

    def start(self, *, wait=True):
        for old in self.queue_dir.glob("sidecar-*/listening.json"):
            old.unlink()
        argv = [sys.executable, "-m", "sidecar", "run"]
        self.process = Process(argv, env=self.env, log=self.directory / "sidecar.log")
        if wait:
            wait_for("the sidecar's listeners", self._listening)
        return self

    def _listening(self):
        if self.process.popen.poll() is not None:
            raise AssertionError(f"sidecar run ended with {self.process.popen.returncode}:\n{self.log()[-4000:]}")
        found = list(self.queue_dir.glob("sidecar-*/listening.json"))
        return found and json.loads(found[0].read_text())

    @property
    def url(self):
        """Base URL of the first route; follows a restart, which keeps no port when it was 0."""
        return "http://" + self._listening()["routes"][0]["listen"]

    @property
    def urls(self):
        return ["http://" + route["listen"] for route in self._listening()["routes"]]

    @property
    def admin(self):
        return "http://" + self._listening()["admin"]

    def keep_ports(self):
        """The ports of now for every later start, so that clients find a restarted sidecar."""
        listening = self._listening()
        self.env["SIDECAR_ADMIN_LISTEN"] = listening["admin"]
        if "SIDECAR_ROUTES" not in self.env:
            self.env["SIDECAR_LISTEN"] = listening["routes"][0]["listen"]

    def parts(self):
        return httpx.get(self.admin + "/readyz?verbose").json()["parts"]

    def wait_up(self, *names):
        """Until these parts say that they are ok (billing does when it has taken something)."""
        wanted = names or ("observer", "redis")
        return wait_for(
            f"{wanted} to be up", lambda: all(self.parts()[name]["state"] == "ok" for name in wanted) and self.parts()
        )

    def redis_socket(self):
        return next(iter(self.queue_dir.glob("sidecar-*/redis.sock")))

    def redis_pid(self):
        """From the server itself."""
        import redis  # noqa: PLC0415

        client = redis.Redis(unix_socket_path=str(self.redis_socket()))
        try:
            return client.info("server")["process_id"]
        finally:
            client.close()

    def billing_url(self):
        """Of the embedded billing API."""
        path = self.data_dir / "billing.json"
        return wait_for("the embedded billing API", lambda: "http://" + json.loads(path.read_text())["address"])

    def signal(self, **body):
        return httpx.post(self.admin + "/v1/signals", json=body)

    def signal_taken(self, **body):
        """Sent again until it is: 503 says that the observer, at the lowest priority, had no time."""
        return wait_for("the signal to be taken", lambda: self.signal(**body).status_code == 202)

    def session(self, kind, value):
        answer = httpx.get(self.admin + "/v1/sessions", params={"alias": f"{kind}:{value}"})
        return None if answer.status_code == 404 else answer.raise_for_status().json()

    def log(self):
        return self.process.output() if self.process else ""

    def stop(self):
        """SIGTERM; its exit code."""
        return self.process.end(60)

    def close(self):
        try:
            if self.process is not None and self.process.popen.poll() is None:
                self.stop()
        finally:
            shutil.rmtree(self.queue_dir, ignore_errors=True)


def ledger(url, **query):
    """Every outcome event in the ledger of a billing API, newest first, over all pages."""
    rows, after = [], None
    while True:
        page = httpx.get(url + "/v1/outcomes", params=query | ({"after": after} if after else {}))
        document = page.raise_for_status().json()
        rows += [row["event"] for row in document["outcomes"]]
        after = document.get("next")
        if not after:
            return rows


def conversations(rows):
    """The conversations of ledger rows."""
    return {row["data"]["conversation"] for row in rows}
