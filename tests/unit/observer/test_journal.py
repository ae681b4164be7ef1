from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_rows import row, sequences

from sidecar.observer.journal import Journal, JournalFull
from sidecar.observer.journalfile import HOUR_MS

MIB = 1 << 20


def test_rows_come_back_in_order_with_the_sequence_before_theirs(journal):
    assert journal.append([row(3), row(7, producer="q", body=b"x"), row(9)]) == 3
    first, second, third = journal.after(0, 10)
    assert (first.row, first.sequence, first.previous) == (1, 3, 0)
    assert (second.producer, second.previous, second.body) == ("q", 0, b"x")
    assert (third.sequence, third.previous, third.kind, third.at_ms) == (9, 3, "observation", 1_000)
    assert journal.after(1, 1) == [second]
    assert journal.after(3, 10) == []
    assert journal.last_row() == 3


def test_a_row_is_kept_once(journal):
    journal.append([row(1), row(2)])
    assert journal.append([row(1), row(2), row(3), row(3)]) == 1
    assert sequences(journal) == [("p", 1), ("p", 2), ("p", 3)]


def test_where_a_row_went_is_kept_beside_it_and_forgotten_with_it(journal, path):
    journal.append([row(1), row(2), row(3, at_ms=2 * HOUR_MS)])
    journal.note_where([(1, "ses_1 ses_1"), (2, "ses_1 ses_1")])
    journal.note_where([(2, "ses_2 ses_2 ses_9")])
    journal.close()
    again = Journal(path, hours=1, bytes_max=16 * MIB)
    assert [kept.went for kept in again.after(0, 10)] == ["ses_1 ses_1", "ses_2 ses_2 ses_9", ""]
    assert again.prune(3) == 2
    again.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM applied").fetchone() == (0,)
    connection.close()


def test_nothing_to_append_is_nothing(journal):
    assert journal.append([]) == 0
    assert journal.last_row() == 0


def test_previous_is_known_after_a_restart_and_after_pruning(path):
    journal = Journal(path, hours=1, bytes_max=MIB)
    journal.append([row(1), row(5)])
    journal.prune(2, now_ms=10 * HOUR_MS)
    assert journal.after(0, 10) == []
    journal.close()
    journal = Journal(path, hours=1, bytes_max=MIB)
    assert journal.append([row(5), row(6)]) == 1
    (kept,) = journal.after(0, 10)
    assert (kept.row, kept.sequence, kept.previous) == (3, 6, 5)
    journal.close()


def test_first_after_finds_where_to_go_back_to(journal):
    journal.append([row(2), row(4, producer="q"), row(5), row(9)])
    assert journal.first_after("p", 0) == 1
    assert journal.first_after("p", 2) == 3
    assert journal.first_after("p", 4) == 3
    assert journal.first_after("p", 9) is None
    assert journal.first_after("nobody", 0) is None


def test_a_signal_gets_the_next_sequence_of_the_journal_and_only_once(journal):
    assert journal.append_signal("crm", "a", 5, lambda n: b"signal %d" % n) == (1, False)
    assert journal.append_signal("crm", "b", 6, lambda n: b"signal %d" % n) == (2, False)
    assert journal.append_signal("crm", "a", 7, lambda n: b"other %d" % n) == (1, True)
    assert journal.append_signal("survey", "a", 8, lambda n: b"signal %d" % n) == (3, False)
    kept = journal.after(0, 10)
    assert [(r.producer, r.sequence, r.previous, r.kind, r.body) for r in kept] == [
        (journal.id, 1, 0, "signal", b"signal 1"),
        (journal.id, 2, 1, "signal", b"signal 2"),
        (journal.id, 3, 2, "signal", b"signal 3"),
    ]


def test_a_body_that_fails_leaves_nothing(journal):
    def broken(_):
        raise RuntimeError("no body")

    with pytest.raises(RuntimeError, match="no body"):
        journal.append_signal("crm", "a", 5, broken)
    assert journal.append_signal("crm", "a", 5, lambda n: b"%d" % n) == (1, False)


