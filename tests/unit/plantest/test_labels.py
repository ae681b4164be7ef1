"""Labels as CRMs export them."""

from __future__ import annotations

import pytest

from sidecar.plantest.labels import LabelsError, read_labels


def labels(text, **options):
    return dict(read_labels(text.encode(), "l.csv", **options).by_conversation)


@pytest.mark.parametrize(
    "text",
    [
        "conversation,outcome\nc-1,RESOLVED\nc-2,ESCALATED_TO_HUMAN\n",
        "\ufeffConversation_ID;Agent;Label\r\nc-1;ann;resolved\r\n\r\nc-2;bob;Escalated to human\r\n",
        'id\tresult\nc-1\tResolved\n"c-2"\tescalated_to_human',
    ],
)
def test_separators_columns_and_cases(text):
    assert labels(text) == {"c-1": "RESOLVED", "c-2": "ESCALATED_TO_HUMAN"}


def test_columns_and_words_of_ones_own():
    text = "Chat,Verdict\nc-1,solved\nc-2,No\n"
    renamed = {"Solved": "RESOLVED", "no": "UNRESOLVED"}
    options = {"conversation": "chat", "outcome": "Verdict", "renamed": renamed}
    assert labels(text, **options) == {"c-1": "RESOLVED", "c-2": "UNRESOLVED"}


def test_rows_that_say_nothing_are_counted_and_copies_are_fine():
    found = read_labels(b"conversation,outcome\nc-1,\n,RESOLVED\nc-2,RESOLVED\nc-2,resolved\nc-3\n", "l.csv")
    assert (dict(found.by_conversation), found.blank) == ({"c-2": "RESOLVED"}, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("c-1,RESOLVED\n", "no column one of conversation, conversation_id"),
        ("conversation,verdict\nc-1,x\n", "name it with --outcome-column"),
        ("", "columns: none"),
        (
            "conversation,outcome\nc-1,RESOLVED\nc-1,UNRESOLVED\n",
            "l.csv:3: 'c-1' is UNRESOLVED here and RESOLVED on line 2",
        ),
    ],
)
def test_what_cannot_be_used_is_said_with_its_line(text, words):
    with pytest.raises(LabelsError) as caught:
        labels(text)
    assert words in str(caught.value)


def test_a_column_that_is_not_there_is_suggested():
    with pytest.raises(LabelsError, match="did you mean verdict"):
        labels("conversation,verdict\n", outcome="verdct")


def test_other_encodings_are_named():
    with pytest.raises(LabelsError, match="not UTF-8 at byte 21"):
        read_labels(b"conversation,outcome\n\xe9,RESOLVED", "l.csv")
