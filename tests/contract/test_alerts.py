"""The chart's alert rules: each fires when it should and is quiet otherwise, on metrics that exist, with a runbook."""

import re
from pathlib import Path

import pytest
import yaml
from promql import evaluate, firing, selectors, series_of
from scraping import measure_of

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "helm" / "outcome-sidecar" / "monitoring" / "alerts.yaml"
RULES = {rule["alert"]: rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]}
# What Prometheus adds to every series of a pod, and its own series.
TARGET = {"job", "namespace", "pod", "instance", "container", "endpoint"}
POD = 'namespace="n",pod="p"'
UP = 'up{job="outcome-sidecar",namespace="n",pod="p"}'


def one(name, values, **labels):
    said = "".join(f',{label}="{value}"' for label, value in labels.items())
    return {f"sidecar_{name}{{{POD}{said}}}": values}


def event(name, values):
    return one("events_total", values, event=name)


def lag(slow):
    """Four looks a second, so many of a hundred late by more than 50 ms."""
    return one("loop_lag_seconds_bucket", f"0+{240 * (100 - slow) / 100}x60", process="proxy", le="0.05") | one(
        "loop_lag_seconds_count", "0+240x60", process="proxy"
    )


def billing_event(result, values):
    return one("billing_events_total", values, result=result)


EXPORT = {"target": "t", "meter": "m"}
# Alert: series with which it fires after half an hour, and series with which it does not.
CASES = {
    "SidecarNotObserving": ({UP: "1x10 0x30"}, {UP: "1x26 0x4"}),
    "SidecarObserverRestarts": (one("observer_starts_total", "1x9 2+1x30"), one("observer_starts_total", "1x9 2x30")),
    "SidecarObserverBehind": (one("observer_lag_seconds", "0+60x60"), one("observer_lag_seconds", "100x60")),
    "SidecarQueueFilling": (
        one("queue_used_bytes", "70x60") | one("queue_capacity_bytes", "100x60"),
        one("queue_used_bytes", "10x29 90x10") | one("queue_capacity_bytes", "100x60"),
    ),
    "SidecarCopiesDropped": (
        one("queue_records_dropped_total", "7x25 8x30") | one("spill_dropped_total", "0x60"),
        one("queue_records_dropped_total", "7x60") | one("spill_dropped_total", "3x60"),
    ),
    "SidecarQueueDamaged": (one("queue_corruptions_total", "0x20 1x30"), one("queue_corruptions_total", "1x60")),
    "SidecarDefect": (event("api_failed", "0x20 1x30"), event("json_broken", "0+1x60")),
    "SidecarLoopBlocked": (lag(8), lag(2)),
    "SidecarUpstreamFailing": (one("upstream_failures_total", "0+3x60"), one("upstream_failures_total", "0x28 20x10")),
    "SidecarAtItsLimits": (
        one("connections_refused_total", "0x25 1x10") | one("upstream_refused_total", "0x60"),
        one("connections_refused_total", "5x60") | one("upstream_refused_total", "0x60"),
    ),
    "SidecarCertificateRefused": (
        one("certificate_failures_total", "0x10 1x60"),
        one("certificate_failures_total", "1x60"),
    ),
    "SidecarRedisDown": (one("part_up", "1x9 0x60", part="redis"), one("part_up", "0x60", part="billing")),
    "SidecarJournalDown": (one("part_up", "1x9 0x60", part="journal"), one("part_up", "1x60", part="journal")),
    "SidecarBillingDown": (one("part_up", "1x9 0x60", part="billing"), one("part_up", "1x24 0x20", part="billing")),
    "SidecarPlanRefused": (one("part_up", "1x9 0x60", part="plan"), one("part_up", "1x60", part="plan")),
    "SidecarFactsWait": (one("journal_backlog_seconds", "0+60x60"), one("journal_backlog_seconds", "200x60")),
    "SidecarJournalFilling": (
        one("journal_bytes", "90x60") | one("journal_max_bytes", "100x60") | one("journal_backlog_seconds", "0+60x60"),
        one("journal_bytes", "99x60") | one("journal_max_bytes", "100x60") | one("journal_backlog_seconds", "0x60"),
    ),
    "SidecarDataLost": (event("facts_lost", "0x20 1x30"), event("rewind", "0+1x60")),
    "SidecarDeadlinesWait": (one("mark_lag_seconds", "0+60x60"), one("mark_lag_seconds", "600x60")),
    "SidecarSessionsExpired": (
        one("tenant_count", "2x20 3x30", what="sessions_lost"),
        one("tenant_count", "2x60", what="sessions_lost"),
    ),
    "SidecarOutcomesWait": (one("outbox_oldest_seconds", "0+60x60"), one("outbox_oldest_seconds", "600x60")),
    "SidecarDeadLetters": (one("dead_letters", "0x9 1x60"), one("dead_letters", "0x60")),
    "SidecarCustomersMissing": (
        one("exchanges_with_customer_ratio", "0.2x130"),
        one("exchanges_with_customer_ratio", "0.9x130"),
    ),
    "SidecarWebhooksRefused": (
        one("webhooks_total", "0+1x60", source="zendesk", result="forged"),
        one("webhooks_total", "0+1x60", source="zendesk", result="accepted"),
    ),
    "BillingDown": (
        {UP.replace("outcome-sidecar", "outcome-sidecar-billing"): "1x10 0x30"},
        {UP: "1x10 0x30"},
    ),
    "BillingBooksOpen": (
        one("billing_statement_alarm", "0x9 1x60", tenant="a"),
        one("billing_statement_alarm", "0x60", tenant="a"),
    ),
    "BillingConflicts": (billing_event("conflict", "0x20 1x30"), billing_event("duplicate", "0+1x60")),
    "BillingRejects": (billing_event("rejected", "0x20 1x30"), billing_event("accepted", "0+1x60")),
    "BillingTooBusy": (one("billing_ingest_refused_events", "0x25 9x30"), one("billing_ingest_refused_events", "9x60")),
    "BillingSumsBehind": (one("billing_pending_rows", "200000x60"), one("billing_pending_rows", "5000x60")),
    "BillingExportsParked": (
        one("billing_export_entries", "0x9 1x60", state="parked", **EXPORT),
        one("billing_export_entries", "900x60", state="waiting", **EXPORT),
    ),
    "BillingExportsWait": (
        one("billing_export_oldest_waiting_seconds", "3000+60x130", **EXPORT),
        one("billing_export_oldest_waiting_seconds", "60x130", **EXPORT),
    ),
    "BillingAlertsGivenUp": (one("billing_alerts_given_up", "0x9 1x60"), one("billing_alerts_given_up", "0x60")),
}
LATER = {"SidecarCustomersMissing": 90 * 60}


