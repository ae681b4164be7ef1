"""Every environment variable of `sidecar run`, once.

`load_settings` reads them all and names every wrong one at once; nothing else in the sidecar looks at the environment.
Any secret `X` may be given as `X_FILE`, the path of a file that holds it (how Kubernetes mounts secrets).
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from sidecar.addresses import Address
from sidecar.intake.webhooks import Endpoint, endpoints
from sidecar.settings_types import (
    EMBEDDED,
    BaseUrl,
    BillingUrl,
    Boolean,
    ByteSize,
    ListenAddress,
    Locators,
    RedisUrl,
    Route,
    Routes,
    SocketMode,
    Tenant,
    UpstreamOrigin,
)

PREFIX = "SIDECAR_"
_WEBHOOK_PREFIX = "SIDECAR_WEBHOOK_SECRET_"
_CREDENTIALS = re.compile(r"//[^/\s]*@")
_CONVERSATION_PREFIX = "SIDECAR_WEBHOOK_CONVERSATION_"
# Fields of many variables, one for each source of webhooks: as documented, and what it means.
BY_SOURCE = {
    "webhook_secrets": (
        _WEBHOOK_PREFIX,
        "the secret of a webhook source (webhooks.md); `…_PREVIOUS` is accepted as well during rotation",
    ),
    "webhook_conversations": (
        _CONVERSATION_PREFIX,
        "where a source's webhooks name the conversation: JMESPath over `payload` and `headers`",
    ),
}
# What Kubernetes puts into every container for each Service whose name begins with "sidecar".
_SERVICE_VARIABLE = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT$|_PORT_\d+_")
# Known names that belong to other commands, so that one environment can serve all of them.
OTHER_COMMANDS = (
    "BILLING_LISTEN",
    "BILLING_DATABASE_URL",
    "BILLING_PLAN",
    "BILLING_GRACE_HOURS",
    "BILLING_ALERT_URL",
    "BILLING_ALERT_SECRET",
    "BILLING_EXPORTS",
    "BILLING_VIEWER_TOKEN",
    "BILLING_HELP_DESK_URL",
)
_SECONDS_MAX = 30 * 86_400
_HOURS_MAX = 10 * 366 * 24
TLS_FILES = ("tls_cert_file", "tls_key_file", "upstream_ca_file", "upstream_cert_file", "upstream_key_file")


class SettingsError(ValueError):
    """The configuration is wrong; `problems` has one sentence for each variable that must change.

    `rest` is what the other variables say, so that what they name can be looked at too before anybody is told.
    """

    def __init__(self, problems: list[str], rest: Settings | None = None) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.rest = rest


class Settings(BaseModel):
    """The environment of `sidecar run`; the field `x_y` is the variable `SIDECAR_X_Y`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    upstream: UpstreamOrigin | None = Field(
        None, description="where requests go: http://host:port or https://host, no path"
    )
    redis_url: RedisUrl = Field(EMBEDDED, description="where sessions live")
    billing_url: BillingUrl = Field(EMBEDDED, description="base URL of the central billing API")
    billing_token: SecretStr | None = Field(None, description="sent to the billing API as a bearer token")
    plan: Path | None = Field(None, description="path of the rate plan (default: a built-in Fin-style plan)")
    plan_candidate: Path | None = Field(None, description="path of a plan that is judged beside it, never posted")
    customer: Locators = Field(
        "header:x-customer-id;baggage:customer.id;body:metadata.customer_id",
        description="locators of the customer to be billed",
    )
    listen: ListenAddress = Field(Address("127.0.0.1", 8080), description="where the agent's traffic arrives")
    routes: Routes = Field(
        (),
        description="several listen=upstream pairs, comma-separated, instead of listen and upstream",
    )
    preserve_host: Boolean = Field(False, description="true leaves the Host field as the client sent it")
    admin_listen: ListenAddress = Field(Address("127.0.0.1", 8090), description="health, metrics, signals, sessions")
    admin_token: SecretStr | None = Field(
        None, description="bearer token of /v1/*; required unless the admin address is loopback"
    )
    mode: Literal["live", "shadow"] = Field("live", description="shadow: everything happens, nothing is invoiced")
    tenant: Tenant = Field("default", description="the seller whose deployment this is")
    session_keys: Locators = Field("", description="locators of the conversation id, tried before the built-in ones")
    webhook_secrets: dict[str, tuple[SecretStr, ...]] = Field(default_factory=dict, exclude=True)
    webhook_conversations: dict[str, str] = Field(default_factory=dict)
    webhook_base_url: BaseUrl | None = Field(
        None,
        description="base URL under which senders of webhooks know the admin address, for those who sign it (HubSpot); "
        "by default `https://` and the Host field as it arrives",
    )
    data_dir: Path = Field(Path("./.sidecar"), description="journal, embedded databases; mode 0700")
    queue_dir: Path = Field(Path("/dev/shm"), description="a tmpfs for the queue's memory")  # noqa: S108 - a tmpfs by intent
    queue_bytes: ByteSize = Field(32 * 2**20, ge=2**20, description="size of the queue between proxy and observer")
    capture_body_bytes: ByteSize = Field(8 * 2**20, ge=2**16, description="most of one body that is copied")
    journal_hours: float = Field(168, gt=0, le=_HOURS_MAX, description="how long applied observations are kept")
    journal_bytes: ByteSize = Field(2**30, ge=2**20, description="how much of them is kept")
    outbox_max: int = Field(1_000_000, ge=100, description="undelivered outcomes; at the cap finalization waits")
    drain_seconds: float = Field(
        25, ge=0, le=_SECONDS_MAX, description="how long open exchanges may take to finish after SIGTERM"
    )
    hash_key: SecretStr | None = Field(
        None, description="key of the HMAC over stored digests (default: made once, kept in Redis)"
    )
    tls_cert_file: Path | None = Field(
        None, description="PEM file of the listeners' certificate and its chain; read again when it changes"
    )
    tls_key_file: Path | None = Field(
        None, description="PEM file of its key, when that is not in the certificate's file"
    )
    socket_mode: SocketMode = Field("0660", description="access mode of a `unix:` listener's socket file")
    upstream_ca_file: Path | None = Field(
        None, description="PEM file of the authorities to trust for upstreams (default: the system's)"
    )
    upstream_cert_file: Path | None = Field(
        None, description="PEM file of the client certificate shown to upstreams; read again when it changes"
    )
    upstream_key_file: Path | None = Field(
        None, description="PEM file of its key, when that is not in the certificate's file"
    )
    max_head_bytes: ByteSize = Field(
        65_536,
        ge=4096,
        le=2**20,
        description="most bytes of one message's head; a larger request is answered 431, a larger response 502",
    )
    max_headers: int = Field(200, ge=16, le=10_000, description="most header fields of one message; past it likewise")
    max_connections: int = Field(
        8192,
        ge=1,
        le=500_000,
        description="most client connections to all listeners together; one more is answered 503 and closed",
    )
    header_timeout_seconds: float = Field(
        30,
        gt=0,
        le=_SECONDS_MAX,
        description="how long a client may take for a request's head, for the first one from its connection on, and "
        "for a TLS handshake: a head begun and not finished is answered 408, a silent client is closed",
    )
    idle_timeout_seconds: float = Field(
        300,
        gt=0,
        le=_SECONDS_MAX,
        description="how long a client's connection may stay without a request under way; a request itself, "
        "a stream or a tunnel has no timeout",
    )
    connect_timeout_seconds: float = Field(
        10,
        gt=0,
        le=_SECONDS_MAX,
        description="how long a connection to an upstream may take, TLS handshake included (then 504), and how long a "
        "request waits for one when all that are allowed are in use (then 503)",
    )
    upstream_connections: int = Field(4096, ge=1, le=500_000, description="most connections to one upstream")
    upstream_idle_seconds: float = Field(
        55,
        gt=0,
        le=_SECONDS_MAX,
        description="how long an unused connection to an upstream is kept; less than the upstream keeps it",
    )
    upstream_dns_seconds: float = Field(
        30,
        ge=0,
        le=_SECONDS_MAX,
        description="how often an upstream's name is looked up again; connections to an address that three look-ups "
        "in a row did not find are closed when they are idle (0: never)",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is logged")
    log_format: Literal["json", "text", "auto"] = Field(
        "auto", description="json, text, or auto: json when stderr is not a terminal"
    )

    @model_validator(mode="after")
    def _together(self) -> Settings:
        wrong = []
        if self.routes and self.upstream is not None:
            wrong.append("SIDECAR_ROUTES: give either SIDECAR_ROUTES or SIDECAR_UPSTREAM, not both")
        if not self.admin_listen.is_loopback and self.admin_token is None:
            wrong.append(
                "SIDECAR_ADMIN_TOKEN: is required because "
                f"SIDECAR_ADMIN_LISTEN ({self.admin_listen}) can be reached from outside"
            )
        for cert, key in (("tls_cert_file", "tls_key_file"), ("upstream_cert_file", "upstream_key_file")):
            if getattr(self, key) is not None and getattr(self, cert) is None:
                wrong.append(f"{PREFIX}{key.upper()}: is of no use without {PREFIX}{cert.upper()}")
        listens = [str(route.listen) for route in self.all_routes if route.listen.port != 0 or route.listen.is_unix]
        twice = sorted({listen for listen in listens if listens.count(listen) > 1})
        if twice:
            wrong.append(f"SIDECAR_ROUTES: {', '.join(twice)} stands there twice")
        if str(self.admin_listen) in listens:
            wrong.append(
                f"SIDECAR_ADMIN_LISTEN: {self.admin_listen} is where the agent's traffic arrives: give another"
            )
        wrong += self._loops()
        try:
            self.webhook_endpoints()
        except ValueError as error:
            wrong += str(error).split("\n")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _loops(self) -> list[str]:
        """Routes that lead back to the sidecar: each request would come in again until no connection is left."""
        name = "SIDECAR_UPSTREAM" if self.upstream is not None else "SIDECAR_ROUTES"
        own = [self.admin_listen, *(route.listen for route in self.all_routes)]
        return [
            f"{name}: {route.upstream} is where the sidecar itself listens: give the address of the LLM or agent API"
            for route in self.all_routes
            if any(route.upstream.is_at(address) for address in own)
        ]

    def webhook_endpoints(self) -> dict[str, Endpoint]:
        """What each source of webhooks needs; raises ValueError naming the wrong variables, one per line."""
        secrets = {
            name: [secret.get_secret_value() for secret in found] for name, found in self.webhook_secrets.items()
        }
        return endpoints(secrets, self.webhook_conversations)

    @property
    def all_routes(self) -> tuple[Route, ...]:
        """The routes however they were given; empty in the intake-only role."""
        if self.upstream is not None:
            return (Route(listen=self.listen, upstream=self.upstream),)
        return self.routes


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """The settings and a list of warnings; raises SettingsError naming every wrong variable."""
    problems: list[str] = []
    values, warnings = _collect(environ, problems)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        problems += [
            f"SIDECAR_{name.upper()}: must be said in a Kubernetes pod: a pod's own disk goes with the pod. "
            f"Give a URL, or say `{EMBEDDED}` if that is what you want."
            for name in ("redis_url", "billing_url")
            if name not in values
        ]
    settings, wrong = _validate(values)
    # What could not be read at all is named already; that it is missing besides is no news.
    named = {problem.partition(":")[0].removesuffix("_FILE") for problem in problems}
    problems += [problem for problem in wrong if problem.partition(":")[0] not in named]
    if settings is None or problems:
        # A misspelt name may be the very reason, so it is said here too.
        raise SettingsError(problems + warnings, _rest(values))
    return settings, warnings


def _validate(values: dict[str, Any]) -> tuple[Settings | None, list[str]]:
    """The settings, or every problem: those of single variables, then those between the variables that are right."""
    try:
        return Settings.model_validate(values), []
    except ValidationError as error:
        entries = error.errors()
    problems = []
    for entry in entries:
        problems += [_sentence(entry)] if entry["loc"] else _sentence(entry).split("\n")
    wrong = {entry["loc"][0] for entry in entries if entry["loc"]}
    if wrong:
        problems += _validate({name: value for name, value in values.items() if name not in wrong})[1]
    return None, problems


def _rest(values: dict[str, Any]) -> Settings:
    """What the variables say that are right by themselves; the others are as if they were not there."""
    right = {}
    for name, value in values.items():
        with contextlib.suppress(ValidationError):
            right[name] = getattr(Settings.model_validate({name: value}), name)
    return Settings.model_construct(**right)


def _collect(environ: Mapping[str, str], problems: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The raw values by field name; unknown names become warnings, unreadable files problems."""
    fields = {name.upper(): name for name in Settings.model_fields if name not in BY_SOURCE}
    known = [*fields, *OTHER_COMMANDS]
    secrets: dict[str, list[SecretStr]] = {}
    conversations: dict[str, str] = {}
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX)
        plain = name.removesuffix("_FILE") if name not in fields else name
        if variable.startswith(_WEBHOOK_PREFIX):
            source = plain.removeprefix("WEBHOOK_SECRET_").removesuffix("_PREVIOUS").lower()
            text = _text(environ, variable, from_file=plain != name, problems=problems)
            if text:
                # Sorted names: X comes before X_PREVIOUS, so the current secret is tried first.
                secrets.setdefault(source, []).append(SecretStr(text))
        elif variable.startswith(_CONVERSATION_PREFIX):
            conversations[variable.removeprefix(_CONVERSATION_PREFIX).lower()] = environ[variable]
        elif plain in fields and (plain == name or is_secret(fields[plain])):
            if plain != name and PREFIX + plain in environ:
                problems.append(f"{variable}: give either {PREFIX}{plain} or {variable}, not both")
                continue
            text = _text(environ, variable, from_file=plain != name, problems=problems)
            if text is not None and (text != "" or plain == "SESSION_KEYS"):
                values[fields[plain]] = text
        elif plain not in OTHER_COMMANDS and not _SERVICE_VARIABLE.search(variable):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            warnings.append(f"{variable} is not a setting of the sidecar and has no effect{hint}")
    values["webhook_secrets"] = {source: tuple(found) for source, found in secrets.items()}
    values["webhook_conversations"] = conversations
    warnings += [
        f"{_CONVERSATION_PREFIX}{source.upper()} has no effect: {_WEBHOOK_PREFIX}{source.upper()} is not set"
        for source in sorted(conversations.keys() - secrets.keys())
    ]
    return values, warnings


def is_secret(field: str) -> bool:
    """Whether the variable of this field may be given as a file, and is never shown."""
    return field == "redis_url" or SecretStr in get_args(Settings.model_fields[field].annotation)


def _text(environ: Mapping[str, str], variable: str, *, from_file: bool, problems: list[str]) -> str | None:
    if not from_file:
        return environ[variable]
    try:
        text = Path(environ[variable]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{variable}: {environ[variable]} cannot be read: {getattr(error, 'strerror', error)}")
        return None
    if not text:
        # Somebody means to have a secret: to go on without one would leave open what it guards.
        problems.append(f"{variable}: {environ[variable]} is empty")
        return None
    return text


def _sentence(entry: Any) -> str:
    message = str(entry["msg"]).removeprefix("Value error, ")
    if not entry["loc"]:
        return message
    variable = PREFIX + str(entry["loc"][0]).upper()
    given = _CREDENTIALS.sub("//***@", str(entry["input"]))
    shown = "" if is_secret(str(entry["loc"][0])) else f" (given: {given[:100]!r})"
    return f"{variable}: {message}{shown}"
