"""The file that `SIDECAR_BILLING_EXPORTS` names: which meters at which target receive what.

Every error at once, with its line. Secrets stand in the environment or in files; here are only their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecar.billing.exports.target import HOUR_US, Endpoint, Target, Traits
from sidecar.billing.exports.targets import TARGETS
from sidecar.billing.signing import is_secret
from sidecar.policy.tree import Tree, read_tree

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Kind = Literal[
    "openmeter", "stripe_v1", "stripe_v2", "lago", "orb", "metronome", "flexprice", "polar", "webhook"
]  # fmt: skip
Hours = Annotated[Decimal | int, Field(gt=0, le=24 * 3660)]
_URL = re.compile(r"https?://[^\s/?#@]+([/?]\S*)?")
TARGETS_MAX = 50
METERS_MAX = 200
CONCURRENCY_MAX = 64


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class SecretSource(_Strict):
    """Where a secret is: the name of a variable, or of a file."""

    env: Annotated[str, Field(min_length=1)] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None


class MeterEntry(_Strict):
    """One meter: the metrics whose units go there, of all plans or of some."""

    code: Annotated[str, Field(min_length=1, max_length=100)]
    metrics: Annotated[list[str], Field(min_length=1, max_length=50)]
    plans: Annotated[list[str], Field(min_length=1, max_length=200)] | None = None
    field: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class TargetEntry(_Strict):
    """One target."""

    name: Name
    kind: Kind
    url: str | None = None
    secret: SecretSource
    customer: Annotated[str, Field(pattern=r"^(id|attributes\.[A-Za-z0-9_.-]{1,64})$")] = "id"
    memory_hours: Hours | None = None
    past_hours: Hours | None = None
    batch_max: Annotated[int, Field(ge=1, le=1000)] | None = None
    concurrency_max: Annotated[int, Field(ge=1, le=CONCURRENCY_MAX)] | None = None
    meters: Annotated[list[MeterEntry], Field(min_length=1, max_length=METERS_MAX)]


class ExportsFile(_Strict):
    """The file."""

    exports: Annotated[list[TargetEntry], Field(min_length=1, max_length=TARGETS_MAX)]


class ExportsError(ValueError):
    """A file that cannot be used; `problems` are all the reasons, by line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter at a target: `code` is its name there, `field` that of the number."""

    code: str
    metrics: frozenset[str]
    plans: frozenset[str] | None
    field: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A target with its meters by code; `customer` says which of a customer's facts is its id there."""

    name: str
    target: Target
    traits: Traits
    endpoint: Endpoint
    customer: str
    meters: Mapping[str, Meter]

    def customer_of(self, facts: Mapping[str, Any]) -> str | None:
        """A customer's id at the target; None when nobody has said it."""
        found = facts.get("id")
        if self.customer != "id":
            found = (facts.get("attributes") or {}).get(self.customer.removeprefix("attributes."))
        return str(found) if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else None


def load_exports(source: bytes, name: str, environ: Mapping[str, str]) -> list[Destination]:
    """Read the file; raises ExportsError. `name` is the file's, for the problems."""
    tree = read_tree(source)
    found = list(tree.faults)
    parsed: ExportsFile | None = None
    if not found:
        try:
            parsed = ExportsFile.model_validate(tree.value)
        except ValidationError as error:
            found += [(tree.line(_path(detail)), _message(dict(detail))) for detail in error.errors()]
    destinations: list[Destination] = []
    # What does not depend on the whole is checked even when something else is wrong, so that all is told at once.
    for index, entry in _entries(parsed, tree):
        faults, destination = _destination(entry, environ)
        found += [(tree.line(("exports", index, *path)), f"exports[{index}]: {text}") for path, text in faults]
        if destination is not None:
            destinations.append(destination)
    if parsed is not None:
        found += _repeated(parsed, tree)
    if found:
        raise ExportsError([f"{name}:{line}: {text}" for line, text in sorted(set(found))[:200]])
    return destinations


