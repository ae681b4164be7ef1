from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observer.jsonbytes import MARKS_MAX, canonical, loads_or_none, marks, parse, too_dense

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@given(values)
def test_json_is_read_as_it_is(value: Any) -> None:
    raw = json.dumps(value).encode()
    assert (parse(raw).value, parse(raw).reason) == (value, "")
    assert loads_or_none(raw) == value


@given(values)
def test_there_are_never_more_values_than_marks(value: Any) -> None:
    def count(of: Any) -> int:
        inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else ()
        return 1 + sum(count(each) for each in inner)

    assert count(value) <= marks(orjson.dumps(value)) + 1


@pytest.mark.parametrize("raw", [b"", b"  ", b"{", b"data: {}\n\n", b'{"a": 01}', b'{"a": 1} x', b"[1,]", b"Nope"])
def test_what_is_not_json_is_none(raw: bytes) -> None:
    assert (parse(raw).value, parse(raw).reason) == (None, "json_broken")


def test_what_servers_take_though_it_breaks_the_standard_is_repaired() -> None:
    assert parse(b'{"a": "x\xff", "b": 1}').value == {"a": "x\ufffd", "b": 1}
    assert parse(rb'{"a": "cut \ud83d", "b": "\ud83d\ude00"}').value == {"a": "cut \ud83d", "b": "😀"}
    assert parse(b'{"a": -Infinity, "b": 1e999, "c": Infinity}').value == {"a": -math.inf, "b": math.inf, "c": math.inf}
    assert math.isnan(parse(b'{"a": [NaN]}').value["a"][0])
    assert parse(b'{"a": ' + b"9" * 100_000 + b"}").value == {"a": math.inf}
    for raw in (b'"\xff"', b"NaN", b'{"a": -Infinity}', rb'"\ud83d"'):
        assert parse(raw).reason == "json_repaired"


def test_broken_beyond_repair_is_broken() -> None:
    assert parse(b'{"a": NaN').reason == "json_broken"
    assert parse(b'{"a": Nobody}').reason == "json_broken"


@pytest.mark.parametrize("raw", [nested(1_025), nested(100_000), b"[" * 100_000, b'[NaN, "' + b"[" * 9 + b'", NaN]'])
def test_depth_is_bounded(raw: bytes) -> None:
    deep = raw.startswith(b"[[")
    assert parse(raw).reason == ("json_too_deep" if deep else "json_repaired")


def test_depth_is_bounded_where_a_body_is_repaired() -> None:
    assert parse(b"[NaN," + nested(100_000) + b"]").reason == "json_too_deep"


def test_the_number_of_values_is_bounded() -> None:
    most = b"[" + b"[]," * (MARKS_MAX // 2 - 1) + b"0]"
    assert marks(most) == MARKS_MAX - 1
    assert len(parse(most).value) == MARKS_MAX // 2
    over = b"[0," + most[1:-1] + b",0]"
    assert (too_dense(over), parse(over).reason) == (True, "too_many_values")
    assert not too_dense(b'"' + b"a" * 2 * MARKS_MAX + b'"')


@given(values)
def test_canonical_bytes_do_not_depend_on_the_order_of_fields(value: Any) -> None:
    turned = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert canonical(turned) == canonical(value)


def test_canonical_bytes_of_anything_that_can_be_parsed() -> None:
    deep = [orjson.loads(nested(depth)) for depth in (254, 500, 1_024)]
    assert len({canonical(each) for each in deep}) == 3
    assert canonical({"a": "cut \ud83d"}) != canonical({"a": "cut "})
    assert canonical(parse(b'{"a": NaN}').value)
