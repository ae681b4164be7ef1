"""`sidecar demo` as users run it: real processes, and what it must notice."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from sidecar.demo import script, stage
from sidecar.demo.examples import examples_dir, load_agent


def leftovers():
    """Directories of demos."""
    places = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    return {path for place in places if place.is_dir() for path in place.glob("sidecar-demo-*")}


def read_document(stream):
    """One JSON document from a pipe that stays open."""
    text = ""
    for line in stream:
        text += line
        if line.rstrip() == "}":
            return json.loads(text)
    raise AssertionError(f"no document: {text}")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(200)
def test_sixty_four_conversations_come_out_right_and_nothing_is_left_behind(tmp_path):
    before = leftovers()
    argv = [sys.executable, "-m", "sidecar", "demo", "--json", "--stay", "--conversations", "64"]
    errors = tmp_path / "errors"
    with errors.open("w") as sink, subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=sink, text=True) as demo:
        try:
            document = read_document(demo.stdout)
            # Everything still runs: the billing API gives the same invoice to whoever asks.
            while not (url := re.search(r"an invoice\s+(http://\S+)", errors.read_text())):
                assert demo.poll() is None
            with urllib.request.urlopen(url[1]) as answer:
                assert json.load(answer)["total"] == document["invoice"]["total"]
            console = re.search(r"the console\s+(http://\S+)", errors.read_text())
            with urllib.request.urlopen(console[1]) as answer:
                assert "What became of the sessions" in answer.read().decode()
            processes = children(demo.pid)
            assert len(processes) == 2
            demo.send_signal(signal.SIGINT)
            assert demo.stdout.read() == ""
            assert demo.wait(60) == 0
        finally:
            if demo.poll() is None:
                demo.terminate()
    parts = script.cast(64)
    assert document["sessions"] == {"RESOLVED": 43, "NOT_BILLABLE": 16, "INCONCLUSIVE": 10, "REVERSED": 5}
    assert document["invoice"]["customer"] == parts[0].customer
    assert document["invoice"]["total"] == "20.79"  # 26 kept resolutions, five free, 0.99 each
    assert document["proxy"]["requests"] > script.calls_expected(parts)
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert leftovers() <= before


@pytest.fixture
def sabotaged(tmp_path, monkeypatch):
    """The examples with an agent that forgets whom it works for."""
    folder = tmp_path / "examples"
    shutil.copytree(examples_dir(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = (folder / "agent.py").read_text()
    assert '"X-Customer-Id": self.customer' in source
    (folder / "agent.py").write_text(source.replace('"X-Customer-Id": self.customer', '"X-Nobody": self.customer'))
    return folder


async def test_a_figure_that_is_wrong_is_named_and_fails_the_run(sabotaged, capfd):
    demo = stage.Demo(sabotaged, load_agent(sabotaged), script.cast(2), json_output=True, stay=False)
    assert await demo.run() == stage.DIFFERS
    captured = capfd.readouterr()
    assert json.loads(captured.out)["invoice"]["total"] == "0.00"
    assert captured.err.count("customer is 'unattributed', 'northwind' is right") == 2
    assert "invoice of northwind: quantity is" in captured.err


async def test_an_interrupted_run_leaves_nothing_behind():
    before = leftovers()
    demo = stage.Demo(examples_dir(), load_agent(examples_dir()), script.cast(2), json_output=True, stay=False)
    running = asyncio.create_task(demo.run())
    while not [note for path in leftovers() - before for note in path.glob("sidecar-*/listening.json")]:
        await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert leftovers() <= before
