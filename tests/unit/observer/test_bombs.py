"""Exchanges built to exhaust the reader: memory stays bounded, something is counted, and the session is told.

Each is read in a process of its own (`bench.bombs`, which also measures the time).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
PEAK_MIB_MAX = 256

# What is counted, and whether the session is still told that everything was seen.
EXPECTED: dict[str, tuple[set[str], bool]] = {
    "JSON 100,000 deep": ({"json_too_deep"}, False),
    "tool arguments 1,000 deep": (set(), True),
    "tool arguments 100,000 deep in a string": (set(), True),
    "million empty lists": ({"too_many_values", "opaque"}, False),
    "million objects of one field": ({"too_many_values", "opaque"}, False),
    "object of a million fields": ({"too_many_values", "opaque"}, False),
    "million messages": ({"too_many_values", "opaque"}, False),
    "one message of half a million parts": (set(), True),
    "number of eight million digits": ({"json_repaired"}, True),
    "fraction of eight million digits": (set(), True),
    "NaN after eight million bytes": ({"json_repaired"}, True),
    "bad UTF-8": ({"json_repaired"}, True),
    "half characters": ({"json_repaired"}, True),
    "broken JSON": ({"json_broken"}, False),
    "gzip of 64 MiB": ({"body_too_dense", "opaque"}, False),
    "gzip in gzip in gzip": ({"body_too_dense", "opaque"}, False),
    "br of 64 MiB": ({"body_too_dense", "opaque"}, False),
    "zstd of 64 MiB": ({"body_too_dense", "opaque"}, False),
    "gzip of 64 MiB of text": ({"body_too_large", "opaque"}, False),
    "gzip of many members": ({"coding_nested", "opaque"}, False),
    "zstd of many frames": ({"coding_nested", "opaque"}, False),
    "codings without end": ({"coding_nested", "opaque"}, False),
    "gzip of a million empty lists": ({"body_too_dense", "opaque"}, False),
    "SSE without a line end": ({"answer_unended"}, True),
    "SSE without a line end, gzip": ({"answer_too_long"}, False),
    "SSE without an event's end": ({"answer_too_long"}, False),
    "SSE of empty lines": ({"answer_too_long"}, False),
    "SSE of empty events": ({"answer_too_long"}, False),
    "SSE of events for ever": ({"answer_unended"}, False),
    "SSE of half characters": ({"answer_too_long"}, False),
    "SSE of a choice each": ({"answer_too_long"}, False),
    "SSE of a tool call each": ({"answer_too_long"}, False),
    "growing array of nothing": ({"too_many_values", "opaque"}, False),
    "growing array of one string": ({"answer_unended", "json_broken"}, False),
    "growing array of empty parts": ({"too_many_values", "opaque"}, False),
    "NDJSON of numbers": ({"answer_too_long"}, False),
    "AWS messages of nothing": ({"answer_unended"}, True),
    "AWS chunks of a million empty lists": ({"answer_too_long"}, False),
}


@pytest.fixture(scope="module")
def blasts() -> dict[str, Any]:
    argv = [sys.executable, "-m", "bench.bombs"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True, timeout=110)
    return {blast["name"]: blast for line in ran.stdout.splitlines() for blast in [json.loads(line)]}


def test_every_bomb_is_expected(blasts: dict[str, Any]) -> None:
    assert list(blasts) == list(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_bomb(blasts: dict[str, Any], name: str) -> None:
    blast = blasts[name]
    assert blast["peak_mib"] < PEAK_MIB_MAX
    assert (set(blast["counts"]), blast["complete"]) == EXPECTED[name]
    assert blast["api"] is not None  # it is still activity of the session that its head names
