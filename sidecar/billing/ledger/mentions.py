"""Ids that events name in their attributes: a ticket's, an order's. People look for sessions by them.

Only what looks like an id is kept: a text or whole number with a digit in it and no blank. Words like a language or a
tier would be named by every other event, and nobody looks for one session by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.events import OutcomeEvent, Posted
from sidecar.billing.ledger.append import insert, storable
from sidecar.billing.ledger.tables import mentions

LENGTHS = range(2, 129)
MENTIONS_MAX = 20  # of one event


def mentioned(attributes: Mapping[str, Any]) -> list[str]:
    """The ids among the values of attributes, and of lists in them; at most `MENTIONS_MAX`, each once."""
    found: dict[str, None] = {}
    for value in _scalars(attributes.values()):
        text = storable(str(value)) or ""
        if len(text) in LENGTHS and any(map(str.isdigit, text)) and not any(map(str.isspace, text)):
            found[text] = None
        if len(found) == MENTIONS_MAX:
            break
    return list(found)


def _scalars(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from (one for one in value if _scalar(one))
        elif _scalar(value):
            yield value


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


async def note(connection: AsyncConnection, added: Sequence[Posted]) -> None:
    """Note what new events mention. The caller's transaction adds them."""
    rows = [
        (value, one.at_us, one.event.id)
        for one in added
        if isinstance(one.event, OutcomeEvent) and one.event.data.attributes
        for value in mentioned(one.event.data.attributes)
    ]
    await insert(connection, mentions, rows)
