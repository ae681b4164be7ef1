"""Every vendor's own client, beside us, sends the same entries to the same server.

What it is asked to send is what we wrote, so that names and types that it does not know, or requires, are found: by its
own checks, and by the types that it declares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import flexprice
import lago_python_client
import lago_python_client.models
import metronome
import metronome.types.v1.usage_ingest_params as metronome_types
import openmeter
import openmeter._generated.types as openmeter_types
import orb
import orb.types.event_ingest_params as orb_types
import orjson
import polar.v2026_10
import polar.v2026_10.inputs
import pytest
import stripe
import stripe.params.billing
import stripe.params.v2.billing
from aiohttp import web
from aiohttp.test_utils import TestServer
from typeguard import check_type

from sidecar.billing.exports.target import Act, Endpoint, Item, Sent
from sidecar.billing.exports.targets import TARGETS

_UNTOLD = {"StripeContext": object, "Mapping": Mapping}  # which Stripe's modules name without importing
AT_US = 1_795_341_600_000_000
SECRET = "a-key"


def item(kind: str, act: Act, number: int) -> Item:
    return Item(
        id=f"exp_{number}", act=act, code="resolutions", field=TARGETS[kind].field, customer="cus_1",
        quantity=Decimal("2.50"), at_us=AT_US, outcome_id="out_1", meter="resolutions",
        cancels="exp_9" if act == "cancel" else None,
    )  # fmt: skip


@dataclass
class Server:
    """Answers as the vendor does, and keeps what it got."""

    status: int
    body: Any
    got: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((request.path, dict(request.headers), await request.read()))
        return web.json_response(self.body, status=self.status)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/{path:.*}", self.answer)
        return app


@contextmanager
def _stripe(url: str) -> Iterator[Any]:
    with closing(stripe.RequestsClient()) as http:
        yield stripe.StripeClient(SECRET, base_addresses={"api": url}, http_client=http, max_network_retries=0)


def _stripe_v1(url: str, entries: list[Any], key: str) -> None:
    fields = {name: value for name, value in entries[0].items() if "[" not in name}
    for name, value in entries[0].items():
        if "[" in name:
            outer, inner = name.rstrip("]").split("[")
            fields.setdefault(outer, {})[inner] = value
    with _stripe(url) as client:
        asked, service = _stripe_service(client.v1.billing, stripe.params.billing, fields)
        declared(asked, fields | ({"timestamp": int(fields["timestamp"])} if "timestamp" in fields else {}))
        service.create(fields, {"idempotency_key": key})


def _stripe_v2(url: str, entries: list[Any], key: str) -> None:
    with _stripe(url) as client:
        asked, service = _stripe_service(client.v2.billing, stripe.params.v2.billing, entries[0])
        declared(asked, entries[0])
        service.create(entries[0], {"idempotency_key": key})


def _stripe_service(billing: Any, params: Any, fields: dict[str, Any]) -> tuple[Any, Any]:
    if "cancel" in fields:
        return params.MeterEventAdjustmentCreateParams, billing.meter_event_adjustments
    return params.MeterEventCreateParams, billing.meter_events


def _metronome(url: str, entries: list[Any], _: str) -> None:
    declared(metronome_types.Usage, *entries)
    with metronome.Metronome(bearer_token=SECRET, base_url=url, max_retries=0) as client:
        client.v1.usage.ingest(usage=entries)


def _orb(url: str, entries: list[Any], _: str) -> None:
    declared(orb_types.Event, *entries)
    with orb.Orb(api_key=SECRET, base_url=url, max_retries=0) as client:
        client.events.ingest(events=entries)


def _lago(url: str, entries: list[Any], _: str) -> None:
    events = [lago_python_client.models.Event(**entry) for entry in entries]
    client = lago_python_client.Client(api_key=SECRET, api_url=url).events
    if len(events) == 1:
        client.create(events[0])
    else:
        client.batch_create(lago_python_client.models.BatchEvent(events=events))


def _flexprice(url: str, entries: list[Any], _: str) -> None:
    # Its types have texts alone among the properties; the vendor's own examples have numbers.
    entries = [entry | {"properties": {k: str(v) for k, v in entry["properties"].items()}} for entry in entries]
    with flexprice.Flexprice(server_url=url + "/v1", api_key_auth=SECRET) as client:
        if len(entries) == 1:
            client.events.ingest_event(**entries[0])
        else:
            client.events.ingest_events_bulk(events=entries)


def _openmeter(url: str, entries: list[Any], _: str) -> None:
    declared(openmeter_types.Event, *entries)
    with openmeter.Client(endpoint=url, token=SECRET) as client:
        if len(entries) == 1:
            client.events.ingest_event(entries[0])
        else:
            client.events.ingest_events(entries)


def _polar(url: str, entries: list[Any], _: str) -> None:
    declared(polar.v2026_10.inputs.EventCreateExternalCustomer, *entries)
    with polar.v2026_10.Polar(SECRET, base_url=url) as client:
        client.events.ingest(events=entries)


def declared(kind: Any, *entries: Mapping[str, Any]) -> None:
    """Raises when an entry lacks a field that a client's type requires, or has one that it does not know or that is of
    another type.
    """
    hints = get_type_hints(kind, localns=_UNTOLD, include_extras=True)
    for entry in entries:
        assert not set(entry) - set(hints)
        for name, hint in hints.items():
            marked = get_origin(hint) in (Required, NotRequired)
            needed = get_origin(hint) is Required if marked else kind.__total__
            if name in entry:
                check_type(entry[name], get_args(hint)[0] if marked else hint)
            else:
                assert not needed, name


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Sdk:
    """How a vendor's client sends entries; where its API begins; what it answers; what is the same in other words."""

    send: Callable[[str, list[Any], str], None]
    base: str = ""
    status: int = 200
    body: Any = field(default_factory=dict)
    keyed: bool = False
    same: Callable[[Any], Any] = _as_it_is


