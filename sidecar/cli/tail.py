"""`sidecar tail`: sessions as they move, or what reaches the ledger as it does, one line each, until Ctrl-C.

Nothing is pushed: each source is asked again and again for what came after its last answer, so that one that is away
for a while, or starts again, is simply asked later. Bounded: pages of an answer, ids remembered, amounts asked for.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from heapq import merge
from typing import TYPE_CHECKING, Any

from sidecar.cli.grammar import (
    ADMIN_ENVIRONMENT,
    BILLING_ENVIRONMENT,
    OK,
    WRONG_USAGE,
    CommandError,
    add_admin,
    add_json,
    command,
)
from sidecar.cli.show import NOTHING, STATE_COLOURS, count, paint, plain, print_line

if TYPE_CHECKING:
    from sidecar.cli.api import Api

PAGE = 1000
FEW = 20  # rows of the ledger that a look asks for first: mostly there is nothing new
PAGES_MAX = 20  # of one look: what is older is told of as left out
SEEN_MAX = 2 * PAGE
AMOUNTS_MAX = 100  # of one look; past it rows come without
AWAY_SECONDS_MAX = 15.0
Event = dict[str, Any]
_DAYS_MAX = 36_500
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# Wide enough for most; a longer value moves its own line alone.
WIDTHS = {"time": 20, "session": 44, "customer": 16, "state": 18, "amount": 12}


def add(commands: Any) -> None:
    """The command."""
    tail = command(
        commands,
        "tail",
        "live sessions and outcomes, one line each",
        "Follows the sessions of a running sidecar's tenant as they open, resolve, escalate, settle and are reversed, "
        "on whichever replica. Never shows what anybody said in them. Ctrl-C ends it, with a sum on stderr.\n\n"
        "With --billing it follows the ledger: outcomes and operators' decisions as they arrive, each with what it "
        "changed on invoices then, below zero when it took something back. The sum is that of the lines shown: how far "
        "the invoices moved. It leaves out lines without an amount, of which it says the number, and what changes of "
        "plans and of customers' facts do to invoices: amounts are by those of now.",
        _tail,
        examples=(
            ("sidecar tail", "sessions, from now on"),
            ("sidecar tail --billing --since 1h", "the ledger, from an hour ago on"),
            ("sidecar tail --customer acme --json | jq .state", "for programs: one JSON object a line"),
        ),
        environment=(*ADMIN_ENVIRONMENT, *BILLING_ENVIRONMENT),
        shape='{"source", "time", "session_id", "conversation", "customer", "state", "reason", '
        '"revision", "held", "shadow", "outcome_id", "decision": {"kind", "actor"}, or null, "amounts": [{"period", '
        '"currency", "amount"}], or null}, one a line; source is sidecar or billing; of a sidecar, outcome_id and '
        "amounts are null; of a decision, conversation, state and revision are",
    )
    tail.add_argument(
        "--billing",
        nargs="?",
        const="",
        metavar="URL",
        help="follow the ledger of this billing API (without a URL: the environment's) instead of a sidecar",
    )
    tail.add_argument("--customer", metavar="ID", help="only this customer's")
    tail.add_argument(
        "--since",
        type=ago,
        metavar="1h",
        help="begin so long ago (90s, 10m, 1h, 1d), or at a time like 2026-11-22T10:00:00Z",
    )
    tail.add_argument("--interval", type=seconds, default=1.0, metavar="SECONDS", help="between two looks (default 1)")
    tail.add_argument("--no-follow", action="store_true", help="end when all that there is has been shown")
    add_admin(tail)
    add_json(tail, lines=True)


def ago(text: str) -> timedelta | datetime:
    """A stretch of time, or an instant."""
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        stretch = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        if stretch.days > _DAYS_MAX:  # an instant that long ago may be before the first that there is
            raise argparse.ArgumentTypeError(f"{text!r} is too long: write at most {_DAYS_MAX}d")
        return stretch
    found = None
    with suppress(ValueError, OverflowError):  # close to the years 1 and 9999 UTC has no name for an instant
        instant = datetime.fromisoformat(text)
        found = instant.astimezone(UTC) if instant.tzinfo else None
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write a stretch like 10m or a time like 2026-11-22T10:00:00Z")
    return found


def seconds(text: str) -> float:
    """How long to wait."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds from 0.1 to 3600")
    return number


