from __future__ import annotations

import os
import stat

import pytest

from sidecar.observer import spill as spill_module
from sidecar.observer.spill import BEGINNING_BYTES, STATE_BYTES, OpenExchange, Spill, largest

PRODUCER = "ab" * 16


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "spill"


@pytest.fixture
def spill(directory):
    return Spill(directory, PRODUCER)


def exchange(first=5, *, request=b"", response=b""):
    made = OpenExchange(first=first, listener=3, sequence=first + 9, started_us=1, last_us=2, viewed_us=3, hold=800)
    made.request.append(request)
    made.response.append(response)
    return made


def recovered(directory):
    found, _ = Spill(directory, PRODUCER).recover()
    return found


def test_a_saved_exchange_is_found_again_with_all_it_had(spill, directory):
    saved = exchange(request=b"request", response=b"first ")
    saved.gap = True
    spill.save(saved)
    assert (saved.hold, saved.request, saved.response) == (None, [], [])
    saved.sequence, saved.last_us = 40, 50
    saved.response.append(b"second")
    spill.save(saved)
    again = Spill(directory, PRODUCER)
    (found,), foreign = again.recover()
    assert found == saved
    assert foreign == 0
    found.response.append(b" in memory")
    assert again.read(found) == (b"request", b"first second in memory")
    assert again.bytes == spill.bytes == sum(p.stat().st_size for p in directory.iterdir())


def test_directory_and_files_are_private(spill, directory):
    spill.save(exchange())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [stat.S_IMODE(p.stat().st_mode) for p in directory.iterdir()] == [0o600]


def test_segments_without_their_state_do_not_count(spill, directory):
    saved = exchange(response=b"whole")
    spill.save(saved)
    with (directory / f"{PRODUCER}-5").open("ab") as file:
        file.write(b"half a segm")
    (found,) = recovered(directory)
    again = Spill(directory, PRODUCER)
    again.recover()
    assert again.read(found) == (b"", b"whole")
    found.response.append(b" more")
    again.save(found)
    assert again.read(found) == (b"", b"whole more")


@pytest.mark.parametrize("content", [b"", b"x" * 10, bytes(STATE_BYTES), b"\xff" * 200])
def test_a_file_whose_state_was_never_stored_is_removed(spill, directory, content):
    (directory / f"{PRODUCER}-7").write_bytes(content)
    assert recovered(directory) == []
    assert list(directory.iterdir()) == []


def test_a_file_shorter_than_it_says_is_removed(spill, directory):
    spill.save(exchange(response=b"x" * 1000))
    os.truncate(directory / f"{PRODUCER}-5", STATE_BYTES + 500)
    assert recovered(directory) == []


def test_recovery_is_by_number_and_leaves_no_stranger(spill, directory):
    for first in (10, 9, 100):
        spill.save(exchange(first))
    spill.save(exchange(11))
    (directory / f"{PRODUCER}-11").rename(directory / f"{PRODUCER}-12")
    (directory / ("cd" * 16 + "-1")).write_bytes(b"")
    found, foreign = Spill(directory, PRODUCER).recover()
    assert [one.first for one in found] == [9, 10, 100]
    assert foreign == 1
    assert len(list(directory.iterdir())) == 3


def test_shedding_keeps_the_beginning_then_nothing(spill, directory):
    saved = exchange(request=b"q" * 50_000, response=b"r" * 50_000)
    spill.save(saved)
    saved.response.append(b"in memory")
    spill.shed(saved)
    assert spill.read(saved) == (b"q" * BEGINNING_BYTES, b"r" * BEGINNING_BYTES)
    assert recovered(directory) == [saved]
    assert saved.lost
    spill.shed(saved)
    assert spill.read(saved) == (b"", b"")
    assert recovered(directory) == [saved]
    assert spill.bytes == STATE_BYTES


def test_shedding_that_is_interrupted_leaves_a_marked_exchange(spill, directory, monkeypatch):
    saved = exchange(request=b"q" * 50_000)
    spill.save(saved)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill, "save", full)
    with pytest.raises(OSError, match="No space"):
        spill.shed(saved)
    (found,) = recovered(directory)
    assert (found.lost, found.spilled_bytes) == (True, 0)


def test_a_write_that_fails_changes_nothing_that_counts(spill, directory, monkeypatch):
    saved = exchange(request=b"kept")
    spill.save(saved)
    saved.request.append(b" and more")
    saved.hold = 1000

    def full(fd, data, offset):
        os.pwrite(fd, data[:3], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spill_module, "_write_all", full)
        with pytest.raises(OSError, match="No space"):
            spill.save(saved)
    assert saved.hold == 1000
    assert Spill(directory, PRODUCER).read(saved) == (b"kept and more", b"")
    spill.save(saved)
    (found,) = recovered(directory)
    assert spill.read(found) == (b"kept and more", b"")


def test_deleting_gives_the_bytes_back_once(spill, directory):
    spill.save(exchange(5, request=b"x" * 100))
    spill.save(exchange(6))
    spill.delete(5)
    spill.delete(5)
    spill.delete(99)
    assert spill.bytes == STATE_BYTES
    assert [p.name for p in directory.iterdir()] == [f"{PRODUCER}-6"]


def test_the_largest_goes_first_of_equals_the_oldest():
    def sized(first, size):
        made = exchange(first)
        made.spilled_bytes = size
        return made

    assert largest([]) is None
    assert largest([sized(1, 0)]) is None
    assert largest([sized(3, 10), sized(1, 10), sized(2, 9)]).first == 1