def _like_lago(event: Any) -> Any:
    """It writes a time as text, and null for what is not given."""
    if isinstance(event, dict):
        known = {name: _like_lago(value) for name, value in event.items() if value is not None}
        return known | ({"timestamp": int(known["timestamp"])} if "timestamp" in known else {})
    return [_like_lago(one) for one in event] if isinstance(event, list) else event


def _like_flexprice(event: Any) -> Any:
    if isinstance(event, list):
        return [_like_flexprice(one) for one in event]
    if "events" in event:
        return {"events": _like_flexprice(event["events"])}
    return event | {"properties": {name: str(value) for name, value in event["properties"].items()}}


SDKS = {
    "stripe_v1": Sdk(_stripe_v1, keyed=True),
    "stripe_v2": Sdk(_stripe_v2, keyed=True),
    "metronome": Sdk(_metronome),
    "orb": Sdk(_orb, base="/v1"),
    "lago": Sdk(_lago, same=_like_lago),
    "flexprice": Sdk(_flexprice, status=202, same=_like_flexprice),
    "openmeter": Sdk(_openmeter, status=204),
    "polar": Sdk(_polar, body={"inserted": 1}),
}
CASES = [
    *((kind, "usage", 1) for kind in SDKS),
    *((kind, "credit", 1) for kind in SDKS),
    *((kind, "usage", 3) for kind in SDKS if TARGETS[kind].traits.batch_max > 1),
    *((kind, "cancel", 1) for kind in SDKS if TARGETS[kind].traits.cancel_us is not None),
]


def test_each_vendor_has_its_client() -> None:
    assert {*SDKS, "webhook"} == set(TARGETS)


@pytest.mark.parametrize(("kind", "act", "number"), CASES)
async def test_the_vendors_own_client_sends_what_we_send(kind: str, act: Act, number: int) -> None:
    sdk, target = SDKS[kind], TARGETS[kind]
    sent = [Sent(f"exp_{n}", act, target.write(item(kind, act, n))) for n in range(number)]
    entries = [read(target.write(item(kind, act, n)).encode()) for n in range(number)]
    server = Server(sdk.status, sdk.body)
    async with TestServer(server.application()) as listening:
        url = str(listening.make_url(sdk.base)).rstrip("/")
        await asyncio.to_thread(sdk.send, url, entries, sent[0].key)
        ours = target.request(Endpoint(url, SECRET), sent, AT_US)
    [(path, headers, body)] = server.got
    assert path == sdk.base + ours.path
    theirs = {name.lower(): value for name, value in headers.items()}
    for name in ("authorization", "x-api-key", "content-type", *(["idempotency-key"] if sdk.keyed else [])):
        assert ours.headers.get(name) == theirs.get(name), name
    assert moments(sdk.same(read(body))) == moments(sdk.same(read(ours.content)))


def read(body: bytes) -> Any:
    """JSON, or a form's fields."""
    return orjson.loads(body) if body[:1] in b"[{" else dict(parse_qsl(body.decode()))


def moments(value: Any) -> Any:
    """The value with times as moments, however their zone is written."""
    if isinstance(value, dict):
        return {name: moments(one) for name, one in value.items()}
    if isinstance(value, list):
        return [moments(one) for one in value]
    if isinstance(value, str) and value.startswith("2026-") and "T" in value:
        return datetime.fromisoformat(value)
    return value
