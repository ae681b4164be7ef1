"""The chart's alert rules: each fires when it should and is quiet otherwise, on metrics that exist, with a runbook."""

import re
from pathlib import Path

import pytest
import yaml
from alert_series import (
    POD,
    billing_event,
    counted,
    customers,
    drops,
    elsewhere,
    event,
    lag,
    one,
    started,
    upstream,
    webhooks,
)
from promql import evaluate, firing, selectors, series_of
from scraping import measure_of

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "helm" / "outcome-sidecar" / "monitoring" / "alerts.yaml"
RULES = {rule["alert"]: rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]}
# What Prometheus adds to every series of a pod, and its own series.
TARGET = {"job", "namespace", "pod", "instance", "container", "endpoint"}
UP = f'up{{job="outcome-sidecar",{POD}}}'


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
    "SidecarCopiesDropped": (drops("7x25 8x30"), drops("7x60", "3x60")),
    "SidecarQueueDamaged": (one("queue_corruptions_total", "0x20 1x30"), one("queue_corruptions_total", "1x60")),
    "SidecarDefect": (event("api_failed", "0x20 1x30"), event("json_broken", "0+1x60")),
    "SidecarLoopBlocked": (lag(8), lag(2)),
    "SidecarUpstreamFailing": (upstream("0+3x60", "0+9x60"), upstream("0x28 20x10", "0+9x60")),
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
    "SidecarDeadlinesWait": (
        one("mark_lag_seconds", "0+60x60", tenant="a"),
        one("mark_lag_seconds", "600x60", tenant="a"),
    ),
    "SidecarSessionsExpired": (counted("sessions_lost", "0x20 1x30"), counted("sessions_lost", "2x60")),
    "SidecarOutcomesWait": (
        one("outbox_oldest_seconds", "0+60x60", tenant="a"),
        one("outbox_oldest_seconds", "600x60", tenant="a"),
    ),
    "SidecarDeadLetters": (
        one("dead_letters", "0x9 1x60", tenant="a"),
        one("dead_letters", "0x60", tenant="a"),
    ),
    "SidecarCustomersMissing": (customers("0+10x130", "0+2x130"), customers("0+10x130", "0+9x130")),
    "SidecarWebhooksRefused": (
        webhooks(forged="0+1x60", accepted="0+1x60"),
        webhooks(forged="0x9 5x60", accepted="0+1x60"),
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
    "BillingTooBusy": (
        one("billing_ingest_refused_events_total", "0x25 9x30"),
        one("billing_ingest_refused_events_total", "9x60"),
    ),
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
A_DAY = 24 * 60
LOST = "sessions_lost"
# What a rule must not miss, after so many minutes: (rule, minutes, series).
FIRES = {
    "the first session that is lost": ("SidecarSessionsExpired", 30, counted(LOST, "0x20 1x30")),
    "one tenant's first, beside another's many": (
        "SidecarSessionsExpired",
        30,
        elsewhere(counted(LOST, "100x60", "b"), pod="q") | counted(LOST, "0x20 5x30"),
    ),
    "sessions lost while no pod was there, found by the next one": (
        "SidecarSessionsExpired",
        500,
        counted(LOST, "2x60 _x900") | elsewhere(counted(LOST, "_x480 3x99"), pod="q"),
    ),
    "sessions lost again after Redis was": ("SidecarSessionsExpired", 30, counted(LOST, "9x9 0x9 2x20")),
    "customers missing after a million exchanges that had one": (
        "SidecarCustomersMissing",
        90,
        customers("1000000+10x130", "1000000x130"),
    ),
    "customers missing since the last release": (
        "SidecarCustomersMissing",
        390,
        customers("0+10x400", "0+10x300 3010x100"),
    ),
    "one tenant's customers missing": (
        "SidecarCustomersMissing",
        90,
        customers("0+900x130", "0+900x130", "b") | customers("0+1x130", "0x130"),
    ),
    "copies dropped while nobody could read the counters": ("SidecarCopiesDropped", 55, drops("7x10 _x38 9x30")),
    "long copies dropped while nobody could read the counters": (
        "SidecarCopiesDropped",
        55,
        drops("7x90", "0x10 _x38 1x30"),
    ),
    "copies dropped in a night without an observer": ("SidecarCopiesDropped", 605, drops("7x10 _x588 9x30")),
    "long copies dropped before a new pod's observer came": (
        "SidecarCopiesDropped",
        25,
        drops("_x20 0x30", "_x20 5x30"),
    ),
    "copies dropped before a new pod's observer came": ("SidecarCopiesDropped", 25, drops("_x20 5x30", "_x20 0x30")),
    "copies dropped after the queue was made anew": ("SidecarCopiesDropped", 30, drops("7x20 0x4 2x30")),
    "damage in a queue that was made anew": (
        "SidecarQueueDamaged",
        30,
        one("queue_corruptions_total", "7x20 0x4 2x30"),
    ),
    "damage found after a night": ("SidecarQueueDamaged", 605, one("queue_corruptions_total", "2x10 _x588 3x30")),
    "damage found by the first observer of a pod": (
        "SidecarQueueDamaged",
        25,
        one("queue_corruptions_total", "_x20 1x30"),
    ),
    "damage found after an outage of the observer": (
        "SidecarQueueDamaged",
        75,
        one("queue_corruptions_total", "2x10 _x59 3x30"),
    ),
    "data found gone when a new pod starts": (
        "SidecarDataLost",
        25,
        event("journal_recovered", "_x20 1x30") | started("observer_", 20),
    ),
    "data found gone again when the observer starts again": (
        "SidecarDataLost",
        70,
        event("journal_recovered", "1x60 1x30") | one("observer_start_time_seconds", "0x60 3660x30"),
    ),
    "the first exchange, which breaks a decoder": (
        "SidecarDefect",
        25,
        event("observe_failed", "_x20 1x30") | started("observer_", 20),
    ),
    "a certificate refused last night": (
        "SidecarCertificateRefused",
        12 * 60,
        one("certificate_failures_total", "0x60 1x900"),
    ),
    "an upstream that lets nobody through, where few ask": (
        "SidecarUpstreamFailing",
        60,
        upstream("0x30 1x3 2x3 3x3 4x3 5x3 6x3 7x9", "5x90"),
    ),
    "the few webhooks of a source, all refused": (
        "SidecarWebhooksRefused",
        120,
        webhooks(forged="0x30 1x30 2x20 3x60", accepted="0x200"),
    ),
    "a conflict in the first post after a start": (
        "BillingConflicts",
        25,
        billing_event("conflict", "_x20 1x30") | started("billing_", 20),
    ),
    "a rejection in the first post after a start": (
        "BillingRejects",
        25,
        billing_event("rejected", "3x20 3x30") | one("billing_start_time_seconds", "0x20 1260x30"),
    ),
    "events refused by a replica that was started again": (
        "BillingTooBusy",
        30,
        one("billing_ingest_refused_events_total", "9x22 0x2 5x30"),
    ),
    "an alert given up this morning": ("BillingAlertsGivenUp", 600, one("billing_alerts_given_up", "0x60 1x900")),
    "the second alert that is given up": (
        "BillingAlertsGivenUp",
        A_DAY + 60,
        one("billing_alerts_given_up", f"1x{A_DAY} 2x99"),
    ),
    "an alert given up by a replica that was away": (
        "BillingAlertsGivenUp",
        3 * A_DAY,
        one("billing_alerts_given_up", f"0x{A_DAY} _x{A_DAY} 1x{A_DAY}"),
    ),
    "an alert given up by a replica as it starts": (
        "BillingAlertsGivenUp",
        2 * A_DAY,
        one("billing_alerts_given_up", f"0x{A_DAY}")
        | elsewhere(one("billing_alerts_given_up", f"_x{A_DAY} 1x{A_DAY + 9}"), pod="q"),
    ),
}
# What is no news.
QUIET = {
    "a replica that is new among others": (
        "SidecarSessionsExpired",
        30,
        counted(LOST, "5x60") | elsewhere(counted(LOST, "_x20 5x60"), pod="q"),
    ),
    "the first scrape of all, of an old system": ("SidecarSessionsExpired", 30, counted(LOST, "_x25 5x60")),
    "counters that began anew with Redis": ("SidecarSessionsExpired", 30, counted(LOST, "5x20 0x30")),
    "a loss two hours ago": ("SidecarSessionsExpired", 200, counted(LOST, "0x60 1x200")),
    "a loss of yesterday": ("SidecarSessionsExpired", A_DAY, counted(LOST, f"0x60 1x{A_DAY}")),
    "a past without customers": ("SidecarCustomersMissing", 90, customers("1000000+10x130", "0+10x130")),
    "no traffic at all": ("SidecarCustomersMissing", 90, customers("70x130", "0x130")),
    "customers before the first exchange": ("SidecarCustomersMissing", 90, customers("0x130", "0x130")),
    "copies dropped last week, and an outage since": ("SidecarCopiesDropped", 55, drops("7x10 _x38 7x30")),
    "copies dropped last week, and a night without an observer": (
        "SidecarCopiesDropped",
        605,
        drops("7x10 _x588 7x30", "7x10 _x588 7x30"),
    ),
    "damage of last week, and a night without an observer": (
        "SidecarQueueDamaged",
        605,
        one("queue_corruptions_total", "2x10 _x588 2x30"),
    ),
    "a new pod": ("SidecarCopiesDropped", 25, drops("_x20 0x30", "_x20 0x30")),
    "damage that was told": ("SidecarQueueDamaged", 60, one("queue_corruptions_total", "0x20 1x60")),
    "data that was found gone an hour ago": (
        "SidecarDataLost",
        80,
        event("facts_lost", "_x20 1x90") | started("observer_", 20),
    ),
    "an observer that starts well": (
        "SidecarDataLost",
        25,
        event("facts_lost", "_x20 0x90") | started("observer_", 20),
    ),
    "a few connections that failed among others": ("SidecarUpstreamFailing", 60, upstream("0x50 4x20", "0+1x90")),
    "one connection that failed": ("SidecarUpstreamFailing", 60, upstream("0x50 1x20", "5x90")),
    "one forged webhook at a quiet address": (
        "SidecarWebhooksRefused",
        120,
        webhooks(forged="0x30 1x99", accepted="0x200"),
    ),
    "a few forged webhooks among good ones": (
        "SidecarWebhooksRefused",
        120,
        webhooks(forged="0x30 5x99", accepted="0x10 1x200"),
    ),
    "a conflict that was told": (
        "BillingConflicts",
        80,
        billing_event("conflict", "_x20 1x90") | started("billing_", 20),
    ),
    "an alert given up long ago": (
        "BillingAlertsGivenUp",
        3 * A_DAY,
        one("billing_alerts_given_up", f"0x60 1x{3 * A_DAY}"),
    ),
    "a new replica that shows the old ones": (
        "BillingAlertsGivenUp",
        3 * A_DAY,
        one("billing_alerts_given_up", f"1x{3 * A_DAY}")
        | elsewhere(one("billing_alerts_given_up", f"_x{2 * A_DAY} 1x{A_DAY + 9}"), pod="q"),
    ),
}


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


@pytest.mark.parametrize(("name", "minutes", "series"), FIRES.values(), ids=FIRES)
def test_it_is_told(name, minutes, series):
    [(labels, _)] = firing(RULES[name], series_of(series), minutes * 60)
    assert labels.get("tenant", "a") == "a"


@pytest.mark.parametrize(("name", "minutes", "series"), QUIET.values(), ids=QUIET)
def test_it_is_no_news(name, minutes, series):
    assert firing(RULES[name], series_of(series), minutes * 60) == []


@pytest.mark.parametrize("name", RULES)
def test_what_is_well_elsewhere_hides_nothing_and_what_is_not_is_told_of_each(name):
    rule, at = RULES[name], LATER.get(name, 30 * 60)
    bad, good = CASES[name]
    of_tenant = any('tenant="' in series for series in bad)
    places = [{"namespace": "m"}, *([{"tenant": "b", "pod": "q"}] if of_tenant else [])]
    if not of_tenant and name != "BillingDown":  # a replica's own trouble, and another that has none
        places.append({"pod": "q"})
    for place in places:
        assert len(firing(rule, series_of(elsewhere(good, **place) | bad), at)) == 1, place
    for place in places[: 1 + of_tenant]:
        assert len(firing(rule, series_of(elsewhere(bad, **place) | bad), at)) == 2, place


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
    assert evaluate('g unless h{b!="x"}', series, 540) == evaluate("g", series, 540)
    assert evaluate("g unless on (a) c_total", series, 540) == []
    assert [value for _, value in evaluate("h or g or c_total", series, 540)] == [2.0, 43.0]
    assert evaluate("h > g", series, 540) == []
    assert [value for _, value in evaluate("g > h", series, 540)] == [5.0]
    assert evaluate("time() - h", series, 540) == [({"a": "1", "b": "x"}, 538.0)]
    [(_, earlier)] = evaluate("c_total offset 2m", series, 540)
    assert earlier == 23.0
    assert [value for _, value in evaluate("last_over_time(c_total[2m] offset 1h)", series, 4200)] == [53.0]
    assert evaluate("c_total offset 1h", series, 4500) == []
