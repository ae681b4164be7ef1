"""What a metric is: its name, type, labels and meaning, said once, for the code that counts and for docs/metrics.md.

A label says which values there are, or what bounds them: no value comes from traffic, so no caller can grow a series.
Series of labels with known values are there from the start, at zero: Prometheus sees no increase in a counter that
appears with its first event, and an alert on a rare one would miss it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads in the text format


@dataclass(frozen=True, slots=True)
class Label:
    """A label with all its `values` and what each means ("" where the name says it), or what bounds them."""

    name: str
    values: Mapping[str, str] = field(default_factory=dict)
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric, by the name that a query uses (`…_total`, `…_info`; a histogram's without `_bucket`)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """In the order in which values are given."""
        return tuple(label.name for label in self.labels)

    def known(self) -> Iterator[tuple[str, ...]]:
        """Every series there can be; none when a label's values are not known before."""
        return product(*(label.values for label in self.labels))


def plain(name: str, *values: str) -> Label:
    """A label whose values explain themselves."""
    return Label(name, dict.fromkeys(values, ""))


def counter(measure: Measure, registry: CollectorRegistry) -> Counter:
    """The counter, all its known series at zero."""
    made = Counter(measure.name, measure.meaning, measure.label_names, registry=registry)
    if measure.labels:
        for values in measure.known():
            made.labels(*values)
    return made


def gauge(measure: Measure, registry: CollectorRegistry) -> Gauge:
    """The gauge."""
    return Gauge(measure.name, measure.meaning, measure.label_names, registry=registry)


def histogram(measure: Measure, registry: CollectorRegistry) -> Histogram:
    """The histogram, all its known series empty."""
    made = Histogram(measure.name, measure.meaning, measure.label_names, registry=registry, buckets=measure.buckets)
    if measure.labels:
        for values in measure.known():
            made.labels(*values)
    return made


def info(measure: Measure, registry: CollectorRegistry) -> Info:
    """A gauge of 1 whose labels are the information."""
    return Info(measure.name.removesuffix("_info"), measure.meaning, registry=registry)


def gauge_family(measure: Measure) -> GaugeMetricFamily:
    """For a collector, empty."""
    return GaugeMetricFamily(measure.name, measure.meaning, labels=measure.label_names)


def counter_family(measure: Measure) -> CounterMetricFamily:
    """For a collector, empty."""
    return CounterMetricFamily(measure.name.removesuffix("_total"), measure.meaning, labels=measure.label_names)
