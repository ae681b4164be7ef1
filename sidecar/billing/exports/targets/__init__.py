"""The vendors, one module each: wire format, answers, limits. All of it data and pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.billing.exports.target import Target
from sidecar.billing.exports.targets.flexprice import FLEXPRICE
from sidecar.billing.exports.targets.lago import LAGO
from sidecar.billing.exports.targets.metronome import METRONOME
from sidecar.billing.exports.targets.openmeter import OPENMETER
from sidecar.billing.exports.targets.orb import ORB
from sidecar.billing.exports.targets.polar import POLAR
from sidecar.billing.exports.targets.stripe import STRIPE_V1, STRIPE_V2
from sidecar.billing.exports.targets.webhook import WEBHOOK

TARGETS: Mapping[str, Target] = {
    target.kind: target for target in (OPENMETER, STRIPE_V1, STRIPE_V2, LAGO, ORB, METRONOME, FLEXPRICE, POLAR, WEBHOOK)
}
