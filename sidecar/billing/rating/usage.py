"""From rows to units: filters, windows, `when`, trial and aggregation of one period."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from sidecar.billing.rating.account import Customer, Row
from sidecar.billing.rating.periods import DAY_US
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.policy.conditions import MISSING, Conditions, Unique, gather, lookup, number, parse_path
from sidecar.policy.plan import Charge, Metric, RatePlan

Facts = Mapping[str, Any]
Coupling = Literal["session", "conversation", "account"]


@dataclass(frozen=True, slots=True)
class Use:
    """One row's part in one charge: how many units of a metric it brought."""

    row: Row
    metric: str
    units: Decimal


@dataclass(slots=True)
class Usage:
    """Units of one charge in one period, in the order of time and id."""

    uses: list[Use] = field(default_factory=list)
    trial: list[Use] = field(default_factory=list)

    @property
    def total(self) -> Decimal:
        """Units outside the trial, below zero if that is what was summed."""
        return _total(self.uses)

    @property
    def trial_total(self) -> Decimal:
        """Units inside the trial: shown, never priced."""
        return _total(self.trial)

    @property
    def outcomes(self) -> int:
        """How many outcomes brought them."""
        return len({use.row.id for use in (*self.uses, *self.trial)})


class Meter:
    """A compiled metric: which rows pass its filters, and how many units they bring."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._conditions = gather(spec.compiled() for spec in metric.filter_conditions)
        self._path = parse_path(metric.event_field) if metric.event_field else None

    @property
    def coupling(self) -> Coupling:
        """Which other rows can decide how many units a row brings: those of its session, its conversation, or any."""
        if self.metric.aggregation in {"UNIQUE", "MAX"}:
            return "account"
        windows = {one.window for one in self._conditions.unique if one.path != ("session_id",)} - {"SESSION"}
        if "BILLING_PERIOD" in windows:
            return "account"  # by `conversation` as well: sessions without one share the value null
        return "conversation" if windows else "session"

    @property
    def windowed(self) -> bool:
        """Whether events of other periods can decide about this one's."""
        return any(unique.window != "BILLING_PERIOD" for unique in self._conditions.unique)

    def passing(
        self, earlier: Iterable[tuple[Row, Facts]], rows: Sequence[tuple[Row, Facts]]
    ) -> list[tuple[Row, Facts]]:
        """The rows (in order) that pass every filter. `earlier` rows only take their places in windows."""
        conditions = self._conditions
        taken: set[tuple[Any, ...]] = set()
        if self.windowed:
            for row, facts in earlier:
                if conditions.hold(facts):
                    self._take(taken, row, facts, within_period=False)
        return [
            (row, facts)
            for row, facts in rows
            if conditions.hold(facts) and self._take(taken, row, facts, within_period=True)
        ]

    def _take(self, taken: set[tuple[Any, ...]], row: Row, facts: Facts, *, within_period: bool) -> bool:
        """Take the row's place in every window; False when one is taken already, or the field is missing."""
        places = self._places(row, facts, within_period=within_period)
        if places is None or places & taken:
            return False
        taken |= places
        return True

    def _places(self, row: Row, facts: Facts, *, within_period: bool) -> set[tuple[Any, ...]] | None:
        places = set()
        for index, unique in enumerate(self._conditions.unique):
            if unique.window == "BILLING_PERIOD" and not within_period:
                continue
            value = lookup(facts, unique.path)
            if value is MISSING:
                return None
            places.add((index, _scope(unique, row), _hashable(value)))
        return places

    def ties(self, row: Row, facts: Facts) -> Iterator[tuple[bool, Hashable]]:
        """What a row shares with those that can bring its units in its stead, and whether within one section alone."""
        for index, *place in self._places(row, facts, within_period=True) or ():
            unique = self._conditions.unique[index]
            yield unique.window == "BILLING_PERIOD", (unique.window, unique.path, *place)
        if self.metric.aggregation == "UNIQUE" and self._path:
            yield True, (self.metric.id, _hashable(lookup(facts, self._path)))
        if self.metric.aggregation == "MAX":
            yield True, (self.metric.id,)

    def units(self, rows: Iterable[tuple[Row, Facts]]) -> list[Use]:
        """What each row brings. UNIQUE: 1 for a new value; MAX: what it raises the highest by. Sums to the metric."""
        uses = []
        seen: set[Any] = set()
        highest = ZERO
        for row, facts in rows:
            value = lookup(facts, self._path) if self._path else True
            if value is MISSING:
                continue
            match self.metric.aggregation:
                case "COUNT":
                    units = Decimal(1)
                case "UNIQUE":
                    units = ZERO if _hashable(value) in seen else Decimal(1)
                    seen.add(_hashable(value))
                case "MAX":
                    units = max(ZERO, EXACT.subtract(number(value) or ZERO, highest))
                    highest = EXACT.add(highest, units)
                case _:
                    units = number(value) or ZERO
            uses.append(Use(row, self.metric.id, units))
        return uses