class Sessions:
    """Moves of sessions, from the admin API."""

    def __init__(self, api: Api, since: datetime | None) -> None:
        self._api = api
        self._after = None if since is None else f"{max(int(since.timestamp() * 1000) - 1, 0)}-0"

    def look(self) -> Iterator[Event]:
        """What has happened since the last look, oldest first; the first one, without a beginning, shows nothing."""
        if self._after is None:
            self._after = self._api.get("/v1/events", limit=1)["next"]
            return
        for _ in range(PAGES_MAX):
            page = self._api.get("/v1/events", after=self._after, limit=PAGE)
            yield from map(self._event, page["events"])
            self._after = page["next"]
            if len(page["events"]) < PAGE:
                return

    @staticmethod
    def _event(move: dict[str, Any]) -> Event:
        names = ("session_id", "conversation", "customer", "state", "reason", "revision", "held", "shadow")
        told = {name: move[name] for name in names}
        return {"source": "sidecar", "time": move["at"], **told, "outcome_id": None, "decision": None, "amounts": None}


class Feed:
    """Entries of the billing API that come newest first, page by page; each is told once, when it is told that it was.

    `identity` are the names of what tells two entries apart, `time` the name of when one came.
    """

    def __init__(self, path: str, identity: tuple[str, ...], time: str) -> None:
        self._path = path
        self._identity = identity
        self._time = time
        self._seen: deque[tuple[Any, ...]] = deque(maxlen=SEEN_MAX)  # those that came last
        self.first = True

    def at(self, entry: dict[str, Any]) -> datetime:
        """When it came."""
        return datetime.fromisoformat(entry[self._time])

    def new(self, api: Api, since: datetime | None, customer: str | None) -> list[dict[str, Any]]:
        """Oldest first, those after one that was seen; at the first look those since then, without a time none."""
        found: list[dict[str, Any]] = []
        seen = set(self._seen)
        for entry in self._newest(api, customer, 1 if self.first and since is None else min(FEW, PAGE)):
            if self._name(entry) in seen:
                break
            if self.first and (since is None or self.at(entry) < since):
                if not found:
                    self.saw(entry)
                break
            found.append(entry)
        return found[::-1]

    def saw(self, entry: dict[str, Any]) -> None:
        """It was shown, so it is not told again."""
        self._seen.append(self._name(entry))

    def _name(self, entry: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(entry[name] for name in self._identity)

    def _newest(self, api: Api, customer: str | None, limit: int) -> Iterator[dict[str, Any]]:
        after, left = None, PAGES_MAX * PAGE
        while left:
            page = api.get(self._path, customer=customer, after=after, limit=limit)
            yield from page[self._path.rpartition("/")[2]]
            after = page["next"]
            if after is None:
                return
            left -= limit
            limit = min(PAGE, left)
        print(f"sidecar: more than {PAGES_MAX * PAGE:,} rows at once: those before are left out", file=sys.stderr)


class Ledger:
    """Outcomes and decisions about them, from the billing API, each with what it changed on invoices when it came."""

    def __init__(self, api: Api, since: datetime | None, customer: str | None) -> None:
        self._api = api
        self._since = since
        self._customer = customer
        # Decisions are asked for first, so that no outcome is shown after what was decided about it.
        self._decisions = Feed("/v1/decisions", ("outcome", "number"), "decided_at")
        self._outcomes = Feed("/v1/outcomes", ("id",), "received_at")

    def look(self) -> Iterator[Event]:
        """Likewise. An entry is seen when it is shown, so that none is lost when an answer fails half-way."""
        feeds = (self._decisions, self._outcomes)
        decided, came = ([(feed, one) for one in feed.new(self._api, self._since, self._customer)] for feed in feeds)
        for number, (feed, entry) in enumerate(merge(came, decided, key=lambda pair: pair[0].at(pair[1]))):
            tell = self._outcome if feed is self._outcomes else self._decision
            yield tell(entry, with_amount=number < AMOUNTS_MAX)
            feed.saw(entry)
        for feed in feeds:
            feed.first = False

    def _outcome(self, row: dict[str, Any], *, with_amount: bool) -> Event:
        amounts = self._shown(row["id"])["changed"] if with_amount else None
        names = ("session_id", "conversation", "customer", "state")
        told = {name: row[name] for name in names}
        told |= {"reason": row["event"]["data"].get("reason") or ""}
        told |= {name: row[name] for name in ("revision", "held", "shadow")}
        told |= {"outcome_id": row["id"], "decision": None, "amounts": amounts}
        return {"source": "billing", "time": row["received_at"], **told}

    def _decision(self, entry: dict[str, Any], *, with_amount: bool) -> Event:
        amounts = None
        if with_amount:
            ruled = {(one["outcome"], one["number"]): one for one in self._shown(entry["outcome"])["decisions"]}
            amounts = ruled[entry["outcome"], entry["number"]]["changed"]
        told = {
            "session_id": entry["session_id"],
            "conversation": None,
            "customer": entry["assigned"] or entry["customer"],
        }
        told |= {"state": None, "reason": entry["reason"], "revision": None, "held": False, "shadow": False}
        told |= {"outcome_id": entry["outcome"], "decision": {name: entry[name] for name in ("kind", "actor")}}
        return {"source": "billing", "time": entry["decided_at"], **told, "amounts": amounts}

    def _shown(self, outcome: str) -> dict[str, Any]:
        from sidecar.cli.api import segment

        return dict(self._api.get(f"/v1/outcomes/{segment(outcome)}"))


class Sum:
    """What was shown: events by state, decisions by kind, and money by currency."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.money: dict[str, Decimal] = {}
        self.without = 0

    def add(self, event: Event) -> None:
        """Count one."""
        self.states[_what(event)] += 1
        if event["source"] == "billing" and event["amounts"] is None:
            self.without += 1
        for one in event["amounts"] or ():
            self.money[one["currency"]] = self.money.get(one["currency"], Decimal()) + Decimal(one["amount"])

    def text(self) -> str:
        """One line."""
        states = ", ".join(f"{number:,} {state}" for state, number in sorted(self.states.items()))
        said = [count(self.states.total(), "event") + (f": {states}" if states else "")]
        said += [f"{amount:+f} {code}" for code, amount in sorted(self.money.items())]
        said += [f"{self.without:,} without their amount, which the sum leaves out"] if self.without else []
        return "; ".join(said)


def _what(event: Event) -> str:
    """The state that a session came into, or what was decided."""
    return str(event["decision"]["kind"] if event["decision"] else event["state"])


def line(event: Event) -> str:
    """One event for people: time, session, customer, state or decision, reason, amount."""
    amounts = event["amounts"]
    money = NOTHING if amounts is None else ", ".join(f"{one['amount']} {one['currency']}" for one in amounts) or "0"
    state, decision = _what(event), event["decision"]
    notes = [name for name in ("held", "shadow") if event[name]]
    notes += [f"revision {event['revision']}"] if event["revision"] else []
    said = f"{decision['actor']}: {event['reason']}" if decision else event["reason"]
    reason = plain(said) + (f" ({', '.join(notes)})" if notes else "")
    cells = (
        event["time"][:19] + "Z",
        plain(event["session_id"]),
        plain(event["customer"] or "unattributed"),
        state,
    )
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS.values(), strict=False)]
    padded[3] = padded[3].replace(state, paint(state, STATE_COLOURS.get(state)))
    shown = [*padded, money.rjust(WIDTHS["amount"])] if event["source"] == "billing" else padded
    return "  ".join([*shown, reason]).rstrip()


def _tail(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    since = arguments.since
    if isinstance(since, timedelta):
        since = datetime.fromtimestamp(time.time(), UTC) - since
    if arguments.billing is not None and arguments.admin is not None:
        raise CommandError("give either --admin or --billing: each is followed apart", code=WRONG_USAGE)
    total = Sum()
    ledger = arguments.billing is not None
    with api.billing(arguments.billing) if ledger else api.admin(arguments.admin) as asked:
        source = Ledger(asked, since, arguments.customer) if ledger else Sessions(asked, since)
        try:
            _follow(source.look, arguments, total)
        except KeyboardInterrupt:
            print(file=sys.stderr)
        print(total.text(), file=sys.stderr)
    return OK


def _follow(look: Callable[[], Iterator[Event]], arguments: argparse.Namespace, total: Sum) -> None:
    """Look again and again. What has answered once, or says that it will later, is asked for as long as it takes."""
    from sidecar.cli.api import AwayError

    away_seconds, begun = 0.0, False
    while True:
        try:
            for event in look():
                if arguments.customer in {None, event["customer"]}:
                    total.add(event)
                    if arguments.json:
                        print_line(event)
                    else:
                        print(line(event), flush=True)
        except CommandError as error:
            if arguments.no_follow or not (begun or isinstance(error, AwayError)):
                raise
            if not away_seconds:
                print(f"sidecar: {error.lines[0]}; it is asked again and again", file=sys.stderr)
            away_seconds = min(max(2 * away_seconds, arguments.interval), AWAY_SECONDS_MAX)
            time.sleep(away_seconds)
            continue
        if arguments.no_follow and (begun or arguments.since is not None):
            return
        begun, away_seconds = True, 0.0
        time.sleep(arguments.interval)
