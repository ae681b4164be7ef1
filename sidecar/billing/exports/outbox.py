"""Claiming entries that are due, and writing down what was answered; several replicas share the work.

A claim expires: whoever dies with one leaves its entries to the others, who send the same ids and bytes again. Before
anything is sent, the claim's transaction has frozen the bytes and noted that the target may have them from now on.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.exports.config import Destination
from sidecar.billing.exports.gate import CAUSES, Park, Wait, act_of, after, gate
from sidecar.billing.exports.sums import Move, move
from sidecar.billing.exports.tables import export_events
from sidecar.billing.exports.target import Item, Sent, Verdict
from sidecar.billing.ledger.catalog import read_customers
from sidecar.billing.ledger.database import Database

CLAIM_US = 90_000_000  # longer than a request may take
_CLAIMING = 0x5EED << 32  # an advisory lock for each target, far from those of the ledger
_E = export_events


@dataclass(frozen=True, slots=True)
class Claimed:
    """An entry that is ours to send; `unsure_before` is what was known before this attempt."""

    row: Mapping[str, Any]
    sent: Sent
    unsure_before: int | None


def _due(destination: Destination, now_us: int) -> Any:
    """Waiting, due, and with every earlier entry about the same outcome acknowledged: corrections follow.

    Where a customer's entries go alone, also with none of them on its way.
    """
    earlier = _E.alias("earlier")
    open_before = (
        select(earlier.c.seq)
        .where(
            earlier.c.outcome_id == _E.c.outcome_id,
            earlier.c.target == _E.c.target,
            earlier.c.meter == _E.c.meter,
            earlier.c.number < _E.c.number,
            earlier.c.state != "acknowledged",
        )
        .exists()
    )
    due = and_(
        _E.c.target == destination.name,
        _E.c.meter.in_(list(destination.meters)),
        _E.c.state == "waiting",
        _E.c.next_us <= now_us,
        ~open_before,
    )
    if not destination.traits.customer_alone:
        return due
    other = _E.alias("other")
    on_its_way = (
        select(other.c.seq)
        .where(
            other.c.target == _E.c.target,
            other.c.meter == _E.c.meter,
            other.c.customer == _E.c.customer,
            other.c.claim.is_not(None),
            other.c.next_us > now_us,
        )
        .exists()
    )
    return and_(due, ~on_its_way)


async def claim(database: Database, destination: Destination, now_us: int) -> list[Claimed] | None:
    """Up to a batch of entries, those left out that may not be sent; None when nothing is due."""
    due = _due(destination, now_us)
    async with database.reading() as connection:
        if (await connection.execute(select(_E.c.seq).where(due).limit(1))).first() is None:
            return None
    # Two that claim at once would not see each other's customers.
    lock = _CLAIMING + zlib.crc32(destination.name.encode()) if destination.traits.customer_alone else None
    async with database.writing(lock=lock) as connection:
        query = select(_E).where(due).order_by(_E.c.next_us, _E.c.seq).limit(destination.traits.batch_max)
        rows = [dict(row) for row in (await connection.execute(query.with_for_update(skip_locked=True))).mappings()]
        alone = next((row for row in rows if row["alone"]), None)
        if alone is not None:
            rows = [alone]
        if not rows:  # another replica has them
            return None
        return await _take(connection, destination, rows, now_us)


async def _take(
    connection: AsyncConnection, destination: Destination, rows: Sequence[dict[str, Any]], now_us: int
) -> list[Claimed]:
    facts = await read_customers(connection, {row["customer"] for row in rows})
    token = secrets.token_hex(8)
    found: list[Claimed] = []
    moves: list[Move] = []
    for row in rows:
        change: dict[str, Any]
        stop = gate(row, destination.traits, now_us)
        frozen = (
            None if stop else await _frozen(connection, destination, row, facts[row["customer"]].as_of(now_us), now_us)
        )
        if isinstance(stop, Wait):
            change = {"next_us": stop.until_us, "claim": None}
        elif stop is not None:
            change = {"state": "parked", "cause": stop.cause, "reason": stop.reason}
        elif isinstance(frozen, Park):
            change = {"state": "parked", "cause": frozen.cause, "reason": frozen.reason}
        else:
            unsure = row["unsure_us"]
            change = {
                **(frozen or {}),
                "claim": token,
                "next_us": now_us + CLAIM_US,
                "attempts": row["attempts"] + 1,
                "sent_us": row["sent_us"] or now_us,
                "unsure_us": now_us if unsure is None else unsure,
            }
            mine = {**row, **change}
            found.append(Claimed(mine, Sent(mine["id"], mine["act"], mine["body"], mine["keys_spent"]), unsure))
        await connection.execute(update(_E).where(_E.c.seq == row["seq"]).values(change))
        moves.append((row, {**row, **change}))
    await move(connection, moves)
    return found


async def _frozen(
    connection: AsyncConnection, destination: Destination, row: Mapping[str, Any], facts: Mapping[str, Any], now_us: int
) -> dict[str, Any] | Park:
    """What to send, written once. Only what the target certainly does not have is written anew."""
    if row["body"] is not None and row["unsure_us"] is not None:
        return {}
    if row["body"] is not None and row["act"] != "cancel":
        return {}
    customer = destination.customer_of(facts)
    if customer is None:
        return Park("no_customer", f"{CAUSES['no_customer']}: {destination.customer} of {row['customer']} is not set")
    same = and_(*(_E.c[name] == row[name] for name in ("outcome_id", "target", "meter")))
    query = select(_E.c.id, _E.c.quantity, _E.c.sent_us).where(same, _E.c.number < row["number"])
    before = [dict(one) for one in (await connection.execute(query)).mappings()]
    act, cancels = act_of(row, before, destination.traits, now_us)
    meter = destination.meters[row["meter"]]
    item = Item(
        id=row["id"], act=act, code=meter.code, field=meter.field, customer=customer,
        quantity=Decimal(row["quantity"]), at_us=row["at_us"], outcome_id=row["outcome_id"], meter=meter.code,
        cancels=cancels,
    )  # fmt: skip
    return {"act": act, "body": destination.target.write(item)}


async def settle(
    database: Database,
    claimed: Sequence[Claimed],
    verdicts: Sequence[Verdict],
    now_us: int,
    retry_after_us: int | None = None,
) -> None:
    """Write down what was answered. That the target has it is true whoever hears it; all else only for the holder."""
    async with database.writing() as connection:
        wanted = select(_E).where(_E.c.seq.in_([one.row["seq"] for one in claimed])).order_by(_E.c.seq)
        found = {row["seq"]: dict(row) for row in (await connection.execute(wanted.with_for_update())).mappings()}
        moves: list[Move] = []
        for one, verdict in zip(claimed, verdicts, strict=True):
            values = after(one.row, one.unsure_before, verdict, now_us, retry_after_us)
            row = found[one.row["seq"]]
            taken = values["state"] == "acknowledged"
            if row["state"] == "acknowledged" or not (taken or row["claim"] == one.row["claim"]):
                continue
            if taken:
                values["cause"] = None
            await connection.execute(update(_E).where(_E.c.seq == row["seq"]).values(values))
            moves.append((row, {**row, **values}))
        await move(connection, moves)