class RatedPlan:
    """A plan compiled for rating; `digest` is that of its file."""

    def __init__(self, plan: RatePlan, digest: str = "") -> None:
        self.plan = plan
        self.digest = digest
        self.currency = plan.currency_code
        self.charges = plan.all_charges()
        self.paid = frozenset(charge.id for charge in self.charges if charge.model != "FLAT")  # by units
        self.meters = {metric.id: Meter(metric) for metric in plan.metrics}
        self.windowed = any(meter.windowed for meter in self.meters.values())
        couplings = {meter.coupling for meter in self.meters.values()}
        self.coupling: Coupling = max(couplings, key=("session", "conversation", "account").index, default="session")
        self.customer_fields = frozenset(self._customer_fields())
        self._when = {charge.id: gather(spec.compiled() for spec in charge.when) for charge in self.charges}

    def _customer_fields(self) -> Iterator[tuple[str, ...]]:
        """What the plan's conditions and metrics look at in the customer, so that other changes change no invoice."""
        specs = [spec for metric in self.plan.metrics for spec in metric.filter_conditions]
        specs += [spec for charge in self.charges for spec in charge.when]
        fields = [spec.field for spec in specs] + [metric.event_field or "" for metric in self.plan.metrics]
        for path in map(str.split, fields, "." * len(fields)):
            if path[0] == "customer":
                yield tuple(path[1:])
        dues = self.plan.guardrails.min_spend or any(charge.model == "FLAT" for charge in self.charges)
        if self.plan.trial_days or dues:
            yield ("started_at",)

    def counts_outcomes(self, charge: Charge) -> bool:
        """Whether an outcome brings whole units to a charge, one for each of its metrics, or none."""
        return all(self.meters[name].metric.aggregation in {"COUNT", "UNIQUE"} for name in charge.metrics)

    def in_trial(self, customer: Customer, us: int) -> bool:
        """Whether an instant lies in the customer's trial."""
        started = customer.started_us
        return started is not None and started <= us < started + self.plan.trial_days * DAY_US

    def flat_due(self, charge: Charge, customer: Customer, end_us: int) -> bool:
        """A FLAT charge is due once in every section in which the customer is one, by the facts at its end."""
        return self._when[charge.id].hold({"customer": customer.as_of(end_us - 1)})

    def customer_in(self, customer: Customer, end_us: int) -> bool:
        """Whether there is a contract, and it has begun by the end of the section."""
        return customer.attributed and (customer.started_us is None or customer.started_us < end_us)

    def usage(self, customer: Customer, earlier: Iterable[Row], rows: Iterable[Row]) -> dict[str, Usage]:
        """Units by charge. `rows` are the live rows of one section, `earlier` those before it, both in order."""
        before = [(row, _facts(row, customer)) for row in earlier] if self.windowed else []
        now = [(row, _facts(row, customer)) for row in rows]
        passing = {name: meter.passing(before, now) for name, meter in self.meters.items()}
        return {charge.id: self._charge_usage(charge, customer, passing) for charge in self.charges}

    def ties(self, charge: str, customer: Customer, row: Row) -> Iterator[tuple[bool, Hashable]]:
        """What a row shares with others that can bring its units to a charge in its stead; see `Meter.ties`."""
        facts = _facts(row, customer)
        for one in self.charges:
            for name in one.metrics if one.id == charge else ():
                yield from self.meters[name].ties(row, facts)

    def _charge_usage(
        self, charge: Charge, customer: Customer, passing: Mapping[str, list[tuple[Row, Facts]]]
    ) -> Usage:
        usage = Usage()
        when: Conditions = self._when[charge.id]
        for name in charge.metrics:
            meter = self.meters[name]
            chosen = [(row, facts) for row, facts in passing[name] if when.hold(facts)]
            usage.trial += meter.units(pair for pair in chosen if self.in_trial(customer, pair[0].at_us))
            usage.uses += meter.units(pair for pair in chosen if not self.in_trial(customer, pair[0].at_us))
        usage.trial.sort(key=lambda use: use.row.order)
        usage.uses.sort(key=lambda use: use.row.order)
        return usage


def _facts(row: Row, customer: Customer) -> Facts:
    return {**row.data, "customer": customer.as_of(row.at_us)}


def _scope(unique: Unique, row: Row) -> tuple[str, ...]:
    """Which window a row falls into; a session without a conversation is a conversation of its own."""
    if unique.window == "SESSION":
        return ("session", row.session_id)
    if unique.window == "CONVERSATION":
        return ("conversation", row.conversation) if row.conversation else ("session", row.session_id)
    return ()


def _hashable(value: Any) -> Any:
    """A key under which equal JSON values meet: 1 and 1.0 do, 1 and true do not."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int | float | Decimal):
        exact = number(value)
        return ("number", exact if exact is not None else str(value))
    if isinstance(value, Mapping):
        return ("mapping", frozenset((key, _hashable(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(_hashable(item) for item in value))
    return ("text", value)


def _total(uses: Iterable[Use]) -> Decimal:
    total = ZERO
    for use in uses:
        total = EXACT.add(total, use.units)
    return total
