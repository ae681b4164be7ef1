"""What is printed: columns that are never cut, nothing that moves a cursor, colour where it is wanted."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.cli import show


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "wanted"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),  # no-color.org: when present and not empty
        (Terminal(), {"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals_that_have_them(stream, environ, wanted, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert show.coloured(stream) is wanted
    assert ("\x1b[" in show.paint("x", "red", stream)) is wanted


@given(st.text())
def test_a_cell_is_one_line_of_visible_text(text):
    cell = show.plain(text)
    assert cell.isprintable()
    assert len(cell) == max(len(text), 1)


def test_rows_are_aligned_and_long_values_are_whole(capsys):
    rows = [("a", 1, "RESOLVED"), ("b" * 90, 1234567, "x")]
    assert show.print_table(("NAME", "NUMBER", "STATE"), rows, right=("NUMBER",)) == 2
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.index("STATE") == first.index("RESOLVED") == second.index("x")
    assert head.index("NUMBER") + len("NUMBER") == first.index("1") + 1
    assert second.startswith("b" * 90)


def test_rows_without_end_are_printed_as_they_come(capsys):
    printed = []

    def rows():
        for number in range(1000):
            printed.append(len(capsys.readouterr().out))
            yield (number,)

    show.print_table(("N",), rows())
    assert sum(printed[:400]) > 0, "the first are there before the last"


def test_instants_are_shown_to_the_millisecond():
    assert show.moment("2026-11-22T10:00:00.123456Z") == "2026-11-22T10:00:00.123Z"
    assert show.moment("2026-11-22T10:00:00Z") == "2026-11-22T10:00:00Z"


@pytest.mark.parametrize(
    ("encoding", "document", "printed"),
    [
        ("utf-8", {"reason": "é 😀"}, "é 😀"),
        ("utf-8", {"reason": "half \ud83d"}, "half \\ud83d"),
        ("ascii", {"reason": "é"}, "\\u00e9"),
    ],
)
@pytest.mark.parametrize("print_it", [show.print_json, show.print_line])
def test_json_is_printed_whatever_stdout_can_carry(encoding, document, printed, print_it, monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(show.sys, "stdout", stdout)
    print_it(document)
    stdout.flush()
    text = stdout.buffer.getvalue().decode(encoding)
    assert f'"{printed}"' in text
    assert json.loads(text) == document
