"""Rows of a journal, and what it has."""

from __future__ import annotations

from sidecar.observer.journal import NewRow


def row(sequence, *, producer="p", at_ms=1_000, body=b"{}", kind="observation"):
    return NewRow(producer, sequence, kind, at_ms, body)


def sequences(journal):
    return [(kept.producer, kept.sequence) for kept in journal.after(0, 1_000_000)]
