"""The journal: every observation and signal, in the order of arrival, on disk before Redis hears of it.

SQLite in WAL mode. Observations are appended in batches with synchronous=NORMAL: they survive the loss of a process,
and the queue gives its room back only afterwards. Signals are appended with synchronous=FULL: on disk before the
sender gets its 202. A row names its producer's preceding sequence, so that Redis can tell when it has lost something
and the applier can go back (`first_after`). Beside an observation stands where it went when it was applied, so that it
goes there again.

A journal that cannot take more raises JournalFull and stays usable: the caller tries again, the queue keeps what is
not journaled. A database file that is damaged is moved aside, one that was deleted is made anew; `recovered_from` says
so. Row numbers, and the producer id of signals, run on as far as this process knows them, so that whoever reads by row
number misses nothing and no sequence is given twice.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sidecar.observer.journalfile import (
    DAMAGED,
    HOUR_MS,
    error_code,
    move_aside,
    open_file,
    prune_old,
    prune_to_fit,
    used_bytes,
)

Kind = Literal["observation", "signal"]


_INSERT: Final = (
    "INSERT OR IGNORE INTO rows (producer, sequence, previous, kind, at_ms, body) VALUES (?, ?, ?, ?, ?, ?)"
)
_REMEMBER: Final = "INSERT INTO producers VALUES (?, ?) ON CONFLICT (producer) DO UPDATE SET last = excluded.last"
_LAST_ROW: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'rows'"
_READ: Final = (
    "SELECT row, producer, sequence, previous, kind, at_ms, body, coalesce(went, '') "
    "FROM rows LEFT JOIN applied USING (row) WHERE row > ? ORDER BY row LIMIT ?"
)
_NOTE: Final = "INSERT INTO applied VALUES (?, ?) ON CONFLICT (row) DO UPDATE SET went = excluded.went"


class JournalFull(Exception):  # noqa: N818  it names a condition that passes, not a mistake
    """The journal cannot take this now: its bound is reached, or its disk refuses. Nothing of the call was kept."""


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to append. `producer` and `sequence` identify it; times are Unix milliseconds."""

    producer: str
    sequence: int
    kind: Kind
    at_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A row as kept. `row` only grows; `previous` is the producer's preceding sequence in this journal, or 0.

    `went` is where an observation went, in the store's words; empty when it was not applied, or that is not known.
    """

    row: int
    producer: str
    sequence: int
    previous: int
    kind: Kind
    at_ms: int
    body: bytes
    went: str = ""


class Journal:
    """The journal in the file at `path`; safe to call from several threads, one process at a time.

    Applied rows are kept for `hours`, and all of it stays within about `bytes_max`. A file that cannot be opened or
    made yet (a full disk) is tried again at every call; until then `opened` is False and calls raise JournalFull.
    """

    def __init__(self, path: str | os.PathLike[str], *, hours: float, bytes_max: int) -> None:
        self.path = Path(path)
        self.recovered_from: str | None = None  # what was wrong with the file, and where it is now
        self.recoveries = 0
        self.refused = 0  # calls answered with JournalFull
        self._keep_ms = int(hours * HOUR_MS)
        self._bytes_max = bytes_max
        self._lock = threading.RLock()
        self._id = os.urandom(16).hex()
        self._last: dict[str, int] = {}  # producer → its last sequence in this journal
        self._last_row = 0
        self._newest_ms = 0
        self._applied_row = 0
        self._inode = 0
        self._connection: sqlite3.Connection | None = None
        self._opened = False
        self._open()

    @property
    def opened(self) -> bool:
        """Whether the file could be opened, now or before."""
        return self._opened or self._open()

    @property
    def id(self) -> str:
        """Producer id of this journal's signals: made once, kept in the file, and not known before that is `opened`."""
        if not self._opened:
            self._open()
        return self._id

    def append(self, rows: Sequence[NewRow]) -> int:
        """Append the rows that are not there yet; returns how many were new.

        A producer's sequences only grow, so one that is not above its last is a repetition. All or nothing: raises
        JournalFull when the bound is reached by rows that are not applied yet, or the disk refuses.
        """
        with self._lock:
            fresh = []
            with self._writing("NORMAL") as connection:
                last, last_row = dict(self._last), self._last_row
                for row in rows:
                    previous = last.get(row.producer, 0)
                    if row.sequence > previous:
                        fresh.append((row.producer, row.sequence, previous, row.kind, row.at_ms, row.body))
                        last[row.producer] = row.sequence
                if fresh:
                    connection.executemany(_INSERT, fresh)
                    connection.executemany(_REMEMBER, [(name, last[name]) for name in {new[0] for new in fresh}])
                    last_row = self._one(_LAST_ROW) or 0
            self._learn(last, last_row, max((new[4] for new in fresh), default=0))
            return len(fresh)

    def append_signal(
        self,
        source: str,
        id: str,  # noqa: A002  the sender's word
        at_ms: int,
        body: Callable[[int], bytes],
    ) -> tuple[int, bool]:
        """Append a signal unless (`source`, `id`) is known; on disk when this returns.

        `body` makes the row's bytes from the sequence that it gets. Returns that sequence, or the one it had before,
        and whether it was a duplicate. Raises JournalFull as `append` does.
        """
        with self._lock, self._refusing():
            id_before = self._id
            self._ready()
            if self._id != id_before:  # whoever wrote the body did not know it
                raise JournalFull(f"{self.path} could be opened only now")
            known = self._one("SELECT sequence FROM signals WHERE source = ? AND id = ?", (source, id))
            if known is not None:
                return known, True
            with self._writing("FULL") as connection:
                previous = self._last.get(self._id, 0)
                sequence = previous + 1
                connection.execute(_INSERT, (self._id, sequence, previous, "signal", at_ms, body(sequence)))
                connection.execute("INSERT INTO signals VALUES (?, ?, ?, ?)", (source, id, sequence, at_ms))
                connection.execute(_REMEMBER, (self._id, sequence))
                last_row = self._one(_LAST_ROW) or 0
            self._learn({self._id: sequence}, last_row, at_ms)
            return sequence, False

    def after(self, row: int, limit: int) -> list[Row]:
        """Up to `limit` rows with a number above `row`, in order."""
        with self._lock:
            # Who reads from here again may apply again from here (Redis lost its data): not to be pruned meanwhile.
            self._applied_row = min(self._applied_row, row)
        return [Row(*columns) for columns in self._all(_READ, (row, limit))]

    def note_where(self, went: Sequence[tuple[int, str]]) -> None:
        """Keep, by row, where each observation went (`Row.went`)."""
        with self._writing("NORMAL", within_bound=False) as connection:
            connection.executemany(_NOTE, went)

    def first_after(self, producer: str, sequence: int) -> int | None:
        """Number of the producer's first row above `sequence`; None when there is none."""
        sql = "SELECT row FROM rows WHERE producer = ? AND sequence > ? ORDER BY sequence LIMIT 1"
        found = self._all(sql, (producer, sequence))
        return found[0][0] if found else None

    def last_up_to(self, producer: str, row: int) -> int:
        """The producer's last sequence among the rows up to `row`, those forgotten since included; 0 when none."""
        sql = "SELECT previous FROM rows WHERE producer = ? AND row > ? ORDER BY sequence LIMIT 1"
        found = self._all(sql, (producer, row))
        with self._lock:
            return int(found[0][0]) if found else self._last.get(producer, 0)

    def last_row(self) -> int:
        """The highest row number ever given; 0 for a new journal."""
        with self._lock:
            return self._last_row

    @property
    def newest_ms(self) -> int:
        """The latest time of any row; 0 for a new journal."""
        return self._newest_ms

    def size_bytes(self) -> int:
        """What the rows take on disk, without the pages that deleted rows left free."""
        with self._lock, self._refusing():
            self._ready()
            return self._used_bytes()

    def prune(self, applied_row: int, now_ms: int | None = None) -> int:
        """Forget rows up to `applied_row` that are too old, or more than fit; returns how many.

        Age is judged by `now_ms`, or, without it, by the newest row. What Redis does not have yet is never forgotten.
        A row may be newer than any clock (one that was ahead): whoever has a clock gives min(`newest_ms`, now).
        """
        with self._lock, self._refusing():
            self._ready()  # which may learn of rows
            self._applied_row = min(applied_row, self._last_row)
            now_ms = self._newest_ms if now_ms is None else now_ms
            connection = self._ready()
            forgotten = prune_old(connection, self._applied_row, now_ms=now_ms, keep_ms=self._keep_ms)
            return forgotten + prune_to_fit(connection, self._applied_row, self._bytes_max)

    def meta(self, name: str) -> str | None:
        """A value that was kept with `set_meta`."""
        found = self._all("SELECT value FROM meta WHERE name = ?", (name,))
        return found[0][0] if found else None

    def set_meta(self, name: str, value: str) -> None:
        """Keep a small value under a name, as durably as an observation."""
        with self._writing("NORMAL", within_bound=False) as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """Close the file; the WAL is folded into it."""
        with self._lock:
            self._disconnect()

    # How a call reaches the file.

    @contextmanager
    def _writing(
        self, synchronous: Literal["NORMAL", "FULL"], *, within_bound: bool = True
    ) -> Iterator[sqlite3.Connection]:
        """A transaction, committed at the end with the durability asked for, or rolled back whole."""
        with self._lock, self._refusing():
            connection = self._ready()
            if within_bound and self._used_bytes() >= self._bytes_max:
                prune_to_fit(connection, self._applied_row, self._bytes_max)
                if (used := self._used_bytes()) >= self._bytes_max:
                    self.refused += 1
                    raise JournalFull(
                        f"{self.path} holds {used} bytes that Redis has not taken yet and may hold {self._bytes_max}: "
                        "bring Redis back, or raise SIDECAR_JOURNAL_BYTES"
                    )
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn what SQLite or the disk says into JournalFull; a damaged file is replaced at the next call."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = error_code(error)
            if code is None:
                raise  # a mistake of ours, not the disk's
            self.refused += 1
            if code in DAMAGED:
                self._set_aside(str(error))
            elif code == sqlite3.SQLITE_IOERR:
                self._disconnect()  # its state is unknown: start from what the file says
            raise JournalFull(
                f"{self.path} cannot be written or read: {error}; free space or repair the disk"
            ) from error
        except OSError as error:
            self.refused += 1
            raise JournalFull(f"{self.path} cannot be opened: {error.strerror}") from error

    def _open(self) -> bool:
        with suppress(JournalFull), self._lock, self._refusing():
            self._ready()
        return self._opened

    def _ready(self) -> sqlite3.Connection:
        """The open connection, to the file that stands under the path now."""
        if self._connection is not None:
            if self._same_file():
                return self._connection
            self._disconnect()
            self._report(f"{self.path} was removed while in use; a new journal was begun")
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if error_code(error) not in DAMAGED:
                raise
            self._set_aside(str(error))
            return self._connect()

    def _same_file(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _connect(self) -> sqlite3.Connection:
        connection, inode = open_file(self.path)
        try:
            self._agree(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._inode, self._opened = connection, inode, True
        return connection

    def _agree(self, connection: sqlite3.Connection) -> None:
        """Take over what the file knows; give a new file what this process knows."""
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (self._id,))
        (self._id,) = connection.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
        known = dict(connection.execute("SELECT producer, last FROM producers"))
        for producer, last in known.items():
            self._last[producer] = max(last, self._last.get(producer, 0))
        connection.executemany(_REMEMBER, self._last.items() - known.items())
        given = connection.execute(_LAST_ROW).fetchone()
        if given is None:
            connection.execute("INSERT INTO sqlite_sequence VALUES ('rows', ?)", (self._last_row,))
        elif given[0] < self._last_row:
            connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'rows'", (self._last_row,))
        else:
            self._last_row = given[0]
        newest = connection.execute("SELECT at_ms FROM rows ORDER BY row DESC LIMIT 1").fetchone()
        self._newest_ms = max(self._newest_ms, newest[0] if newest else 0)
        connection.execute("COMMIT")

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _set_aside(self, reason: str) -> None:
        self._disconnect()
        aside = move_aside(self.path)
        self._report(f"{self.path} was damaged ({reason}); it was moved to {aside} and a new journal was begun")

    def _report(self, what: str) -> None:
        self.recovered_from = what
        self.recoveries += 1

    def _learn(self, last: dict[str, int], last_row: int, newest_ms: int) -> None:
        """After a commit: what the file holds now."""
        self._last.update(last)
        self._last_row = last_row
        self._newest_ms = max(self._newest_ms, newest_ms)

    def _all(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            before = self.recoveries
            try:
                with self._refusing():
                    return self._ready().execute(sql, parameters).fetchall()
            except JournalFull:
                if self.recoveries == before:
                    raise
            with self._refusing():  # the file was damaged and is new now
                return self._ready().execute(sql, parameters).fetchall()

    def _one(self, sql: str, parameters: tuple[object, ...] = ()) -> int | None:
        """First column of the first row."""
        found = self._ready().execute(sql, parameters).fetchone()
        return None if found is None else int(found[0])

    def _used_bytes(self) -> int:
        return used_bytes(self._ready())
