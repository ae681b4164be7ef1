"""Every environment variable of `sidecar billing`, once; every wrong one is named at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from sidecar.addresses import Address, parse_address
from sidecar.billing.exports.config import Destination, ExportsError, load_exports
from sidecar.billing.ledger.database import database_url, sqlite_url
from sidecar.billing.signing import is_secret
from sidecar.billing.tokens import Tokens
from sidecar.policy.conditions import number
from sidecar.policy.loading import LoadedPlan, PlanError, builtin_plan, load_plan

DEFAULT_LISTEN = "127.0.0.1:8095"
DEFAULT_DATA_DIR = "./.sidecar"
_LEVELS = ("debug", "info", "warning", "error")
_FORMATS = ("auto", "json", "text")
_PREFIX = "SIDECAR_BILLING_"
_OURS = (
    "LISTEN", "DATABASE_URL", "TOKEN", "TOKEN_FILE", "VIEWER_TOKEN", "VIEWER_TOKEN_FILE", "PLAN", "GRACE_HOURS",
    "ALERT_URL", "ALERT_SECRET", "ALERT_SECRET_FILE", "EXPORTS", "HELP_DESK_URL",
)  # fmt: skip
# Of `sidecar run`, and of parts that a deployment may configure for both.
_OTHERS = ("URL",)
_GRACE_HOURS_MAX = 24 * 90
# What Kubernetes puts into every container for a Service named sidecar-billing.
_SERVICE_VARIABLE = re.compile(r"SERVICE_HOST$|SERVICE_PORT(_|$)|^PORT$|PORT_\d+_")


class BillingSettingsError(ValueError):
    """The configuration is wrong; `problems` has one sentence for each thing that must change."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """`tokens` empty: nobody is asked for one, which only a loopback address may do.

    `grace_us`: how long after its end a period stays open. `alert_secret` None: one is made and kept in the
    database. `help_desk_url`: a link with `{conversation}` in it.
    """

    listen: Address
    database: URL
    tokens: Tokens
    plan: LoadedPlan
    data_dir: Path
    log_level: str
    log_format: str
    grace_us: int
    alert_url: str | None = None
    alert_secret: str | None = None
    exports: tuple[Destination, ...] = ()
    help_desk_url: str | None = None
    warnings: tuple[str, ...] = ()


def load_billing_settings(environ: Mapping[str, str]) -> BillingSettings:
    """Read the environment; raises BillingSettingsError. Makes nothing: `make_data_dir` does."""
    problems: list[str] = []
    data_dir = Path(environ.get("SIDECAR_DATA_DIR") or DEFAULT_DATA_DIR)
    listen = _listen(environ.get("SIDECAR_BILLING_LISTEN") or DEFAULT_LISTEN, problems)
    tokens = _tokens(environ, problems)
    if not tokens and not listen.is_loopback:
        problems.append(
            f"SIDECAR_BILLING_TOKEN is needed, since SIDECAR_BILLING_LISTEN={listen} can be reached from outside: "
            "set it, or listen on 127.0.0.1"
        )
    database = sqlite_url(data_dir / "billing.sqlite3")
    if environ.get("SIDECAR_BILLING_DATABASE_URL"):
        try:
            database = database_url(environ["SIDECAR_BILLING_DATABASE_URL"])
        except ValueError as error:
            problems.append(f"SIDECAR_BILLING_DATABASE_URL {error}")
    settings = BillingSettings(
        listen=listen,
        database=database,
        tokens=tokens,
        plan=_plan(environ.get("SIDECAR_BILLING_PLAN"), problems),
        data_dir=data_dir,
        log_level=_choice(environ, "SIDECAR_LOG_LEVEL", _LEVELS, "info", problems),
        log_format=_choice(environ, "SIDECAR_LOG_FORMAT", _FORMATS, "auto", problems),
        grace_us=_grace_us(environ.get("SIDECAR_BILLING_GRACE_HOURS") or "72", problems),
        alert_url=_alert_url(environ.get("SIDECAR_BILLING_ALERT_URL") or None, problems),
        alert_secret=_alert_secret(_secret(environ, "SIDECAR_BILLING_ALERT_SECRET", problems), problems),
        exports=_exports(environ, problems),
        help_desk_url=_help_desk_url(environ.get("SIDECAR_BILLING_HELP_DESK_URL") or None, problems),
        warnings=tuple(_unknown(environ)),
    )
    if problems:
        raise BillingSettingsError(problems)
    return settings


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """A misspelt name would silently mean the default, of the plan for instance: say so."""
    for name in sorted(environ):
        rest = name.removeprefix(_PREFIX)
        if rest == name or rest in (*_OURS, *_OTHERS) or _SERVICE_VARIABLE.search(rest):
            continue
        close = difflib.get_close_matches(rest, _OURS, n=1, cutoff=0.5)
        yield f"{name} is not known" + (f"; did you mean {_PREFIX}{close[0]}?" if close else "")


def make_data_dir(settings: BillingSettings) -> None:
    """Make the data directory, mode 0700; raises BillingSettingsError."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BillingSettingsError([f"SIDECAR_DATA_DIR={settings.data_dir} cannot be made: {error.strerror}"]) from None