def test_signals_of_many_threads_are_numbered_without_holes(journal):
    results = []

    def send(thread):
        for n in range(10):
            outcome = journal.append_signal("crm", f"{thread % 2}-{n}", n, lambda number: b"%d" % number)
            results.append(outcome)

    threads = [threading.Thread(target=send, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, duplicate in results if not duplicate) == list(range(1, 21))
    assert sum(duplicate for _, duplicate in results) == 20
    assert [r.previous for r in journal.after(0, 100)] == list(range(20))


def test_the_id_and_meta_outlive_a_restart_and_the_file_is_private(path):
    journal = Journal(path, hours=1, bytes_max=MIB)
    first = journal.id
    assert journal.meta("hash_key") is None
    journal.set_meta("hash_key", "abc")
    journal.set_meta("hash_key", "def")
    for name in (path, path.with_name(path.name + "-wal")):
        assert stat.S_IMODE(name.stat().st_mode) == 0o600
    journal.close()
    journal = Journal(path, hours=1, bytes_max=MIB)
    assert len(first) == 32
    assert (journal.id, journal.meta("hash_key")) == (first, "def")
    assert journal.recovered_from is None
    journal.close()


def test_age_prunes_applied_rows_only(journal):
    journal.append([row(1, at_ms=0), row(2, at_ms=0), row(3, at_ms=0), row(4, at_ms=2 * HOUR_MS)])
    assert journal.prune(2) == 2, "the third is as old, but Redis does not have it"
    assert sequences(journal) == [("p", 3), ("p", 4)]
    assert journal.prune(4) == 1
    assert sequences(journal) == [("p", 4)]
    assert journal.last_row() == 4


def test_signal_ids_are_remembered_for_a_week_whatever_the_hours(journal):
    journal.append_signal("crm", "a", 0, lambda _: b"")
    journal.prune(1, now_ms=100 * HOUR_MS)
    assert journal.after(0, 10) == []
    assert journal.append_signal("crm", "a", 0, lambda _: b"") == (1, True)
    journal.prune(1, now_ms=200 * HOUR_MS)
    assert journal.append_signal("crm", "a", 0, lambda _: b"") == (2, False)


def test_size_prunes_the_oldest_applied_rows(path):
    journal = Journal(path, hours=1000, bytes_max=MIB)
    journal.append([row(n, body=b"x" * 10_000) for n in range(1, 91)])
    journal.prune(90)
    journal.append([row(n, body=b"x" * 10_000) for n in range(91, 120)])
    journal.prune(119)
    assert journal.size_bytes() <= MIB
    kept = [sequence for _, sequence in sequences(journal)]
    assert kept[-1] == 119
    assert kept == list(range(kept[0], 120))
    journal.close()


def test_rows_that_are_not_applied_are_never_pruned_and_fill_the_journal(path):
    journal = Journal(path, hours=1, bytes_max=MIB)
    sequence = 1
    while journal.size_bytes() < MIB:
        journal.append([row(sequence, at_ms=sequence * HOUR_MS, body=b"x" * 10_000)])
        sequence += 1
    with pytest.raises(JournalFull, match="SIDECAR_JOURNAL_BYTES"):
        journal.append([row(sequence)])
    with pytest.raises(JournalFull):
        journal.append_signal("crm", "a", 0, lambda _: b"")
    assert journal.refused == 2
    kept = sequences(journal)
    assert kept == [("p", n) for n in range(1, sequence)]
    journal.prune(journal.last_row())
    assert journal.append([row(sequence)]) == 1, "room is back once the rows are applied"
    assert journal.append_signal("crm", "a", 0, lambda _: b"") == (1, False)
    journal.close()


def test_what_is_read_again_after_a_loss_is_not_pruned_to_make_room(path):
    journal = Journal(path, hours=1000, bytes_max=MIB)
    journal.append([row(n, body=b"x" * 10_000) for n in range(1, 91)])
    journal.prune(90)
    assert len(journal.after(0, 10)) == 10, "Redis lost its data, and the applier begins again"
    journal.append([row(n, body=b"x" * 10_000) for n in range(91, 111)])
    with pytest.raises(JournalFull):
        journal.append([row(111)])
    assert len(sequences(journal)) == 110
    journal.close()


def test_append_makes_room_from_rows_it_was_told_are_applied(path):
    journal = Journal(path, hours=1000, bytes_max=MIB)
    for n in range(1, 400):
        journal.append([row(n, body=b"x" * 10_000)])
        if n % 50 == 0:
            journal.prune(n)
    assert journal.refused == 0
    journal.close()


def test_a_full_disk_refuses_and_recovers(journal):
    journal.append([row(1)])
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count={pages}")  # SQLite's own way to run out of disk
    with pytest.raises(JournalFull, match="full"):
        journal.append([row(2, body=b"x" * 100_000)])
    with pytest.raises(JournalFull, match="full"):
        journal.append_signal("crm", "a", 1, lambda _: b"x" * 100_000)
    assert sequences(journal) == [("p", 1)]
    journal._connection.execute("PRAGMA max_page_count=100000")
    assert journal.append([row(2, body=b"x" * 100_000)]) == 1
    assert journal.append_signal("crm", "a", 1, lambda _: b"x" * 100_000) == (1, False)
    assert [r.previous for r in journal.after(0, 10)] == [0, 1, 0]


def test_a_file_that_cannot_be_opened_yet_refuses_everything_and_recovers(tmp_path):
    known = Journal(tmp_path / "journal.sqlite3", hours=1, bytes_max=MIB)
    known.append([row(1)])
    known.close()
    there, away = tmp_path / "journal.sqlite3", tmp_path / "away"
    there.rename(away)
    there.mkdir()  # nobody, root included, opens a directory for writing
    journal = Journal(there, hours=1, bytes_max=MIB)
    assert not journal.opened
    for call in (
        lambda: journal.append([row(2)]),
        lambda: journal.append_signal("crm", "a", 1, lambda _: b"{}"),
        lambda: journal.after(0, 10),
        lambda: journal.meta("x"),
        lambda: journal.set_meta("x", "y"),
        lambda: journal.prune(1),
    ):
        with pytest.raises(JournalFull, match="Is a directory"):
            call()
    assert journal.last_row() == 0
    provisional = journal.id
    there.rmdir()
    away.rename(there)
    with pytest.raises(JournalFull, match="only now"):
        journal.append_signal("crm", "a", 1, lambda _: b"{}")
    assert journal.opened
    assert journal.id == known.id != provisional
    assert journal.append([row(1), row(2)]) == 1
    assert journal.append_signal("crm", "a", 1, lambda _: b"{}") == (1, False)
    assert journal.recoveries == 0
    journal.close()


def test_a_directory_that_is_not_there_says_so(tmp_path):
    journal = Journal(tmp_path / "missing" / "journal.sqlite3", hours=1, bytes_max=MIB)
    with pytest.raises(JournalFull, match="No such file or directory"):
        journal.append([row(1)])


KILLED = """
import os, signal, sys
from sidecar.observer.journal import Journal, NewRow
journal = Journal(sys.argv[1], hours=1, bytes_max=1 << 24)
for n in range(1, 50):
    journal.append([NewRow("p", n, "observation", n, b"x" * 500)])
print(*journal.append_signal("crm", "a", 1, lambda number: b"%d" % number))
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_appended_outlives_kill_9(path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert killed.returncode == -9
    assert killed.stdout == "1 False\n"
    journal = Journal(path, hours=1, bytes_max=16 * MIB)
    assert [r.sequence for r in journal.after(0, 100)] == [*range(1, 50), 1]
    assert journal.append_signal("crm", "a", 1, lambda _: b"") == (1, True)
    assert journal.recovered_from is None
    journal.close()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from("pq"), st.lists(st.integers(1, 3), max_size=4)),
        st.tuples(st.just("repeat"), st.sampled_from("pq"), st.integers(0, 5)),
        st.tuples(st.just("signal"), st.sampled_from("abc"), st.none()),
        st.tuples(st.just("prune"), st.integers(0, 10), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS)
def test_any_history_keeps_each_row_once_in_an_unbroken_chain(tmp_path_factory, operations):
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite3"
    journal = Journal(path, hours=1, bytes_max=16 * MIB)
    own = journal.id
    model: list[tuple[str, int, int]] = []
    last = {"p": 0, "q": 0, own: 0}
    ids: dict[str, int] = {}
    clock = pruned = 0
    for name, what, more in operations:
        clock += HOUR_MS // 2
        if name == "append":
            fresh = []
            for step in more:
                model.append((what, last[what] + step, last[what]))
                last[what] += step
                fresh.append(row(last[what], producer=what, at_ms=clock))
            assert journal.append(fresh) == len(fresh)
        elif name == "repeat":
            assert (
                journal.append([row(n, producer=what, at_ms=clock) for n in range(last[what] - more, last[what] + 1)])
                == 0
            )
        elif name == "signal":
            duplicate = what in ids
            if not duplicate:
                model.append((own, last[own] + 1, last[own]))
                last[own] += 1
                ids[what] = last[own]
            assert journal.append_signal("crm", what, clock, lambda n: b"%d" % n) == (ids[what], duplicate)
        elif name == "prune":
            applied = min(what, len(model))
            pruned += journal.prune(applied)
            assert pruned <= max(applied, pruned)
        else:
            journal.close()
            journal = Journal(path, hours=1, bytes_max=16 * MIB)
            assert journal.id == own
    kept = journal.after(0, 10_000)
    assert [(r.producer, r.sequence, r.previous) for r in kept] == model[pruned:]
    assert [r.row for r in kept] == list(range(pruned + 1, len(model) + 1))
    assert journal.last_row() == len(model)
    journal.close()
