"""The chart's monitoring: off by default; the dashboard and the scraping are about what is there."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from charts import CHART, MINIMAL, pods, render
from promql import evaluate, selectors, series_of
from scraping import measure_of

MONITORED = CHART / "ci" / "monitoring-values.yaml"
DASHBOARD = json.loads((CHART / "monitoring" / "dashboard.json").read_text())
TARGET = {"job", "namespace", "pod", "instance", "container", "endpoint"}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [
    pytest.param(target["expr"], target["legendFormat"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]


@pytest.fixture(scope="module")
def objects():
    return render(MONITORED)


def test_nothing_of_it_is_there_by_default():
    kinds = {kind for kind, _ in render(MINIMAL)}
    assert kinds.isdisjoint({"PodMonitor", "PrometheusRule", "ConfigMap"})


def test_the_rules_are_those_of_the_file(objects):
    rules = objects["PrometheusRule", "demo-outcome-sidecar"]
    assert rules["spec"] == yaml.safe_load((CHART / "monitoring" / "alerts.yaml").read_text())
    assert rules["metadata"]["labels"]["release"] == "prometheus"


def test_the_dashboard_is_that_of_the_file_and_grafana_finds_it(objects):
    config = objects["ConfigMap", "demo-outcome-sidecar-dashboard"]
    assert json.loads(config["data"]["outcome-sidecar.json"]) == DASHBOARD
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_what_is_scraped_is_there_under_the_names_that_the_alerts_know(objects):
    alerts = (CHART / "monitoring" / "alerts.yaml").read_text()
    monitors = [document for (kind, _), document in objects.items() if kind == "PodMonitor"]
    assert len(monitors) == 2
    for monitor in monitors:
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        labels = monitor["spec"]["selector"]["matchLabels"]
        pod = pods(objects)[labels["app.kubernetes.io/component"]]
        ports = [
            port["name"] for c in [*pod.get("initContainers", []), *pod["containers"]] for port in c.get("ports", [])
        ]
        assert ports.count(endpoint["port"]) == 1
        assert (endpoint["path"], endpoint["interval"]) == ("/metrics", "15s")
        [relabeling] = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        assert f'up{{job="{relabeling["replacement"]}"}}' in alerts


def test_without_the_billing_api_of_the_chart_it_is_not_scraped():
    settings = ["billing.enabled=false", "billing.url=https://billing.example.com"]
    names = [name for kind, name in render(MONITORED, settings=settings) if kind == "PodMonitor"]
    assert names == ["demo-outcome-sidecar-agent"]


def plain(expression):
    """With what Grafana puts in the place of its variables."""
    return expression.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$pod", ".*")


@pytest.mark.parametrize(("expression", "legend"), EXPRESSIONS)
def test_a_panel_asks_for_metrics_and_labels_that_are_documented(expression, legend):
    found, grouped = selectors(plain(expression))
    assert found
    labels = set(TARGET)
    for name, matched in found:
        measure = measure_of(name)
        assert measure is not None, name
        own = {label.name: label for label in measure.labels}
        labels |= own.keys() | ({"le"} if measure.kind == "histogram" else set())
        for label, value, _ in matched:
            assert label in labels, f"{name}{{{label}}}"
            if label in own and own[label].values and value != ".*":
                assert set(value.split("|")) <= own[label].values.keys(), value
        rated = re.search(rf"(?:rate|increase)\({name}\b", expression)
        assert bool(rated) == (measure.kind != "gauge"), f"{name} is a {measure.kind}"
    assert grouped <= labels
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= (grouped or labels)


# What every replica shows alike, so that it is the max of them, and has to be added over tenants and namespaces.
ADDED = {
    "sidecar_sessions": 12,
    "sidecar_dead_letters": 12,
    "sidecar_outbox_length": 12,
    "sidecar_billing_statement_difference": 12,
    "sidecar_billing_pending_rows": 8,
    "sidecar_billing_alerts_waiting": 8,
    "sidecar_billing_export_entries": 8,
}


@pytest.mark.parametrize(("expression", "legend"), EXPRESSIONS)
def test_a_panel_adds_up_tenants_and_namespaces_and_no_replica_twice(expression, legend):
    [(name, matched), *_], _ = selectors(plain(expression))
    bare = expression.startswith(("max(", "max by"))
    assert not bare or name.endswith("_seconds"), legend
    if name not in ADDED:
        return
    own = "".join(f',{label}="{value}"' for label, value, _ in matched if label != "namespace")
    of_tenant = ADDED[name] == 12
    shown = {("n", "p", "a"): 3, ("n", "q", "a"): 3, ("m", "p", "a"): 5} | ({("n", "r", "b"): 4} if of_tenant else {})
    series = {
        f'{name}{{namespace="{namespace}",pod="{pod}"{own}'
        + (f',tenant="{tenant}"}}' if of_tenant else "}"): f"{value}x9"
        for (namespace, pod, tenant), value in shown.items()
    }
    assert [value for _, value in evaluate(plain(expression), series_of(series), 300)] == [ADDED[name]]


def test_the_dashboard_is_put_together_as_grafana_wants_it():
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identities) == len(set(identities))
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] <= at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for variable in DASHBOARD["templating"]["list"][1:]:
        [metric] = re.findall(r"label_values\((\w+)", variable["query"]["query"])
        assert measure_of(metric) is not None


def test_the_parser_would_refuse_a_mistake():
    with pytest.raises(ValueError):
        promql_parser.parse("sum by (a (x)")


def test_what_operators_need_most_is_on_the_dashboard():
    shown = {name for expression in EXPRESSIONS for name, _ in selectors(plain(expression.values[0]))[0]}
    assert {
        "sidecar_requests_total",
        "sidecar_added_latency_seconds_bucket",
        "sidecar_loop_lag_seconds_bucket",
        "sidecar_queue_used_bytes",
        "sidecar_queue_records_dropped_total",
        "sidecar_observe_seconds_bucket",
        "sidecar_sessions",
        "sidecar_journal_bytes",
        "sidecar_part_up",
        "sidecar_outbox_length",
        "sidecar_outbox_oldest_seconds",
        "sidecar_exchanges_with_customer_ratio",
        "sidecar_billing_statement_difference",
    } <= shown
    assert Path(CHART / ".helmignore").read_text().find("monitoring") == -1
