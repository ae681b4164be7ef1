"""The list of every environment variable, for `sidecar run --settings` and docs/configuration.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar.settings import BY_SOURCE, PREFIX, Settings, is_secret

_HEAD = """# Configuration

`sidecar run` is configured by environment variables alone (a `.env` file is not read). Every secret `X` may be given
as `X_FILE`, the path of a file that holds it. Every wrong variable is named at once, on stderr, with exit code 2; an
unknown `SIDECAR_…` name is a warning with the nearest known one. `sidecar doctor` checks what the variables point at.

The timeouts of a session stand in the rate plan (`session_config`), not here. What happens at each of the proxy's
limits, and which metric counts it, stands in [limits.md](limits.md). OpenTelemetry has variables of its own
([opentelemetry.md](opentelemetry.md)).

| variable | default | meaning |
|---|---|---|
"""

_TAIL = """
## Locators

Where a value is found in an exchange. Several, separated by `;`, are tried in order.

| locator | finds |
|---|---|
| `header:NAME` | a request header |
| `query:NAME` | a query parameter |
| `cookie:NAME` | a cookie |
| `baggage:KEY` | an entry of the `baggage` header (W3C Baggage) |
| `jwt:CLAIM` | a claim of the bearer token (its signature is not checked) |
| `path:/conversations/{}/messages` | the part of the path at `{}` |
| `body:JMESPATH` | a value in the JSON request body |
| `response.header:NAME`, `response.body:JMESPATH` | the same of the response |
| `listener:NAME` | the route, by its listen address |
| `literal:TEXT` | always this text |

A value longer than 256 bytes, or with control characters, is not used, and counted.

## The billing API

`sidecar billing` reads `SIDECAR_DATA_DIR` as above, and these:

| variable | default | meaning |
|---|---|---|
| `SIDECAR_BILLING_LISTEN` | `127.0.0.1:8095` | where it listens |
| `SIDECAR_BILLING_DATABASE_URL` | SQLite in the data directory | the ledger's database |
| `SIDECAR_BILLING_TOKEN`, `…_FILE` | – | bearer token, for the console too; needed unless the address is loopback |
| `SIDECAR_BILLING_VIEWER_TOKEN`, `…_FILE` | – | a second token, which only reads |
| `SIDECAR_BILLING_PLAN` | a built-in Fin-style plan | path of the default plan |
| `SIDECAR_BILLING_GRACE_HOURS` | `72` | how long after its end a period stays open; then it is closed for ever |
| `SIDECAR_BILLING_ALERT_URL` | – | where alerts about spending are posted, as Standard Webhooks |
| `SIDECAR_BILLING_ALERT_SECRET`, `…_FILE` | made once, kept in the database | `whsec_…`, what alerts are signed with |
| `SIDECAR_BILLING_EXPORTS` | – | path of a file: what other billing systems receive ([exports.md](exports.md)) |
| `SIDECAR_BILLING_HELP_DESK_URL` | – | where the console links to, like `https://example.com/{conversation}` |
"""


def describe() -> str:
    """For the terminal."""
    return "\n".join(f"{names} (default: {default})\n    {meaning}" for names, default, meaning in _rows())


def rows() -> list[dict[str, Any]]:
    """For programs."""
    return [
        {"variables": names.split(", "), "default": None if default == "–" else default, "meaning": meaning}
        for names, default, meaning in _rows()
    ]


def document() -> str:
    """docs/configuration.md."""
    table = (
        f"| `{names.replace(', ', '`, `')}` | {_code(default)} | {meaning} |\n" for names, default, meaning in _rows()
    )
    return _HEAD + "".join(table) + _TAIL


def _rows() -> Iterator[tuple[str, str, str]]:
    for name, field in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        if name in BY_SOURCE:
            prefix, meaning = BY_SOURCE[name]
            yield f"{prefix}<SOURCE>", "–", meaning
        else:
            names = f"{variable}, {variable}_FILE" if is_secret(name) else variable
            yield names, _shown(field.default), str(field.description)


def _shown(default: Any) -> str:
    if default is None or default in ((), ""):
        return "–"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int) and default >= 2**20:
        gib = default % 2**30 == 0
        return f"{default // 2**30}GiB" if gib else f"{default // 2**20}MiB"
    return str(default)


def _code(text: str) -> str:
    return text if text == "–" else f"`{text}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
