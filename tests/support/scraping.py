"""A scrape, held against the documented table of metrics."""

import re

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sidecar import metrics_reference

MEASURES = {measure.name: measure for measure in metrics_reference.shown()}


def scrape(url):
    """{(sample name, labels as a frozenset): value}."""
    text = httpx.get(f"{url}/metrics").raise_for_status().text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def types(url):
    """{documented name: type}."""
    text = httpx.get(f"{url}/metrics").raise_for_status().text
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def measure_of(sample_name):
    """The measure that a sample belongs to, or None."""
    if sample_name in MEASURES:
        return MEASURES[sample_name]
    base = re.sub(r"_(bucket|sum|count)$", "", sample_name)
    found = MEASURES.get(base)
    return found if found is not None and found.kind == "histogram" else None


def value(samples, name, **labels):
    return samples[name, frozenset(labels.items())]
