"""docs/metrics.md: every metric of a sidecar and of a billing API, made from what the code counts by."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sidecar.admin import measured
from sidecar.billing import metrics as billing
from sidecar.measures import Label, Measure

_HEAD = """# Metrics

`GET /metrics` in Prometheus' text format: of a sidecar at its admin address, without a token; of the billing API at its
own. This page is made from the code by `make docs`.

No label has values from traffic: each has the values below, or as many as the configuration names. Those of counters
that are known beforehand are there at zero from the start; what is read from Redis or the database
(`sidecar_sessions`, say) is there once it has answered. Counters of the proxy lie beside the queue and go on after a
restart; all others begin anew with their process, whose start is `sidecar_observer_start_time_seconds` or
`sidecar_billing_start_time_seconds`. What is the tenant's, or the database's, is the same at each replica: take the
`max` of the replicas, never their `sum`, and of several tenants and namespaces the sum of these: `sum(max by
(namespace, tenant) (sidecar_sessions))`.

The chart has a dashboard and alerts on these ([kubernetes.md](kubernetes.md#monitoring)); what to do about each alert
is in [operations.md](operations.md). Spans and metrics of the calls themselves go out by OpenTelemetry
([opentelemetry.md](opentelemetry.md)).
"""
# Longer lists of values have a table of their own.
_INLINE_MAX = 10


def document() -> str:
    """The page."""
    sections = {**measured.SECTIONS, "The billing API": billing.SHOWN}
    return _HEAD + "".join(
        f"\n## {title}\n\n" + "".join(_table(shown)) + "".join(_values(shown)) for title, shown in sections.items()
    )


def shown() -> list[Measure]:
    """All of them."""
    return [*(measure for section in measured.SECTIONS.values() for measure in section), *billing.SHOWN]


def _table(section: Iterable[Measure]) -> Iterator[str]:
    yield "| name | type | labels | meaning |\n|---|---|---|---|\n"
    for measure in section:
        labels = "; ".join(_label(label) for label in measure.labels) or "–"
        yield f"| `{measure.name}` | {measure.kind} | {labels} | {measure.meaning} |\n"


def _label(label: Label) -> str:
    if label.bound:
        return f"`{label.name}`: {label.bound}"
    if len(label.values) > _INLINE_MAX:
        return f"`{label.name}`: below"
    return f"`{label.name}`: " + ", ".join(
        f"`{value}`" + (f" ({meaning})" if meaning else "") for value, meaning in label.values.items()
    )


def _values(section: Iterable[Measure]) -> Iterator[str]:
    for measure in section:
        for label in measure.labels:
            if len(label.values) > _INLINE_MAX:
                yield f"\n`{measure.name}` by `{label.name}`:\n\n| `{label.name}` | counts |\n|---|---|\n"
                yield from (f"| `{value}` | {meaning} |\n" for value, meaning in label.values.items())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
