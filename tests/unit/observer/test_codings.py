from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observer.codings import RATIO_FREE_BYTES, undo_codings


def gzipped(data: bytes) -> bytes:
    """Without the time of day, so that a test's name is the same in every process."""
    return gzip.compress(data, mtime=0)


TEXT = b'{"messages": [{"role": "user", "content": "Where is my order?"}]}' * 20


zstd = zstandard.ZstdCompressor().compress
CODERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd}
every_coding = pytest.mark.parametrize(("name", "code"), CODERS.items(), ids=CODERS)


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coded", "name"),
    [
        (TEXT, None),
        (TEXT, ""),
        (TEXT, "identity"),
        (gzipped(TEXT), "gzip"),
        (gzipped(TEXT), "X-GZIP"),
        (zlib.compress(TEXT), "deflate"),
        (bare_deflate(TEXT), "deflate"),
        (gzipped(zlib.compress(TEXT)), "deflate, gzip"),
        (gzipped(TEXT[:100]) + gzipped(TEXT[100:]), "gzip"),
        (gzipped(TEXT) + b"\0\0padding", "gzip"),
        (brotli.compress(TEXT), "BR"),
        (brotli.compress(TEXT, quality=0), "br"),
        (zstd(TEXT), "zstd"),
        (zstd(TEXT[:100]) + zstd(b"") + zstd(TEXT[100:]), "zstd"),
        (zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(TEXT), "zstd"),
        (brotli.compress(zstd(gzipped(TEXT))), "gzip, zstd, br"),
    ],
)
def test_known_codings_are_undone(coded: bytes, name: str | None) -> None:
    decoded = undo_codings(coded, name)
    assert (decoded.body, decoded.complete, decoded.reason, decoded.opaque) == (TEXT, True, "", False)


def test_no_body_is_no_fault_of_the_coding() -> None:
    assert undo_codings(b"", "gzip").reason == ""
    assert undo_codings(b"", "br").complete


@pytest.mark.parametrize("name", ["dcb", "dcz", "gzip, aes128gcm", "compress"])
def test_an_unknown_coding_is_opaque(name: str) -> None:
    decoded = undo_codings(b"\x0b\x02\x80", name)
    assert (decoded.body, decoded.opaque, decoded.reason) == (b"", True, "coding_unknown")


@every_coding
@pytest.mark.parametrize("cut", [1, 5, 12, 40, -9, -1])
def test_what_came_before_a_cut_is_kept(name: str, code: Callable[[bytes], bytes], cut: int) -> None:
    decoded = undo_codings(code(TEXT)[:cut], name)
    assert not decoded.complete
    assert not decoded.opaque
    assert TEXT.startswith(decoded.body)


def gzip_flushing(parts: list[bytes]) -> bytes:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    return b"".join(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts)


def br_flushing(parts: list[bytes]) -> bytes:
    packer = brotli.Compressor()
    return b"".join(packer.process(part) + packer.flush() for part in parts)


def zstd_flushing(parts: list[bytes]) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join(packer.compress(part) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for part in parts)


@pytest.mark.parametrize(("name", "flushing"), [("gzip", gzip_flushing), ("br", br_flushing), ("zstd", zstd_flushing)])
def test_every_flushed_event_of_a_cut_stream_is_there(name: str, flushing: Callable[[list[bytes]], bytes]) -> None:
    events = [b'data: {"n": %d}\n\n' % number for number in range(300)]
    decoded = undo_codings(flushing(events), name)
    assert (decoded.body, decoded.complete) == (b"".join(events), False)


@every_coding
def test_garbage_says_so(name: str, code: Callable[[bytes], bytes]) -> None:
    decoded = undo_codings(b"this is none", name)
    assert (decoded.body, decoded.complete, decoded.reason) == (b"", False, "coding_broken")


@every_coding
def test_much_comes_out_whole(name: str, code: Callable[[bytes], bytes]) -> None:
    text = b"".join(b"%d: a line that is like the others\n" % number for number in range(60_000))
    assert undo_codings(code(text), name).body == text


def test_a_broken_checksum_is_not_a_whole_body() -> None:
    coded = bytearray(gzipped(TEXT))
    coded[-5] ^= 0xFF
    decoded = undo_codings(bytes(coded), "gzip")
    assert not decoded.complete


@every_coding
def test_a_dense_bomb_is_given_up(name: str, code: Callable[[bytes], bytes]) -> None:
    decoded = undo_codings(code(b"\0" * (RATIO_FREE_BYTES * 8)), name)
    assert (decoded.body, decoded.reason, decoded.opaque) == (b"", "body_too_dense", True)


def test_a_window_larger_than_the_standard_allows_is_not_given() -> None:
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=25, write_content_size=False)
    ).compressobj()
    coded = wide.compress(TEXT) + wide.flush()
    assert undo_codings(coded, "zstd").reason == "coding_broken"


def test_a_bomb_inside_a_bomb_is_given_up() -> None:
    inner = gzipped(b"\0" * (RATIO_FREE_BYTES * 64))
    decoded = undo_codings(gzipped(inner), "gzip, gzip")
    assert decoded.opaque


def test_size_has_a_ceiling() -> None:
    decoded = undo_codings(zlib.compress(bytes(range(256)) * 40), "deflate", decoded_bytes_max=10_000)
    assert decoded.reason == "body_too_large"


def test_nesting_has_a_ceiling() -> None:
    assert undo_codings(TEXT, "gzip, gzip, gzip, gzip").reason == "coding_nested"


@pytest.mark.parametrize(("member", "name"), [(gzipped(b""), "gzip"), (zstd(b""), "zstd")])
def test_endless_members_have_a_ceiling(member: bytes, name: str) -> None:
    assert undo_codings(member * 2_000, name).opaque


@settings(max_examples=150)
@given(
    st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "gzip, deflate", "br", "zstd", "zstd, br", ",,", "é"])
)
def test_hostile_bytes_never_raise(data: bytes, name: str) -> None:
    decoded = undo_codings(data, name)
    assert isinstance(decoded.body, bytes)


@every_coding
@settings(max_examples=60)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_a_cut_never_invents_bytes(name: str, code: Callable[[bytes], bytes], data: bytes, cut: int) -> None:
    coded = code(data)
    decoded = undo_codings(coded[:cut], name)
    assert data.startswith(decoded.body)
    assert decoded.complete == (cut >= len(coded) or cut == 0)
