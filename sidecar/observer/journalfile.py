"""The journal's SQLite file: its tables, how it is opened, measured, and moved out of the way when it is damaged."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

ASIDE_MAX: Final = 4  # damaged files kept for an operator to look at
BUSY_TIMEOUT_S: Final = 5.0
WAL_BYTES_MAX: Final = 16 << 20  # what a checkpoint leaves of the WAL

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
