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
from typing import Any, NamedTuple

from sqlalchemy import and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.exports.config import Destination
from sidecar.billing.exports.due import any_due, due, firsts
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


class Answered(NamedTuple):
    """What a target said of an entry, and after how long it wants to be asked again."""

    claimed: Claimed
    verdict: Verdict
    retry_after_us: int | None = None


async def claim(
    database: Database, destination: Destination, now_us: int, requests_max: int = 1
) -> list[list[Claimed]] | None:
    """What up to `requests_max` requests carry, those entries left out that may not be sent; None: nothing is due."""
    async with database.reading() as connection:
        if not await any_due(connection, destination, now_us):
            return None
    traits = destination.traits
    # Two that claim at once would not see each other's customers.
    lock = _CLAIMING + zlib.crc32(destination.name.encode()) if traits.customer_alone else None
    async with database.writing(lock=lock) as connection:
        query = select(_E).where(due(destination, now_us))
        most = requests_max * traits.batch_max
        if traits.customer_alone:
            query = query.where(_E.c.seq.in_(await firsts(connection, destination, now_us, most)))
        else:
            query = query.order_by(_E.c.next_us, _E.c.seq).limit(most)
        rows = [dict(row) for row in (await connection.execute(query.with_for_update(skip_locked=True))).mappings()]
        batches = _batches(rows, traits.batch_max)[:requests_max]
        if not batches:  # another replica has them
            return None
        taken = [await _take(connection, destination, batch, now_us) for batch in batches]
        await move(connection, [change for _, moves in taken for change in moves])
    return [claimed for claimed, _ in taken if claimed]


def _batches(rows: Sequence[dict[str, Any]], batch_max: int) -> list[list[dict[str, Any]]]:
    """Which rows go together; first those whose batch was refused without a word about whose fault it was."""
    alone = [[row] for row in rows if row["alone"]]
    others = [row for row in rows if not row["alone"]]
    return alone + [others[start : start + batch_max] for start in range(0, len(others), batch_max)]


async def _take(
    connection: AsyncConnection, destination: Destination, rows: Sequence[dict[str, Any]], now_us: int
) -> tuple[list[Claimed], list[Move]]:
    """What of a batch may be sent now, and how its entries moved."""
    facts = await read_customers(connection, {row["customer"] for row in rows})
    token = secrets.token_hex(8)
    found: list[Claimed] = []
    moves: list[Move] = []
    for row in rows:
        change: dict[str, Any]
        facts_now = facts[row["customer"]].as_of(now_us)
        step = gate(row, destination.traits, now_us) or await _frozen(connection, destination, row, facts_now, now_us)
        # Without a claim: one that expired is nobody's any more.
        if isinstance(step, Wait):
            change = {"next_us": step.until_us, "claim": None}
        elif isinstance(step, Park):
            change = {"state": "parked", "cause": step.cause, "reason": step.reason, "claim": None}
        else:
            unsure = row["unsure_us"]
            change = {
                **step,
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
    return found, moves


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


async def settle(database: Database, answers: Sequence[Answered], now_us: int) -> None:
    """Write down what was answered. That the target has it is true whoever hears it; all else only for the holder."""
    async with database.writing() as connection:
        wanted = select(_E).where(_E.c.seq.in_([one.claimed.row["seq"] for one in answers])).order_by(_E.c.seq)
        found = {row["seq"]: dict(row) for row in (await connection.execute(wanted.with_for_update())).mappings()}
        moves: list[Move] = []
        for one, verdict, retry_after_us in answers:
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
