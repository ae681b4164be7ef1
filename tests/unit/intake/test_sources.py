"""The table of vendors is complete and means what it says."""

import pytest
from vendors import EXAMPLES

from sidecar.intake.sources import SOURCES, STANDARD, source_of
from sidecar.observer.locators import compile_search

ROWS = [*SOURCES.values(), STANDARD]
EACH = pytest.mark.parametrize("source", ROWS, ids=lambda one: one.name or "standard")


def test_every_vendor_has_a_documented_example_and_every_scheme_is_used():
    signed = {example.signature.lower() for example in EXAMPLES}
    assert {scheme.signature for source in ROWS for scheme in source.schemes} == signed
    assert set(SOURCES) <= {example.source for example in EXAMPLES}


def test_an_unknown_name_speaks_standard_webhooks():
    assert source_of("outreach") is STANDARD
    assert source_of("zendesk").title == "Zendesk"


@EACH
def test_rows_cite_their_vendor_and_compile(source):
    assert source.docs
    assert all(page.startswith("https://") for page in source.docs)
    for expression in (*source.event_id, source.conversation, *filter(None, [source.score])):
        compile_search(expression)


@EACH
def test_what_is_signed_says_where_its_parts_come_from(source):
    for scheme in source.schemes:
        assert scheme.signature == scheme.signature.lower()
        assert ("{timestamp}" in scheme.message) == bool(scheme.timestamp)
        assert ("{id}" in scheme.message) == bool(scheme.id)
        assert "{body}" in scheme.message
