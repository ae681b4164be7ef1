"""Spans, metrics and outcomes for an OpenTelemetry collector, by its GenAI conventions. Out of band: in the observer.

Owns what of an exchange and of an outcome is told there (`operations`, `evaluations`: pure) and how it leaves
(`outlet`, `exporting`: bounded, never waited for). Nothing here is loaded unless an endpoint is set, and the SDK, which
is the extra `otel`, only by `exporting`.
"""
