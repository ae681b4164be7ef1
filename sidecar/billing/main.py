"""The process of `sidecar billing`: start, serve until SIGTERM, finish what is open, stop."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path

import structlog
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from sidecar import logs
from sidecar.addresses import Address
from sidecar.billing.address import ADDRESS_FILE
from sidecar.billing.alerts import Deliveries, alert_secret
from sidecar.billing.api.server import application
from sidecar.billing.exports.service import Exports
from sidecar.billing.ledger.catalog import compiled
from sidecar.billing.ledger.database import Database
from sidecar.billing.rating.sections import DEFAULT_PLAN
from sidecar.billing.service import Billing
from sidecar.billing.settings import BillingSettings, BillingSettingsError, load_billing_settings, make_data_dir
from sidecar.billing.upkeep import Upkeep

log = structlog.get_logger()
SHUTDOWN_SECONDS = 10.0
ALERT_SECRET_FILE = "billing-alert-secret"  # noqa: S105 - the name of a file


def run() -> int:
    """Read the environment and serve; exit code 0 after SIGTERM or SIGINT, 2 when the configuration is wrong."""
    try:
        settings = load_billing_settings(os.environ)
        make_data_dir(settings)
    except BillingSettingsError as error:
        for line in error.problems:
            print(f"sidecar billing: {line}", file=sys.stderr)  # noqa: T201 - before logging is set up, for a person
        return 2
    logs.configure(settings.log_level, settings.log_format)
    for warning in settings.warnings:
        log.warning("variable_unknown", variable=warning)
    return asyncio.run(_serve(settings))


async def _serve(settings: BillingSettings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        database = Database(settings.database)
        await database.migrate()
        billing = Billing(database, grace_us=settings.grace_us)
        await billing.put_plan(DEFAULT_PLAN, settings.plan)
        deliveries = await _deliveries(settings, billing)
        if settings.exports:
            billing.exports = Exports(database, settings.exports, billing.clock)
            await billing.exports.begin()
            await _warn_of_unknown_metrics(billing, billing.exports)
    except (SQLAlchemyError, OSError, ImportError) as error:
        shown = settings.database.render_as_string(hide_password=True)
        log.error("database_unusable", database=shown, error=str(error))
        return 2
    runner = web.AppRunner(
        application(billing, settings.tokens, settings.help_desk_url),
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        address = await _listen(runner, settings.listen)
    except OSError as error:
        change = "stop what listens there, or give another SIDECAR_BILLING_LISTEN"
        log.error("cannot_listen", address=str(settings.listen), error=error.strerror or str(error), change=change)
        await runner.cleanup()
        await database.close()
        return 2
    note = settings.data_dir / ADDRESS_FILE
    _write_note(note, address)
    upkeep = Upkeep(billing, deliveries)
    upkeep.start()
    gc.collect()
    gc.freeze()  # what is there now stays: walking it again and again takes a fifth of what ingest takes
    log.info("listening", address=address, plan=settings.plan.name)
    await stop.wait()
    log.info("stopping")
    await runner.cleanup()
    await upkeep.stop()
    if deliveries is not None:
        await deliveries.close()
    if billing.exports is not None:
        await billing.exports.close()
    await database.close()
    _remove_note(note)
    return 0


async def _deliveries(settings: BillingSettings, billing: Billing) -> Deliveries | None:
    """Who sends alerts, if anybody is to be told. A secret made here is left in the data directory for the receiver."""
    if settings.alert_url is None:
        return None
    secret = await alert_secret(billing.database, settings.alert_secret)
    if settings.alert_secret is None:
        path = settings.data_dir / ALERT_SECRET_FILE
        path.touch(mode=0o600)
        path.write_text(secret + "\n", encoding="utf-8")
        log.info("alerts_secret_made", file=str(path))
    return Deliveries(billing.database, settings.alert_url, secret, billing.clock)


async def _warn_of_unknown_metrics(billing: Billing, exports: Exports) -> None:
    """A meter whose metric no plan has receives nothing: a slip of the pen, or a plan that is still to come."""
    known = {name for plan in await billing.plans() for name in compiled(plan.source, plan.name, plan.digest).meters}
    for one in exports.destinations:
        for meter in one.meters.values():
            for name in sorted(meter.metrics - known):
                log.warning("metric_unknown", exports=one.name, meter=meter.code, metric=name)


async def _listen(runner: web.AppRunner, address: Address) -> str:
    """Open the listener; the address as clients use it, with the port that the system chose if 0 was asked for."""
    if address.is_unix:
        path = address.host.removeprefix("unix:")
        await web.UnixSite(runner, path).start()
        return address.host
    await web.TCPSite(runner, address.host, address.port).start()
    return str(Address(address.host, runner.addresses[0][1]))


def _write_note(path: Path, address: str) -> None:
    """Say where we listen, in one step: a reader sees the old note or the new one, never half of one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({"address": address, "pid": os.getpid()}), encoding="utf-8")
    draft.replace(path)


def _remove_note(path: Path) -> None:
    """Only our own: another process may have taken over."""
    try:
        if json.loads(path.read_text(encoding="utf-8"))["pid"] == os.getpid():
            path.unlink()
    except (OSError, ValueError, KeyError):
        log.debug("address_note_gone", path=str(path))