def test_every_rule_is_tried_and_none_else():
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_fires_when_it_should_and_is_quiet_otherwise(name):
    rule, at = RULES[name], LATER.get(name, 30 * 60)
    bad, good = map(series_of, CASES[name])
    alerts = firing(rule, bad, at)
    assert len(alerts) == 1
    assert firing(rule, good, at) == []
    [(labels, _)] = alerts
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= labels.keys()
    assert labels["severity"] in {"critical", "warning"}


@pytest.mark.parametrize("expression", [rule["expr"] for rule in RULES.values()], ids=RULES)
def test_every_expression_is_about_metrics_and_labels_that_are_documented(expression):
    found, grouped = selectors(expression)
    assert found
    labels = set(TARGET)
    for name, matched in found:
        if name == "up":
            assert {label for label, _, _ in matched} <= TARGET
            continue
        measure = measure_of(name)
        assert measure is not None, name
        own = {label.name: label for label in measure.labels}
        labels |= own.keys()
        for label, value, _ in matched:
            assert label in own or (label == "le" and measure.kind == "histogram"), f"{name}{{{label}}}"
            if label in own and own[label].values:
                assert set(value.split("|")) <= own[label].values.keys(), value
    assert grouped <= labels


def test_every_alert_has_a_line_that_says_what_to_do():
    page = (ROOT / "docs" / "operations.md").read_text()
    said = re.findall(r"^\| `(\w+)` \| (critical|warning) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert [(name, severity) for name, severity, *_ in said] == [
        (name, rule["labels"]["severity"]) for name, rule in RULES.items()
    ]


def test_the_evaluator_extrapolates_resets_and_matches_as_prometheus_does():
    series = series_of({'c_total{a="1"}': "0+10x4 3+10x5", 'g{a="1",b="x"}': "5x9", 'h{a="1",b="x"}': "2x9"})
    assert evaluate("increase(c_total[5m])", series, 540) == [({"a": "1"}, 43.0)]
    assert evaluate('rate(c_total{a=~"1|2"}[2m])', series, 540) == [({"a": "1"}, pytest.approx(1 / 6))]
    assert evaluate("g / h > 2", series, 540) == [({"a": "1", "b": "x"}, 2.5)]
    assert evaluate("g / h > 2", series, 2000) == []
    assert evaluate("sum by (a) (g) + 1", series, 540) == [({"a": "1"}, 6.0)]
    assert evaluate('g and h{b!="x"}', series, 540) == []
