"""Series as Prometheus would have them, for rules to be tried on: by name, as a promtool test writes them."""

import re

POD = 'namespace="n",pod="p"'


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


def counted(what, values, tenant="a"):
    return one("tenant_count", values, tenant=tenant, what=what)


def customers(exchanges, with_customer, tenant="a"):
    return counted("exchanges", exchanges, tenant) | counted("exchanges_with_customer", with_customer, tenant)


def drops(queue, spill="0x90"):
    return one("queue_records_dropped_total", queue) | one("spill_dropped_total", spill)


def webhooks(**results):
    return {
        name: values
        for result, given in results.items()
        for name, values in one("webhooks_total", given, source="zendesk", result=result).items()
    }


def upstream(failures, connects):
    return one("upstream_failures_total", failures) | one("upstream_connects_total", connects)


def elsewhere(series, **labels):
    """The same in another pod, namespace or tenant."""
    moved = {}
    for text, values in series.items():
        found = text
        for label, value in labels.items():
            found = re.sub(rf'\b{label}="[^"]*"', f'{label}="{value}"', found)
        moved[found] = values
    return moved


def started(part, minute):
    """When the process said to have been started, at a minute of the test."""
    return one(f"{part}start_time_seconds", f"{60 * minute}x90")


def billing_event(result, values):
    return one("billing_events_total", values, result=result)
