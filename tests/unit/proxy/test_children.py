"""One child in this process's event loop; the whole tree is in test_server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from sidecar.proxy import children
from sidecar.proxy.children import Child, Children
from sidecar.proxy.config import ChildConfig
from sidecar.proxy.log import Log
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage


def test_backoff_grows_to_its_bound():
    waits = [children.backoff_seconds(failures) for failures in range(20)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == 5.0


def status_page() -> StatusPage:
    return StatusPage(bytearray(STATUS_BYTES))


async def eventually(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_started_killed_started_again_stopped():
    status = status_page()
    child = Child(ChildConfig("observer", ("sleep", "100")), status, Log(level="error"))
    await child.start()
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: child.alive and child.pid != first)
    assert child.starts == 2
    assert status.get(Slot.OBSERVER_STARTS) == 2
    await child.stop(20.0)
    assert not child.alive
    assert child.pid is None


async def test_one_that_ignores_sigterm_is_killed(tmp_path):
    ready = tmp_path / "ready"
    script = f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w'); time.sleep(100)"
    child = Child(ChildConfig("deaf", (sys.executable, "-c", script)), status_page(), Log(level="error"))
    await child.start()
    await eventually(ready.exists)
    await child.stop(0.1)
    assert not child.alive


async def test_a_program_that_does_not_exist_is_tried_again_and_does_no_harm():
    child = Child(ChildConfig("nothing", ("/no/such/program",)), status_page(), Log(level="critical"))
    await child.start()
    await eventually(lambda: child.starts >= 2)
    await child.stop(5.0)


async def test_all_are_found_by_name():
    everyone = Children([ChildConfig("a", ("true",)), ChildConfig("b", ("true",))], status_page(), Log())
    found = everyone.get("b")
    assert found is not None
    assert found.name == "b"
    assert everyone.get("c") is None
