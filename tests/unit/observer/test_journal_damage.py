"""A journal's file that is damaged, or taken away."""

from __future__ import annotations

import sqlite3

import pytest
from journal_rows import row

from sidecar.observer.journal import Journal

MIB = 1 << 20


@pytest.mark.parametrize(
    "garbage", [b"not a database at all, but long enough to look at" * 100, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_a_damaged_file_is_moved_aside_at_start(path, garbage):
    path.write_bytes(garbage)
    journal = Journal(path, hours=1, bytes_max=MIB)
    aside = path.with_name(path.name + ".damaged-1")
    assert aside.read_bytes() == garbage
    assert str(aside) in journal.recovered_from
    assert journal.append([row(1)]) == 1
    journal.close()
    again = Journal(path, hours=1, bytes_max=MIB)
    assert again.recovered_from is None
    again.close()


def test_only_the_newest_damaged_files_are_kept(path):
    for n in range(1, 8):
        path.write_bytes(b"garbage %d" % n * 100)
        Journal(path, hours=1, bytes_max=MIB).close()
    kept = sorted(p.name for p in path.parent.glob("*.damaged-*"))
    assert kept == [f"{path.name}.damaged-{n}" for n in (4, 5, 6, 7)]


def damage(path):
    """Overwrite every page but the first, under the connection's feet."""
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_damage_while_running_begins_a_new_file_in_which_numbers_run_on(journal, path):
    journal.append([row(n, body=b"x" * 1000) for n in range(1, 200)])
    journal.append_signal("crm", "a", 1, lambda _: b"")
    damage(path)
    own, last_row = journal.id, journal.last_row()
    journal._connection.execute("PRAGMA shrink_memory")
    assert journal.after(0, 1_000) == [], "reading moves the damaged file aside and goes on with the new one"
    assert "damaged" in journal.recovered_from
    assert journal.append([row(200)]) == 1
    assert journal.append_signal("crm", "b", 1, lambda _: b"")[0] == 2
    assert journal.id == own
    first, second = journal.after(last_row, 10)
    assert (first.sequence, first.previous) == (200, 199)
    assert (second.sequence, second.previous) == (2, 1)


def test_deleting_the_file_while_running_begins_a_new_one_in_which_numbers_run_on(journal, path):
    journal.append([row(1), row(2)])
    path.unlink()
    assert journal.append([row(3)]) == 1
    assert "removed" in journal.recovered_from
    (kept,) = journal.after(2, 10)
    assert (kept.row, kept.sequence, kept.previous) == (3, 3, 2)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM rows").fetchone() == (1,)
    other.close()
