from __future__ import annotations

import pytest

from sidecar.wire.chunks import BadChunkError, ChunkScanner
from sidecar.wire.head import Limits

BODY = b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n"


def test_the_end_is_found_within_a_piece():
    scanner = ChunkScanner(Limits())
    assert scanner.scan(BODY + b"GET /", 0) == len(BODY)
    assert scanner.done


@pytest.mark.parametrize("cut", range(1, len(BODY)))
def test_the_end_is_found_behind_any_cut(cut):
    scanner = ChunkScanner(Limits())
    assert scanner.scan(BODY[:cut], 0) == cut
    assert not scanner.done
    rest = BODY[cut:]
    assert scanner.scan(rest + b"more", 0) == len(rest)
    assert scanner.done


def test_scanning_starts_where_it_is_told():
    scanner = ChunkScanner(Limits())
    assert scanner.scan(b"head" + BODY, 4) == 4 + len(BODY)


def test_an_error_says_at_which_byte():
    with pytest.raises(BadChunkError, match="longer than its size") as caught:
        ChunkScanner(Limits()).scan(b"2\r\nabc\r\n", 0)
    assert caught.value.at == 5