def _listen(text: str, problems: list[str]) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        problems.append(f"SIDECAR_BILLING_LISTEN={text} {error}")
        return parse_address(DEFAULT_LISTEN)


def _secret(environ: Mapping[str, str], name: str, problems: list[str]) -> str | None:
    """The value, or what is in the file named by `…_FILE`; the value itself is never shown."""
    given, path = environ.get(name), environ.get(f"{name}_FILE")
    if given and path:
        problems.append(f"{name} and {name}_FILE are both set: keep one")
    if path:
        try:
            given = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}_FILE={path} cannot be read: {getattr(error, 'strerror', None) or error}")
            return "unreadable"
        if not given:
            problems.append(f"{name}_FILE={path} is empty")
    return given or None


def _tokens(environ: Mapping[str, str], problems: list[str]) -> Tokens:
    operator = _secret(environ, "SIDECAR_BILLING_TOKEN", problems)
    viewer = _secret(environ, "SIDECAR_BILLING_VIEWER_TOKEN", problems)
    if viewer is not None and operator is None:
        problems.append("SIDECAR_BILLING_VIEWER_TOKEN is set without SIDECAR_BILLING_TOKEN: set both, or neither")
    if viewer is not None and viewer == operator:
        problems.append("SIDECAR_BILLING_VIEWER_TOKEN and SIDECAR_BILLING_TOKEN are the same: a viewer needs its own")
    return Tokens(operator, viewer)


def _help_desk_url(url: str | None, problems: list[str]) -> str | None:
    if url is not None and (not re.fullmatch(r"https?://[^\s/?#]+([/?#]\S*)?", url) or "{conversation}" not in url):
        problems.append(
            f"SIDECAR_BILLING_HELP_DESK_URL={url} must be a URL with {{conversation}} in it, "
            "like https://example.com/tickets/{conversation}"
        )
    return url


def _grace_us(text: str, problems: list[str]) -> int:
    hours = number(text)
    if hours is None or not 0 <= hours <= _GRACE_HOURS_MAX:
        problems.append(f"SIDECAR_BILLING_GRACE_HOURS={text} must be a number of hours from 0 to {_GRACE_HOURS_MAX}")
        return 0
    return int(hours * 3_600_000_000)


def _alert_url(url: str | None, problems: list[str]) -> str | None:
    if url is not None and not re.fullmatch(r"https?://[^\s/?#]+([/?]\S*)?", url):
        problems.append(f"SIDECAR_BILLING_ALERT_URL={url} must be a URL like https://example.com/hooks/billing")
    return url


def _alert_secret(secret: str | None, problems: list[str]) -> str | None:
    """Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes."""
    if secret is None:
        return None
    if not is_secret(secret):
        problems.append("SIDECAR_BILLING_ALERT_SECRET must be whsec_ and the base64 of 24 to 64 random bytes")
    return secret


def _plan(path: str | None, problems: list[str]) -> LoadedPlan:
    if not path:
        return builtin_plan()
    try:
        return load_plan(Path(path).read_bytes(), path)
    except OSError as error:
        problems.append(f"SIDECAR_BILLING_PLAN={path} cannot be read: {error.strerror}")
    except PlanError as error:
        problems.extend(f"SIDECAR_BILLING_PLAN: {problem}" for problem in error.problems)
    return builtin_plan()


def _exports(environ: Mapping[str, str], problems: list[str]) -> tuple[Destination, ...]:
    path = environ.get("SIDECAR_BILLING_EXPORTS")
    if not path:
        return ()
    try:
        return tuple(load_exports(Path(path).read_bytes(), path, environ))
    except OSError as error:
        problems.append(f"SIDECAR_BILLING_EXPORTS={path} cannot be read: {error.strerror}")
    except ExportsError as error:
        problems.extend(f"SIDECAR_BILLING_EXPORTS: {problem}" for problem in error.problems)
    return ()


def _choice(environ: Mapping[str, str], name: str, allowed: tuple[str, ...], default: str, problems: list[str]) -> str:
    value = environ.get(name) or default
    if value not in allowed:
        problems.append(f"{name}={value} must be one of {', '.join(allowed)}")
        return default
    return value
