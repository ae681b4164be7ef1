"""Requests that two HTTP parsers may read differently, which is what request smuggling lives on.

`BAD_HEADS` must be refused before a byte reaches an origin. `BAD_BODIES` have a good head; their body must never look
complete to an origin. `GOOD` are legal oddities: they pass, and end where they say.
"""

_POST = b"POST /a HTTP/1.1\r\nHost: a\r\n"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def _te(field):
    """Chunked by one reading, of no length by another; a request hides behind it."""
    return _POST + field + b"\r\n\r\n0\r\n\r\n" + _SMUGGLED


def _cl(field):
    return _POST + field + b"\r\n\r\nhello" + _SMUGGLED


def _get(field):
    return b"GET /a HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n"


def _line(line):
    return line + b"\r\nHost: a\r\n\r\n"


_CHUNKED = b"Transfer-Encoding: chunked"

BAD_HEADS = {
    "CL.TE": _te(b"Content-Length: 5\r\n" + _CHUNKED),
    "TE.CL": _te(_CHUNKED + b"\r\nContent-Length: 5"),
    "CL.0 beside TE": _te(b"Content-Length: 0\r\n" + _CHUNKED),
    "TE: xchunked": _te(b"Transfer-Encoding: xchunked"),
    "TE: chunkedx": _te(b"Transfer-Encoding: chunkedx"),
    "TE in quotes": _te(b'Transfer-Encoding: "chunked"'),
    "TE with a parameter": _te(_CHUNKED + b";q=1"),
    "TE, space before the colon": _te(b"Transfer-Encoding : chunked"),
    "TE, tab before the colon": _te(b"Transfer-Encoding\t: chunked"),
    "TE, space before the name": _te(b" Transfer-Encoding: chunked"),
    "TE, LF before the colon": _te(b"Transfer-Encoding\n: chunked"),
    "TE, vertical tab": _te(b"Transfer-Encoding: \x0bchunked"),
    "TE, form feed": _te(b"Transfer-Encoding: \x0cchunked"),
    "TE, tab behind": _te(_CHUNKED + b"\t"),
    "TE, NUL behind": _te(_CHUNKED + b"\x00"),
    "TE, DEL behind": _te(_CHUNKED + b"\x7f"),
    "TE, no-break space": _te(b"Transfer-Encoding: \xa0chunked"),
    "TE folded": _te(b"Transfer-Encoding:\r\n chunked"),
    "TE folded with a tab": _te(b"Transfer-Encoding:\r\n\tchunked"),
    "TE behind a bare LF": _te(b"X: x\nTransfer-Encoding: chunked"),
    "TE behind a bare CR": _te(b"X: x\rTransfer-Encoding: chunked"),
    "TE: chunked twice": _te(b"Transfer-Encoding: chunked, chunked"),
    "two TE fields": _te(_CHUNKED + b"\r\n" + _CHUNKED),
    "TE: chunked, then identity": _te(b"Transfer-Encoding: chunked, identity"),
    "two TE fields, the last not chunked": _te(_CHUNKED + b"\r\nTransfer-Encoding: gzip"),
    "TE: cow, then chunked": _te(b"Transfer-Encoding: cow, chunked"),
    "TE: identity": _te(b"Transfer-Encoding: identity"),
    "TE: gzip alone": _te(b"Transfer-Encoding: gzip"),
    "empty lines without end": b"\r\n" * 200 + _get(b"X: a"),
    "empty TE": _te(b"Transfer-Encoding:"),
    "TE: a comma": _te(b"Transfer-Encoding: ,"),
    "TE in HTTP/1.0": b"POST /a HTTP/1.0\r\nHost: a\r\n" + _CHUNKED + b"\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "CL twice, different": _cl(b"Content-Length: 5\r\nContent-Length: 6"),
    "CL twice, the same": _cl(b"Content-Length: 5\r\nContent-Length: 5"),
    "CL twice, other case": _cl(b"Content-Length: 5\r\ncontent-LENGTH: 0"),
    "CL list": _cl(b"Content-Length: 5, 5"),
    "CL with a sign": _cl(b"Content-Length: +5"),
    "CL below zero": _cl(b"Content-Length: -5"),
    "CL in hexadecimal": _cl(b"Content-Length: 0x5"),
    "CL with an underscore": _cl(b"Content-Length: 0_5"),
    "CL with a fraction": _cl(b"Content-Length: 5.0"),
    "CL with an exponent": _cl(b"Content-Length: 5e0"),
    "CL of two words": _cl(b"Content-Length: 5 6"),
    "CL empty": _cl(b"Content-Length:"),
    "CL huge": _cl(b"Content-Length: 18446744073709551621"),
    "CL, space before the colon": _cl(b"Content-Length : 5"),
    "CL folded": _cl(b"Content-Length:\r\n 5"),
    "CL behind a NUL": _cl(b"Content-Length: \x005"),
    "CL behind a bare CR": _cl(b"X: x\rContent-Length: 5"),
    "obs-fold": _get(b"X: a\r\n b"),
    "obs-fold of the first line": b"GET /a HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare LF lines": b"GET /a HTTP/1.1\nHost: a\n\n",
    "bare LF at the end": b"GET /a HTTP/1.1\r\nHost: a\r\n\n",
    "CR CR LF": _get(b"X: a\r"),
    "NUL in a value": _get(b"X: a\x00b"),
    "CR in a value": _get(b"X: a\rb"),
    "LF in a value": _get(b"X: a\nb: c"),
    "SOH in a value": _get(b"X: a\x01b"),
    "NUL in a name": _get(b"X\x00: a"),
    "a name with a space": _get(b"X Y: a"),
    "a name in UTF-8": _get(b"X\xc3\xa9: a"),
    "no name": _get(b": a"),
    "no colon": _get(b"nothing"),
    "two Hosts": _get(b"Host: b"),
    "two spaces": _line(b"GET  /a HTTP/1.1"),
    "a tab": _line(b"GET\t/a HTTP/1.1"),
    "a space behind": _line(b"GET /a HTTP/1.1 "),
    "a space before": _line(b" GET /a HTTP/1.1"),
    "a space in the target": _line(b"GET /a b HTTP/1.1"),
    "NUL in the target": _line(b"GET /a\x00 HTTP/1.1"),
    "CR in the target": _line(b"GET /a\rb HTTP/1.1"),
    "no target": _line(b"GET HTTP/1.1"),
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "HTTP/1.2": _line(b"GET /a HTTP/1.2"),
    "HTTP/2.0": _line(b"GET /a HTTP/2.0"),
    "HTTP/01.1": _line(b"GET /a HTTP/01.1"),
    "http/1.1": _line(b"GET /a http/1.1"),
    "a method that is no token": _line(b"G@T /a HTTP/1.1"),
    "a response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


def _chunks(body):
    return _POST + _CHUNKED + b"\r\n\r\n" + body + _SMUGGLED


BAD_BODIES = {
    "size in C": _chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "size with a sign": _chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "size below zero": _chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
    "size with an underscore": _chunks(b"0_5\r\nhello\r\n0\r\n\r\n"),
    "size with a space before": _chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
    "size with a tab behind": _chunks(b"5\t\r\nhello\r\n0\r\n\r\n"),
    "size that is no number": _chunks(b"z\r\nhello\r\n0\r\n\r\n"),
    "no size": _chunks(b"\r\nhello\r\n0\r\n\r\n"),
    "size behind an extension": _chunks(b";a\r\nhello\r\n0\r\n\r\n"),
    "size beyond 64 bits": _chunks(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "size line ends in LF": _chunks(b"5\nhello\r\n0\r\n\r\n"),
    "size line ends in CR": _chunks(b"5\rhello\r\n0\r\n\r\n"),
    "LF in an extension": _chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "CR in an extension": _chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "NUL in an extension": _chunks(b"5;a\x00\r\nhello\r\n0\r\n\r\n"),
    "longer than its size": _chunks(b"5\r\nhelloo\r\n0\r\n\r\n"),
    "shorter than its size": _chunks(b"5\r\nhell\r\n0\r\n\r\n"),
    "data ends in LF": _chunks(b"5\r\nhello\n0\r\n\r\n"),
    "data ends in CR": _chunks(b"5\r\nhello\r0\r\n\r\n"),
    "last chunk ends in LF": _chunks(b"5\r\nhello\r\n0\n\n"),
    "the end is a bare LF": _chunks(b"0\r\n\n"),
    "trailer ends in LF": _chunks(b"0\r\nX: a\n\r\n"),
    "trailer folded": _chunks(b"0\r\nX: a\r\n b\r\n\r\n"),
    "trailer without a name": _chunks(b"0\r\n: a\r\n\r\n"),
    "trailer with a space before the colon": _chunks(b"0\r\nX : a\r\n\r\n"),
    "NUL in a trailer": _chunks(b"0\r\nX: a\x00\r\n\r\n"),
    "a request in place of a trailer": _chunks(b"0\r\n"),
}

GOOD = {
    "absolute-form": b"GET http://elsewhere.example:81/x?y HTTP/1.1\r\nHost: other.example\r\n\r\n",
    "absolute-form of another scheme": b"GET https://elsewhere.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a Host that is an address": b"GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
    "a Host with a path": b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n",
    "a target with userinfo": b"GET http://user@169.254.169.254/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target of two slashes": b"GET //elsewhere.example/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "X-Forwarded-Host": b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: b\r\nForwarded: host=c\r\n\r\n",
    "a tab before chunked, spaces behind": _POST
    + b"Transfer-Encoding:\tchunked  \r\n\r\n2;x\r\nok\r\n0\r\nT: 1\r\n\r\n",
    "chunks in capitals": _POST + b"transfer-encoding: CHUNKED\r\n\r\n00A\r\n0123456789\r\n000\r\n\r\n",
    "gzip, chunked": _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "zeros before a length": _POST + b"Content-Length: 0005\r\n\r\nhello",
    "a body that looks like a request": _POST + b"Content-Length: %d\r\n\r\n" % len(_SMUGGLED) + _SMUGGLED,
}
