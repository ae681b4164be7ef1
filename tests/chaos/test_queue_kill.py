"""Writer and reader of the queue as real processes, killed with SIGKILL at seeded times and started again."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time

import pytest

from sidecar.observer.journal import Journal, NewRow
from sidecar.observer.reader import ExchangeReader
from sidecar.wire.records import EndFlag
from sidecar.wire.ring import RingReader, RingWriter
from sidecar.wire.status import Slot

CAPACITY = 256 * 1024
KILLS = 9

WRITER = """
import hashlib, os, random, sys, time
from sidecar.wire.ring import RingWriter

directory, life = sys.argv[1], sys.argv[2]
writer = RingWriter(directory + "/queue", 256 * 1024, body_bytes_max=1 << 20)
done = os.open(directory + "/written", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
chance = random.Random(life)
long = writer.copy(0)  # never ends: spilled, and finished by the next START
long.request(f"{life}-long\\n".encode(), 1)
print("ready", flush=True)
number = 0
while True:
    while writer._room() < writer.capacity // 2:
        time.sleep(0.001)
        writer._tail = writer._slots[32]
    number += 1
    name = f"{life}-{number}\\n".encode()
    request, response = name + chance.randbytes(chance.randint(0, 9000)), chance.randbytes(chance.randint(1, 20000))
    copy = writer.copy(0)
    copy.request(request, len(name))
    if number % 2:
        copy.last(response, 1, 0)  # by one store, as far as it fits
        long.response(b"." * 700)
    else:
        for at in range(0, len(response), 3000):
            copy.response(response[at : at + 3000])
        long.response(b"." * 700)
        copy.end()
    os.write(done, name[:-1] + b" " + hashlib.sha256(request + response).hexdigest().encode() + b"\\n")
"""

READER = """
import sys, time
from tests_queue_kill import keep, open_reader

reader, journal = open_reader(sys.argv[1])
print("ready", flush=True)
while True:
    if not keep(reader, journal):
        time.sleep(0.001)
"""


def open_reader(directory):
    ring = RingReader(f"{directory}/queue", timeout_s=60)
    return ExchangeReader(ring, f"{directory}/spill", spill_bytes_max=64 << 20), Journal(
        f"{directory}/journal", hours=1, bytes_max=1 << 30
    )


def keep(reader, journal):
    """One step of an observer: read, journal, release."""
    raws = reader.poll()
    rows = []
    for raw in raws:
        name, _, _ = raw.request.partition(b"\n")
        digest = hashlib.sha256(raw.request + raw.response).hexdigest()
        body = f"{name.decode()} {digest} {int(raw.flags)}".encode()
        rows.append(NewRow(raw.producer, raw.sequence, "observation", raw.at_ms, body))
    journal.append(rows)
    reader.release()
    return len(raws)


class Part:
    """One of the two processes; killed and started again."""

    def __init__(self, directory, script):
        self.directory, self.script = directory, script
        self.lives = 0
        self.process = None

    def start(self):
        self.lives += 1
        # The module is this file, under a name that a script can import.
        load = (
            "import importlib.util, sys\n"
            "s = importlib.util.spec_from_file_location('tests_queue_kill', sys.argv.pop(1))\n"
            "m = importlib.util.module_from_spec(s); sys.modules[s.name] = m; s.loader.exec_module(m)\n"
        )
        argv = [sys.executable, "-c", load + self.script, __file__, str(self.directory), str(self.lives)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def wait_for_lines(path, count):
    """Until the writer has written that many exchanges; the test's own time limit ends a wait that is in vain."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        time.sleep(0.001)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_exchange_whose_write_returned_is_read_once_whole(tmp_path, seed):
    chance = random.Random(seed)
    writer, reader = Part(tmp_path, WRITER), Part(tmp_path, READER)
    writer.start()
    reader.start()
    wanted = 0
    try:
        for _ in range(KILLS):
            wanted += chance.randint(0, 60)
            wait_for_lines(tmp_path / "written", wanted)
            victims = chance.choice([[writer], [reader], [reader], [writer, reader]])
            for victim in victims:
                victim.kill()
            for victim in victims:
                victim.start()
    finally:
        writer.kill()
        reader.kill()
    last = RingWriter(str(tmp_path / "queue"), CAPACITY, body_bytes_max=1 << 20)
    exchanges, journal = open_reader(tmp_path)
    while keep(exchanges, journal):
        pass

    found = [row.body.decode().split() for row in journal.after(0, 1_000_000)]
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names), "nothing twice"
    digests = {name: digest for name, digest, _ in found}
    written = dict(line.split() for line in (tmp_path / "written").read_text().splitlines())
    assert len(written) >= wanted
    assert {name: digests.get(name) for name in written} == written, f"seed {seed}"
    cut = {name for name, _, flags in found if EndFlag(int(flags)) == EndFlag.ABORTED_BY_ORIGIN}
    assert {f"{life}-long" for life in range(1, writer.lives + 1)} <= cut
    unfinished = set(names) - set(written) - cut
    assert len(unfinished) <= writer.lives, "at most one whose END was written before its line in the file was"
    assert last.status.get(Slot.RECORDS_DROPPED) == last.status.get(Slot.SPILL_DROPPED) == 0
    assert last.status.get(Slot.QUEUE_CORRUPTIONS) == 0
    assert list((tmp_path / "spill").iterdir()) == []
    journal.close()
    last.close()
