"""What a target is: how an entry is written, how many go together, what an answer says about each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import orjson

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
MINUTE_US = 60_000_000

Act = Literal["usage", "credit", "cancel"]
# taken, duplicate: the target has it. refused: it never will. retry: later. again: at once. alone: at once, by itself.
Result = Literal["taken", "duplicate", "refused", "retry", "again", "alone"]


@dataclass(frozen=True, slots=True)
class Item:
    """One entry as a target must hear of it; `cancels` is the id of the entry that a cancellation takes back."""

    id: str
    act: Act
    code: str
    field: str
    customer: str
    quantity: Decimal
    at_us: int
    outcome_id: str
    meter: str
    cancels: str | None = None


class Sent(NamedTuple):
    """An entry whose bytes are frozen. `keys_spent`: how many keys of its requests will never bring another answer."""

    id: str
    act: Act
    body: str
    keys_spent: int = 0

    @property
    def key(self) -> str:
        """The key of the request that sends it alone: the same until the target has said its last word to it."""
        return f"{self.id}.{self.keys_spent}" if self.keys_spent else self.id


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a target is, and the secret by which it knows us."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What is posted; `path` is appended to the endpoint's URL."""

    path: str
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body, or None when it is no JSON."""
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one entry. `unstored`: the target certainly does not have it.

    `key_spent`: the target saved this answer and gives it to every request with the same key, so that only another key
    can bring another.
    """

    result: Result
    reason: str = ""
    unstored: bool = False
    key_spent: bool = False


TAKEN = Verdict("taken")
DUPLICATE = Verdict("duplicate")


@dataclass(frozen=True, slots=True)
class Traits:
    """What a vendor promises and demands; None: no bound.

    `concurrency_max` is how many requests of a replica may be on their way at once; `customer_alone` says that of one
    customer's entries for a meter only one may be, wherever it is sent from.
    `memory_us` is how long ids are remembered. `past_us` and `future_us` bound the time of an event around now.
    `cancel_us` is how long after its receipt an event can be cancelled; later, and everywhere else, an event with a
    negative quantity is the credit.
    """

    batch_max: int = 1
    concurrency_max: int = 1
    customer_alone: bool = False
    memory_us: int | None = None
    past_us: int | None = None
    future_us: int | None = None
    cancel_us: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of target. `field` names the number in an event unless a meter says another."""

    kind: str
    title: str
    url: str | None
    paths: tuple[str, ...]
    field: str
    traits: Traits
    write: Callable[[Item], str]
    request: Callable[[Endpoint, Sequence[Sent], int], Request]
    judge: Callable[[Answer, Sequence[Sent]], list[Verdict]]
    duplicates: str  # what it answers to a repetition, for people
    negative: str  # how a correction looks there, for people


def bearer(endpoint: Endpoint) -> dict[str, str]:
    """A JSON request with a bearer token."""
    return {"authorization": f"Bearer {endpoint.secret}", "content-type": "application/json"}


def joined(sent: Sequence[Sent], before: str = '{"events":[', after: str = "]}") -> bytes:
    """The frozen bytes of several entries in one list."""
    return (before + ",".join(one.body for one in sent) + after).encode()


def judged(answer: Answer, sent: Sequence[Sent]) -> list[Verdict]:
    """By status alone: what HTTP says when a target says nothing about single entries."""
    return [_by_status(answer, alone=len(sent) == 1)] * len(sent)


def _by_status(answer: Answer, *, alone: bool) -> Verdict:
    status = answer.status
    reason = f"answered {status}"
    if 200 <= status < 300:
        return TAKEN
    if status in {408, 409} or status >= 500:
        return Verdict("retry", reason)
    if status in {401, 402, 403, 404, 405, 415, 425, 429} or status < 400:
        # Refused as a whole, before anybody looked at an event: a key, an address, a limit. No event is to blame.
        return Verdict("retry", reason, unstored=True)
    reason += f": {excerpt(answer)}"
    return Verdict("refused", reason, unstored=True) if alone else Verdict("alone", reason, unstored=True)


def excerpt(answer: Answer) -> str:
    """The beginning of an answer, for people."""
    return " ".join(answer.content[:300].decode("utf-8", "replace").split())


def by_index(faults: Mapping[int, Verdict], sent: Sequence[Sent], others: Verdict) -> list[Verdict]:
    """A verdict for those that a target named by their place in the batch, and another for all others."""
    return [faults.get(index, others) for index in range(len(sent))]


# Others were to blame that the batch was thrown away.
THROWN_AWAY = Verdict("again", "others of its batch were not taken", unstored=True)
