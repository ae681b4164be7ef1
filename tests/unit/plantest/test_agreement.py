"""The confusion matrix, against sums done by hand."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sidecar.plantest.agreement import Decision, agreement

PEOPLE = {
    "c1": "RESOLVED",
    "c2": "RESOLVED",
    "c3": "ESCALATED_TO_HUMAN",
    "c4": "UNRESOLVED",
    "c5": "RESOLVED",
    "c6": "RESOLVED",
}
DECIDED = {
    "c1": Decision("s1", "RESOLVED"),
    "c2": Decision("s2", "INCONCLUSIVE", "no activity within the timeout"),
    "c3": Decision("s3", "RESOLVED", "a tool"),
    "c4": Decision("s4", "UNRESOLVED"),
    "c5": Decision("s5", "RESOLVED"),
}


def test_by_hand():
    found = agreement(PEOPLE, DECIDED)
    assert found.matrix == {
        ("RESOLVED", "RESOLVED"): 2, ("RESOLVED", "INCONCLUSIVE"): 1, ("ESCALATED_TO_HUMAN", "RESOLVED"): 1,
        ("UNRESOLVED", "UNRESOLVED"): 1,
    }  # fmt: skip
    assert (found.compared, found.share, found.missing) == (5, 3 / 5, ("c6",))
    assert (found.precision("RESOLVED"), found.recall("RESOLVED")) == (2 / 3, 2 / 3)
    assert (found.precision("INCONCLUSIVE"), found.recall("INCONCLUSIVE")) == (0.0, None)
    assert (found.wrongly_resolved, found.wrongly_free) == (1, 1)
    assert [each.conversation for each in found.disagreements] == ["c2", "c3"]


def test_what_people_read_and_what_programs_read_say_the_same():
    found = agreement(PEOPLE, DECIDED, blank=2)
    text = "\n".join(found.lines(1))
    assert "60.0% of 5 conversations are decided as people say." in text
    assert "c2: people say RESOLVED, decided INCONCLUSIVE (no activity within the timeout), s2" in text
    assert "c3" not in text
    assert "… and 1 more" in text
    assert "not known: 1, for example c6" in text
    document = json.loads(json.dumps(found.to_dict()))
    assert document["matrix"]["RESOLVED"] == {"INCONCLUSIVE": 1, "RESOLVED": 2}
    assert (document["agreement"], document["blank"], document["missing"]) == (0.6, 2, ["c6"])
    assert len(document["disagreements"]) == 2


def test_nothing_to_compare():
    found = agreement({"c1": "RESOLVED"}, {})
    assert found.share is None
    assert "– of 0 conversations" in "\n".join(found.lines(5))


NAMES = st.sampled_from(["RESOLVED", "ESCALATED_TO_HUMAN", "INCONCLUSIVE", "QUALIFIED"])


@given(st.dictionaries(st.integers(), st.tuples(NAMES, st.none() | NAMES)))
def test_every_label_is_in_one_cell_or_missing(pairs):
    labels = {str(key): label for key, (label, _) in pairs.items()}
    decisions = {str(key): Decision("s", outcome) for key, (_, outcome) in pairs.items() if outcome}
    found = agreement(labels, decisions)
    assert found.compared + len(found.missing) == len(labels)
    off_diagonal = sum(count for (label, decided), count in found.matrix.items() if label != decided)
    assert off_diagonal == len(found.disagreements)
    for name in found.names:
        assert found.recall(name) is None or 0 <= found.recall(name) <= 1
