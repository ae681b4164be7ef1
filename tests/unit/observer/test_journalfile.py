from __future__ import annotations

import sqlite3

import pytest

from sidecar.observer.journalfile import DAMAGED, error_code, move_aside, open_file, used_bytes


def test_a_file_opens_again_with_what_was_in_it(tmp_path):
    path = tmp_path / "journal"
    connection, inode = open_file(path)
    connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    connection.close()
    connection, again = open_file(path)
    assert connection.execute("SELECT value FROM meta").fetchall() == [("b",)]
    assert inode == again == path.stat().st_ino
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_deleted_rows_do_not_count_as_used(tmp_path):
    connection, _ = open_file(tmp_path / "journal")
    empty = used_bytes(connection)
    connection.execute("INSERT INTO rows VALUES (1, 'p', 1, 0, 'observation', 0, zeroblob(1000000))")
    assert used_bytes(connection) > empty + 990_000
    connection.execute("DELETE FROM rows")
    assert used_bytes(connection) < empty + 10_000
    connection.close()


def test_error_codes_are_sqlites_own_and_primary(tmp_path):
    (tmp_path / "journal").write_bytes(b"garbage" * 1000)
    with pytest.raises(sqlite3.DatabaseError) as raised:
        open_file(tmp_path / "journal")
    assert error_code(raised.value) in DAMAGED
    assert error_code(sqlite3.ProgrammingError("ours")) is None


def test_a_damaged_file_goes_aside_with_its_wal(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b"a")
    (tmp_path / "journal-wal").write_bytes(b"b")
    aside = move_aside(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["journal.damaged-1", "journal.damaged-1-wal"]
    assert aside.read_bytes() == b"a"
    assert move_aside(path).name == "journal.damaged-2", "a file that is gone is no error"