def _entries(parsed: ExportsFile | None, tree: Tree) -> Iterator[tuple[int, TargetEntry]]:
    if parsed is not None:
        yield from enumerate(parsed.exports)
        return
    raw = tree.value.get("exports") if isinstance(tree.value, dict) else None
    for index, one in enumerate(raw if isinstance(raw, list) else []):
        try:
            yield index, TargetEntry.model_validate(one)
        except ValidationError:
            continue  # told already


def _repeated(parsed: ExportsFile, tree: Tree) -> Iterator[tuple[int, str]]:
    names: set[str] = set()
    for index, entry in enumerate(parsed.exports):
        if entry.name in names:
            yield tree.line(("exports", index, "name")), f"exports[{index}]: the name {entry.name!r} stands twice"
        names.add(entry.name)


Fault = tuple[tuple[str | int, ...], str]


def _destination(entry: TargetEntry, environ: Mapping[str, str]) -> tuple[list[Fault], Destination | None]:
    target = TARGETS[entry.kind]
    faults: list[Fault] = []
    url = entry.url or target.url
    if url is None:
        faults.append((("kind",), f"url is missing: a {entry.kind} has no usual one"))
    elif not _URL.fullmatch(url):
        faults.append((("url",), "url must be like https://example.com/path, without a user in it"))
    secret, fault = _secret(entry, environ)
    if fault:
        faults.append((("secret",), fault))
    codes = [meter.code for meter in entry.meters]
    faults += [
        (("meters", index, "code"), f"the meter {code!r} stands twice")
        for index, code in enumerate(codes)
        if code in codes[:index]
    ]
    if entry.batch_max is not None and entry.batch_max > target.traits.batch_max:
        faults.append((("batch_max",), f"{target.title} takes at most {target.traits.batch_max} at once"))
    if faults or url is None or secret is None:
        return faults, None
    meters = {
        meter.code: Meter(
            meter.code,
            frozenset(meter.metrics),
            None if meter.plans is None else frozenset(meter.plans),
            meter.field or target.field,
        )
        for meter in entry.meters
    }
    endpoint = Endpoint(url.rstrip("/"), secret)
    return [], Destination(entry.name, target, _traits(entry, target.traits), endpoint, entry.customer, meters)


def _traits(entry: TargetEntry, traits: Traits) -> Traits:
    changes: dict[str, Any] = {}
    if entry.memory_hours is not None:
        changes["memory_us"] = int(entry.memory_hours * HOUR_US)
    if entry.past_hours is not None:
        changes["past_us"] = int(entry.past_hours * HOUR_US)
    if entry.batch_max is not None:
        changes["batch_max"] = entry.batch_max
    if entry.concurrency_max is not None:
        changes["concurrency_max"] = entry.concurrency_max
    return replace(traits, **changes)


def _secret(entry: TargetEntry, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """(the secret, None) or (None, what is wrong)."""
    source = entry.secret
    if (source.env is None) == (source.file is None):
        return None, "secret: write env: NAME or file: PATH, one of them"
    if source.env is not None:
        text, where = environ.get(source.env, ""), f"the variable {source.env}"
    else:
        where = f"the file {source.file}"
        try:
            text = Path(source.file or "").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            return None, f"secret: {where} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
    if not text:
        return None, f"secret: {where} is empty"
    if not (text.isascii() and text.isprintable()):
        return None, f"secret: {where} must be printable ASCII on one line"
    if entry.kind == "webhook" and not is_secret(text):
        return None, f"secret: {where} must hold whsec_ and the base64 of 24 to 64 random bytes"
    return text, None


def _path(detail: Any) -> tuple[str | int, ...]:
    return tuple(detail["loc"])


def _message(detail: dict[str, Any]) -> str:
    path = ""
    for part in detail["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    where = path.removeprefix(".") or "file"
    match detail["type"]:
        case "missing":
            return f"{where} is missing"
        case "extra_forbidden":
            return f"{where}: unknown field"
        case "literal_error":
            return f"{where}: write one of {', '.join(TARGETS)}"
        case "model_type":
            return f"{where}: a mapping is needed"
        case _:
            return f"{where}: {detail['msg']}"
