from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.head import FramingError, Head, Limits, check_begun, check_start_line, judge_preface, judge_request
from sidecar.wire.head import skip_empty_lines as skip

LIMITS = Limits()


@pytest.mark.parametrize("text", [b"GET / HT", b"GET / HTTP/1.1\r", b"A: b\r\nC", b"caf\xc3\xa9", b"\t"])
def test_legal_beginnings(text):
    check_begun(text)


@pytest.mark.parametrize("text", [b"\0", b"a\nb", b"a\rb", b"\r\r\n", b"\x7f"])
def test_illegal_beginnings(text):
    with pytest.raises(FramingError):
        check_begun(text)


def test_a_start_line_is_judged_once_it_is_whole():
    options = {"request": True, "preface": True, "limits": LIMITS}
    assert not check_start_line(b"NOT HTTP", **options)
    assert check_start_line(b"PRI * HTTP/2.0\r\n", **options)
    assert check_start_line(b"\r\nGET / HTTP/1.1\r\nX", **options)  # which need not be looked at again
    with pytest.raises(FramingError, match="request line"):
        check_start_line(b"NOT HTTP\r\n", **options)
    with pytest.raises(FramingError, match="status line"):
        check_start_line(b"GET / HTTP/1.1\r\n", request=False, preface=False, limits=LIMITS)


def test_the_preface():
    assert judge_preface(b"PRI * HTTP/2.0\r\n\r\n").method == b"PRI"
    assert judge_preface(b"GET / HTTP/1.1\r\n\r\n") is None


def test_empty_lines():
    assert [skip(data) for data in (b"", b"\r", b"\r\n", b"\r\n\r\nG", b"G\r\n")] == [0, 0, 2, 4, 0]
    assert skip(b"\r\n" * 30_000) == 16  # looked at anew with each byte that a client trickles in


def test_names_are_matched_whatever_their_case_and_only_whole():
    raw = b"GET / HTTP/1.1\r\nX-Host: 1\r\nHOST: a\r\nHostess: 2\r\nX-Content-Length: 5\r\ncOnnection: CLOSE\r\n\r\n"
    head = judge_request(raw, 0, LIMITS)
    assert head.host_span == (raw.index(b"a\r\n"), raw.index(b"a\r\n") + 1)
    assert not head.keep_alive
    assert head.length == 0


JUDGED = [
    judge_request(raw, skip(raw), LIMITS)
    for raw in (
        b"POST /v1/a HTTP/1.1\r\nHost: a\r\nContent-Length: 123 \r\nConnection: close\r\n\r\n",
        b"\r\nPUT / HTTP/1.1\r\ncontent-length:\t0045\r\nUpgrade: x\r\nConnection: upgrade\r\nhost: b \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Length: 12\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
]


def everything(head):
    return {name: getattr(head, name) for name in Head.__slots__}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_taken_for_another_length_is_judged_no_differently(data):
    """One run of bytes of a judged head is replaced, in the digits or anywhere else."""
    judged = data.draw(st.sampled_from(JUDGED))
    inside = st.integers(0, len(judged.raw) - 1)
    start = data.draw(
        st.sampled_from([judged.length_span[0], judged.length_span[1] - 1]) if judged.length_span else inside
    )
    start = data.draw(st.one_of(st.just(start), inside))
    new = data.draw(st.text("0123456789", max_size=4).map(str.encode) | st.binary(max_size=3))
    raw = judged.raw[:start] + new + judged.raw[start + len(new) :]
    again = judged.restated(raw)
    if again is not None:
        assert everything(again) == everything(judge_request(raw, skip(raw), LIMITS))


def test_another_length_of_as_many_digits_need_not_be_judged_again():
    judged = JUDGED[0]
    again = judged.restated(judged.raw.replace(b"123", b"907"))
    assert again is not None
    assert again.length == 907
    assert judged.restated(bytes(bytearray(judged.raw))) is judged
    for other in (b"000", b"12a", b"1234", b"+12", b"1 2"):
        assert judged.restated(judged.raw.replace(b"123", other)) is None
