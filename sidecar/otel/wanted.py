"""What OpenTelemetry's standard variables ask for, and what of it cannot be given. Loads no SDK.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

SIGNALS: Final = ("traces", "metrics", "logs")
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL: Final = "http/protobuf"
_NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def wanted(environ: Mapping[str, str]) -> frozenset[str]:
    """The signals to be sent: those that have an endpoint, and are not switched off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    return frozenset(
        signal
        for signal in SIGNALS
        if (environ.get(_ENDPOINT) or environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"))
        and environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip().lower() != "none"
    )


def installed() -> bool:
    """Whether the extra `otel` is."""
    try:
        return all(find_spec(name) is not None for name in _NEEDED)
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def problems(environ: Mapping[str, str]) -> list[str]:
    """A sentence for everything that is asked for in vain."""
    signals = wanted(environ)
    if not signals:
        return []
    if not installed():
        return [
            f"{_ENDPOINT} is set, and nothing is sent there: install the extra (pip install 'outcome-sidecar[otel]')"
        ]
    found = []
    for signal in sorted(signals):
        for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            said = environ.get(name, "").strip()
            if said:
                if said != _PROTOCOL:
                    found.append(
                        f"{name}={said} is not spoken: {_PROTOCOL} is sent instead, which collectors take at port 4318"
                    )
                break
    return list(dict.fromkeys(found))


def number(environ: Mapping[str, str], name: str, default: int) -> int:
    """A positive whole number; the default where it is none."""
    text = environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else default
