"""The journal's SQLite file: its tables, how it is opened, measured, pruned, and moved out of the way when damaged."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

ASIDE_MAX: Final = 4  # damaged files kept for an operator to look at
BUSY_TIMEOUT_S: Final = 5.0
WAL_BYTES_MAX: Final = 16 << 20  # what a checkpoint leaves of the WAL
HOUR_MS: Final = 3_600_000
SIGNAL_IDS_HOURS_MIN: Final = 168  # a sender's retries are recognised for at least a week
PRUNE_ROWS: Final = 2_000  # of one transaction
PRUNE_TRANSACTIONS: Final = 10  # of one call, so that an append never waits long

DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS producers (producer TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    producer TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (producer, sequence)
);
CREATE TABLE IF NOT EXISTS applied (row INTEGER PRIMARY KEY, went TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS signals (
    source TEXT NOT NULL, id TEXT NOT NULL, sequence INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS signals_by_age ON signals (at_ms);
"""
_FORGET: Final = "DELETE FROM rows WHERE row IN (SELECT row FROM rows WHERE row <= ? ORDER BY row LIMIT ?)"
_FORGET_NOTES: Final = "DELETE FROM applied WHERE row < (SELECT coalesce(min(row), 0) FROM rows)"


def open_file(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open or make the file, mode 0600, with its tables; also returns its inode number."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    inode = path.stat().st_ino
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # heeded by a new file only
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_MAX}")
        connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        _sync_directory(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection, inode


def _sync_directory(directory: Path) -> None:
    """The names of new files are on disk too: SQLite syncs what is in a WAL, not that there is one."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def error_code(error: sqlite3.DatabaseError) -> int | None:
    """SQLite's primary result code; None when the error is not SQLite's own."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the tables take, without the pages that deleted rows left free."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def move_aside(path: Path) -> Path:
    """Rename a damaged file, and its WAL, to `….damaged-N`; of older ones the newest few are kept."""
    prefix = f"{path.name}.damaged-"
    numbers = [p.name.removeprefix(prefix) for p in path.parent.glob(f"{prefix}*")]
    number = max((int(n) for n in numbers if n.isdecimal()), default=0) + 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(f"{prefix}{number}{suffix}"))
        path.with_name(f"{prefix}{number - ASIDE_MAX}{suffix}").unlink(missing_ok=True)
    return path.with_name(f"{prefix}{number}")


def prune_old(connection: sqlite3.Connection, applied_row: int, *, now_ms: int, keep_ms: int) -> int:
    """Forget rows up to `applied_row` from before the last `keep_ms`, and senders' ids of signals; how many rows."""
    forgotten = 0
    for _ in range(PRUNE_TRANSACTIONS):
        cursor = connection.execute(f"{_FORGET} AND at_ms < ?", (applied_row, PRUNE_ROWS, now_ms - keep_ms))
        forgotten += cursor.rowcount
        if cursor.rowcount < PRUNE_ROWS:
            break
    connection.execute(_FORGET_NOTES)
    ids_keep_ms = max(keep_ms, SIGNAL_IDS_HOURS_MIN * HOUR_MS)
    connection.execute("DELETE FROM signals WHERE at_ms < ?", (now_ms - ids_keep_ms,))
    connection.execute("PRAGMA incremental_vacuum(256)").fetchall()
    return forgotten


def prune_to_fit(connection: sqlite3.Connection, applied_row: int, bytes_max: int) -> int:
    """Forget the oldest rows up to `applied_row` until a sixteenth of `bytes_max` is free; how many."""
    oldest = int(connection.execute("SELECT coalesce(min(row), 0) FROM rows").fetchone()[0])
    step = max(1, min(PRUNE_ROWS, (applied_row - oldest) // 16))
    forgotten = 0
    while used_bytes(connection) > bytes_max - bytes_max // 16:
        cursor = connection.execute(_FORGET, (applied_row, step))
        if cursor.rowcount == 0:
            break
        forgotten += cursor.rowcount
    if forgotten:
        connection.execute(_FORGET_NOTES)
        connection.execute("PRAGMA incremental_vacuum(1024)").fetchall()
    return forgotten
