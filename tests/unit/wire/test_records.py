from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.records import HEADER_BYTES, Kind, pack_gap, pack_header, padded, unpack_gap, unpack_header

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
U16 = st.integers(0, 2**16 - 1)
FIELDS = st.tuples(U32, U64, U64, U64, st.sampled_from([int(kind) for kind in Kind]), U16, U16)


@given(position=st.integers(0, 2**63), fields=FIELDS)
def test_a_header_reads_back(position, fields):
    raw = pack_header(position, *fields)
    assert len(raw) == HEADER_BYTES
    assert unpack_header(raw, position) == fields


@given(fields=FIELDS, byte=st.integers(0, HEADER_BYTES - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(fields, byte, bit):
    raw = bytearray(pack_header(64, *fields))
    raw[byte] ^= 1 << bit
    assert unpack_header(bytes(raw), 64) is None


@given(position=st.integers(0, 2**31), laps=st.integers(1, 20), fields=FIELDS)
def test_a_header_of_an_earlier_lap_is_not_taken_for_this_one(position, laps, fields):
    assert unpack_header(pack_header(position, *fields), position + laps * 65_536) is None


@pytest.mark.parametrize("raw", [b"", b"x" * (HEADER_BYTES - 1), b"x" * (HEADER_BYTES + 1), bytes(HEADER_BYTES)])
def test_what_is_no_header_is_none(raw):
    assert unpack_header(raw, 0) is None


@given(records=U64, size=U64)
def test_a_gap_reads_back(records, size):
    assert unpack_gap(pack_gap(records, size)) == (records, size)


def test_a_gap_of_another_size_says_so():
    with pytest.raises(ValueError, match="16 bytes, not 3"):
        unpack_gap(b"abc")


def test_payloads_are_padded_to_eight():
    assert [padded(n) for n in (0, 1, 7, 8, 9)] == [0, 8, 8, 8, 16]
