"""The movements of every account, kept up to date: an invoice reads a few sums, however many outcomes it has.

How it works. A trigger notes in `pending` every event that is added, and so does whoever decides. One replica at a
time takes notes off: it loads everything that has to do with the events noted (their sessions; their conversations,
where a plan's windows reach that far), computes the movements of that little group with them and without them, and
adds the difference to the sums. It knows nothing of plans: whatever `rating` makes of the rows is right here too.

A reader adds the difference of what is still pending to the sums that it finds, in one snapshot. So an invoice never
depends on how far the aggregates are, only its speed does.

`rated` says by which plans and customer facts the sums of a period were made. Where that is no longer what holds, a
reader rates the rows themselves, and the account is summed up anew. The same goes for plans in which any event can
decide about any other (`RatedPlan.coupling`): they are always rated from the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import delete, func, or_, select, union
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.catalog import Catalog
from sidecar.billing.ledger.differences import Difference, Group, Noted, Sums, basis, differences, worked_out
from sidecar.billing.ledger.entries import CHUNK, Record, account_parts, chunks, decisions_of, rows_where
from sidecar.billing.ledger.summaries import Summaries
from sidecar.billing.ledger.tables import decisions, movements, outcomes, pending, rated
from sidecar.billing.ledger.tallied import tally
from sidecar.billing.ledger.upserting import upsert
from sidecar.billing.rating.account import UNATTRIBUTED
from sidecar.billing.rating.counts import Change, Counts
from sidecar.billing.rating.movements import Movements, Place, State, Units, added, widest
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT
from sidecar.billing.rating.sections import SectionsOf

SOON_MAX = 500  # notes about a customer that are worked out while a page waits


class Aggregates:
    """Reads and writes the sums on one connection."""

    def __init__(self, connection: AsyncConnection, catalog: Catalog) -> None:
        self._connection = connection
        self._catalog = catalog
        self._summaries = Summaries(connection)

    async def read(self, customer: str) -> Movements | None:
        """A customer's movements as of this snapshot; None when they must be computed from the rows."""
        sections_of = await self._catalog.sections_of(customer)
        if not await self.current(customer, sections_of):
            return None
        with localcontext(EXACT):
            return added([await self.applied(customer), await self._waiting(customer, sections_of)])

    async def current(self, customer: str, sections_of: SectionsOf) -> bool:
        """Whether every period was summed up by what holds now."""
        if await self._catalog.coupling(customer) == "account":
            return False
        return await self._holds(customer, (await self._bases([customer]))[customer], sections_of)

    async def _holds(self, customer: str, bases: Mapping[Period, str], sections_of: SectionsOf) -> bool:
        """Whether sums were made by what holds now; where there are none, whether there is nothing to sum up either."""
        if bases:
            return all(basis(sections_of(period)) == then for period, then in bases.items())
        for table, identifier, number, theirs in (
            (outcomes, outcomes.c.id, 0, outcomes.c.customer == customer),
            (decisions, decisions.c.outcome_id, decisions.c.number, decisions.c.assigned == customer),
        ):
            # Looked up row by row: for NOT EXISTS, PostgreSQL may read all that is pending, for each customer anew.
            note = select(pending.c.number).where(pending.c.outcome_id == identifier, pending.c.number == number)
            query = select(table.c.seq).where(theirs, note.scalar_subquery().is_(None)).limit(1)
            if (await self._connection.execute(query)).first() is not None:
                return False
        return True

    async def outdated(
        self, kept: Mapping[str, SectionsOf], bases: Mapping[str, Mapping[Period, str]] | None = None
    ) -> set[str]:
        """Customers whose sums were made by something else than what holds now; `bases`, if they are read already."""
        bases = await self._bases(kept) if bases is None else bases
        return {name for name, sections_of in kept.items() if not await self._holds(name, bases[name], sections_of)}

    async def soon(self, customer: str) -> Movements | None:
        """The same for a page that many look at: None as well when more than a few notes wait to be summed up."""
        some = select(pending.c.number).where(pending.c.customer == customer).limit(SOON_MAX + 1).subquery()
        waiting = (await self._connection.execute(select(func.count()).select_from(some))).scalar_one()
        return None if waiting > SOON_MAX else await self.read(customer)

    async def applied(self, customer: str) -> Movements:
        """A customer's sums without what is pending."""
        return (await self.sums([customer]))[customer]

    async def _bases(self, names: Iterable[str]) -> dict[str, dict[Period, str]]:
        found: dict[str, dict[Period, str]] = {name: {} for name in names}
        for chunk in chunks(found):
            for row in await self._connection.execute(select(rated).where(rated.c.customer.in_(chunk))):
                found[row.customer][Period.parse(row.period)] = row.basis
        return found

    async def sums(self, names: Iterable[str]) -> dict[str, Sums]:
        """The sums of customers without what is pending."""
        found: dict[str, Sums] = {name: {} for name in names}
        for chunk in chunks(found):
            for row in await self._connection.execute(select(movements).where(movements.c.customer.in_(chunk))):
                key = Place(row.start_us, row.charge), State(Period.parse(row.period), row.phase)
                found[row.customer][key] = Units(Decimal(row.units), Decimal(row.trial), row.outcomes)
        return found

    async def _waiting(self, customer: str, sections_of: SectionsOf) -> Movements:
        """What the pending notes will add to a customer's sums."""
        replaced, replacing = outcomes.alias(), outcomes.alias()
        assigned = select(decisions.c.session_id).where(decisions.c.assigned == customer)
        mine = or_(replaced.c.customer == customer, replaced.c.session_id.in_(assigned))
        theirs = select(replaced.c.id).where(replaced.c.session_id == pending.c.session_id, mine)
        named = (
            select(replacing.c.id)
            .join(replaced, replaced.c.id == replacing.c.reverses)
            .where(replacing.c.id == pending.c.outcome_id, mine)
        )
        in_assigned = select(outcomes.c.id).where(outcomes.c.session_id.in_(assigned))
        query = union(
            select(pending).where(pending.c.customer == customer),
            select(pending).where(pending.c.revision > 0, or_(theirs.exists(), named.exists())),
            select(pending).where(pending.c.outcome_id.in_(in_assigned)),
        )
        notes = list((await self._connection.execute(query)).mappings())
        if not notes:
            return {}
        coupling = await self._catalog.coupling(customer)
        group = await self.group(notes, {customer} if coupling == "conversation" else set())
        return differences(group, coupling, {customer: sections_of}, count=False)[customer].movements

    async def group(self, notes: Iterable[Record], talkers: set[str] | None = None) -> Group:
        """Everything that has to do with the noted events, whichever customers it concerns.

        `talkers` are those whose conversations belong to it as well; None: everybody whose plans ask for it.
        What is added between the queries waits for the next time: rows are read before the notes, and a note about a
        decision that was not read is left where it is.
        """
        found: dict[str, RowMapping] = {}
        notes = list(notes)
        sessions, ids = {note["session_id"] for note in notes}, {note["outcome_id"] for note in notes}
        wanted: dict[Any, set[str]] = {
            outcomes.c.session_id: sessions, outcomes.c.id: set(), outcomes.c.reverses: ids,
            outcomes.c.conversation: set(),
        }  # fmt: skip
        asked: dict[Any, set[str]] = {column: set() for column in wanted}
        while any(wanted.values()):
            new: dict[str, RowMapping] = {}
            for column, values in wanted.items():
                for row in await rows_where(self._connection, column, values):
                    if row["id"] not in found:
                        new[row["id"]] = row
                asked[column] |= values
            found |= new
            reverses = {row["reverses"] for row in new.values() if row["reverses"]} - found.keys()
            wanted = {
                outcomes.c.session_id: {row["session_id"] for row in new.values()},
                outcomes.c.id: reverses,
                outcomes.c.reverses: set(new),
                outcomes.c.conversation: await self._conversations(new.values(), talkers),
            }
            wanted = {column: values - asked[column] for column, values in wanted.items()}
        taken = await decisions_of(self._connection, {row["session_id"] for row in found.values()})
        read = {(identifier, 0) for identifier in found} | {(one.outcome_id, one.number) for one in taken}
        noted = read & await self._notes_about(found)
        return Group(list(found.values()), taken, noted, await self._catalog.prices())

    async def _conversations(self, rows: Iterable[RowMapping], talkers: set[str] | None) -> set[str]:
        """Conversations that a window may span, of customers whose plans ask for it, by assignment as well."""
        talking = [row for row in rows if row["conversation"]]
        if not talking or (talkers is not None and not talkers):
            return set()
        taken = await decisions_of(self._connection, {row["session_id"] for row in talking})
        assigned = {one.session_id: one.assigned for one in taken if one.assigned is not None}
        payers = [
            (assigned.get(row["session_id"], UNATTRIBUTED) if row["customer"] == UNATTRIBUTED else row["customer"],
             row["conversation"])
            for row in talking
        ]  # fmt: skip
        if talkers is None:
            names = {name for name, _ in payers}
            await self._catalog.customers(names)
            talkers = {name for name in names if await self._catalog.coupling(name) == "conversation"}
        return {conversation for name, conversation in payers if name in talkers}

    async def _notes_about(self, ids: Iterable[str]) -> Noted:
        wanted = list(ids)
        found: Noted = set()
        for start in range(0, len(wanted), CHUNK):
            query = select(pending).where(pending.c.outcome_id.in_(wanted[start : start + CHUNK]))
            found |= {(note.outcome_id, note.number) for note in await self._connection.execute(query)}
        return found

    async def apply(self, group: Group) -> dict[str, Sums]:
        """Take a group's notes off and add their difference to the sums. The caller holds the lock.

        Returns the sums of the customers for whom anything was noted; none for those that are rated from the rows.
        """
        kept, names = await self.kept(group)
        bases = await self._bases(kept)
        for name in await self.outdated(kept, bases):
            await self.rebuild(name)
        changes = await self.differences(group, kept)
        sums = await self._add({name: one.movements for name, one in changes.items()})
        fed = {(row.customer, row.period) for row in group.now if row.customer in kept}
        earned, lost = await self._summaries.change(changes, kept, sums)
        fed |= earned
        await self._rate([(name, period, kept[name]) for name, period in fed if period not in bases[name]])
        first = (row for row in group.rows if row["revision"] == 0 and (row["id"], 0) in group.noted)
        await tally(self._connection, first)
        await self._take_off(group.noted)
        for name in lost:
            await self.rebuild(name)
        return {name: sums.get(name, {}) for name in names}

    async def kept(self, group: Group) -> tuple[dict[str, SectionsOf], set[str]]:
        """The customers whose sums a group changes, and everybody whom it concerns."""
        names = {row.customer for row in group.now} | {row["customer"] for row in group.rows}
        await self._catalog.customers(names)
        return {
            name: await self._catalog.sections_of(name)
            for name in sorted(names)
            if await self._catalog.coupling(name) != "account"
        }, names

    async def differences(self, group: Group, kept: Mapping[str, SectionsOf]) -> dict[str, Difference]:
        """What the pending notes of a group add to the sums of customers."""
        coupling = widest([await self._catalog.coupling(name) for name in kept])
        return await asyncio.to_thread(differences, group, coupling, kept)  # requests are answered meanwhile

    async def rebuild(self, customer: str) -> None:
        """Sum a customer up anew from the rows that are not pending. The caller holds the lock."""
        sections_of, coupling = await self._catalog.sections_of(customer), await self._catalog.coupling(customer)
        for table in (movements, rated):
            await self._connection.execute(delete(table).where(table.c.customer == customer))
        await self._summaries.throw_away(customer)
        if coupling == "account":
            return
        group = Group(*await account_parts(self._connection, customer))
        group.noted = await self._notes_about(row["id"] for row in group.rows)
        rows, prices = await asyncio.to_thread(group.before), await self._catalog.prices()
        worked = (await asyncio.to_thread(worked_out, rows, prices, coupling, {customer: sections_of}))[customer]
        sums = await self._add({customer: worked.movements})
        whole = Difference(worked.movements, Change.between(Counts(), worked.counts))
        fed, _ = await self._summaries.change({customer: whole}, {customer: sections_of}, sums)
        fed |= {(customer, row.period) for row in rows if row.customer == customer}
        await self._rate([(customer, period, sections_of) for _, period in fed])

    async def _add(self, changes: Mapping[str, Sums]) -> dict[str, Sums]:
        """Add movements to the sums; these as they are then."""
        sums, rows = await self.sums(changes), []
        for name, change in changes.items():
            for (place, state), units in change.items():
                total = sums[name].get((place, state), Units()) + units
                sums[name][place, state] = total
                rows.append(
                    {
                        "customer": name, "start_us": place.start_us, "period": str(state.period),
                        "phase": state.phase, "charge": place.charge, "units": str(total.units),
                        "trial": str(total.trial), "outcomes": total.outcomes,
                    }
                )  # fmt: skip
        await upsert(self._connection, movements, rows, sets=("units", "trial", "outcomes"))
        return sums

    async def _rate(self, fed: Iterable[tuple[str, Period, SectionsOf]]) -> None:
        """Note by what the sums of periods were made."""
        rows = [
            {"customer": name, "period": str(period), "basis": basis(sections_of(period)) or ""}
            for name, period, sections_of in fed
        ]
        await upsert(self._connection, rated, rows, sets=("basis",))

    async def _take_off(self, noted: Noted) -> None:
        by_number: dict[int, list[str]] = {}  # nearly all are 0; a list of pairs would be looked for in every row
        for identifier, number in sorted(noted):
            by_number.setdefault(number, []).append(identifier)
        for number, ids in by_number.items():
            for some in chunks(ids):
                theirs = pending.c.outcome_id.in_(some)
                await self._connection.execute(delete(pending).where(theirs, pending.c.number == number))
