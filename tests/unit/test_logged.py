"""The list of the log's lines: names that stay, sentences for people."""

from sidecar.logged import LINES, SECTIONS


def test_a_name_stands_once_and_has_a_sentence():
    assert len(LINES) == sum(map(len, SECTIONS.values()))
    assert all(said and not said.endswith(".") for said in LINES.values())
