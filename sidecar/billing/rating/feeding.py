"""What an outcome is to the charges that it feeds: inside the trial, free, or paid for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sidecar.billing.rating.account import Row
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.billing.rating.sections import Section
from sidecar.billing.rating.usage import Usage
from sidecar.policy.plan import Charge

Fed = Literal["trial", "free", "depends", "charged"]


def limited(charge: Charge) -> bool:
    """Whether free units decide which of the charge's events are paid for."""
    return charge.included_free > 0 and charge.model != "FLAT" and charge.overage_behavior == "CHARGE"


def fed(section: Section, usages: Mapping[str, Usage], *, part: bool) -> dict[str, Fed]:
    """What each row of a section was to the charges that it fed: in trial if it was that to any, else free to any,
    else charged. Of a `part` of an account nobody can tell who had the free units: what turns on that "depends".

    A flat fee says nothing of the outcomes that it covers: one that another charge counts is what it is to that one.
    """
    found: dict[str, Fed | Literal["covered"]] = {}
    rank = {"covered": 0, "charged": 1, "depends": 2, "free": 3, "trial": 4}

    def note(row: Row, kind: Fed | Literal["covered"]) -> None:
        if row.id not in found or rank[found[row.id]] < rank[kind]:
            found[row.id] = kind

    for charge in section.plan.charges:
        usage = usages[charge.id]
        used = ZERO
        for use in usage.uses:
            used = EXACT.add(used, use.units)
            if charge.model == "FLAT":
                note(use.row, "covered")
            elif charge.overage_behavior != "CHARGE" or use.units <= 0:
                note(use.row, "free")
            elif part:
                note(use.row, "depends" if limited(charge) else "charged")
            else:
                note(use.row, "charged" if used > charge.included_free else "free")
        for use in usage.trial:
            note(use.row, "trial")
    return {identifier: "free" if kind == "covered" else kind for identifier, kind in found.items()}
