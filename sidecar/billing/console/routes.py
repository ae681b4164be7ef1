"""Every page of the console, once."""

from __future__ import annotations

from aiohttp import web

from sidecar.billing.api.problems import Handler
from sidecar.billing.api.reading import taking_any_id
from sidecar.billing.console import (
    backtests,
    books,
    customers,
    decisions,
    doors,
    exports,
    overview,
    plans,
    prices,
    sessions,
    shadow,
)
from sidecar.billing.console.live import Live
from sidecar.billing.console.login import GATE, Gate, for_visitors
from sidecar.billing.console.shell import HELP_DESK_URL, HERE, MARK, STATIC, shown_to_people, unknown_to_people
from sidecar.billing.console.wiring import WIRING, Wiring
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens
from sidecar.billing.work.runner import Runner

# Path → what shows it.
PAGES: dict[str, Handler] = {
    "/": overview.show,
    "/customers": customers.show_all,
    "/customers/{id}": customers.show,
    "/customers/{id}/invoice": customers.show_invoice,
    "/customers/{id}/invoice.csv": customers.send_csv,
    "/customers/{id}/invoice/lines/{charge}": customers.show_line,
    "/sessions": sessions.show_all,
    "/sessions/{id}": sessions.show,
    "/decisions": decisions.show,
    "/decisions/made": decisions.show_log,
    "/plans": plans.show_all,
    "/plans/{id}": plans.show,
    "/plans/{id}/compare": plans.compare,
    "/plans/{id}/edit": plans.ask,
    "/plans/{id}/backtest": backtests.ask,
    "/plans/{id}/backtest/{run}": backtests.show,
    "/new-plan": plans.ask_first,
    "/exports": exports.show_all,
    "/exports/{target}": exports.show,
    "/books": books.show,
    "/shadow": shadow.show,
    "/prices": prices.show,
}
# Path → what does what a form asks for.
FORMS: dict[str, Handler] = {
    "/decisions": decisions.decide,
    "/new-plan": plans.save_first,
    "/plans/{id}/edit": plans.save,
    "/plans/{id}/backtest": backtests.start,
    "/exports": exports.reconcile,
    "/exports/{target}": exports.decide,
    "/shadow": shadow.work_out,
    "/prices": prices.save,
}


def add_console(app: web.Application, billing: Billing, tokens: Tokens, help_desk_url: str | None) -> None:
    """The pages, their forms, their style and script."""
    app.middlewares.append(unknown_to_people)
    app[GATE] = Gate(tokens)
    app[HELP_DESK_URL] = help_desk_url or ""
    app[WIRING] = Wiring(billing)
    live, runner = Live(billing), Runner(billing)
    app[backtests.RUNNER] = runner
    app[MARK] = lambda: live.seen
    app.on_shutdown.append(live.stop)
    app.on_cleanup.append(runner.stop)
    for path, handler in PAGES.items():
        app.router.add_get(taking_any_id(path), shown_to_people(for_visitors(handler)))
    for path, handler in FORMS.items():
        app.router.add_post(taking_any_id(path), shown_to_people(for_visitors(handler, operators=True)))
    app.router.add_get("/login", shown_to_people(doors.ask))
    app.router.add_post("/login", shown_to_people(doors.log_in))
    app.router.add_post("/logout", shown_to_people(for_visitors(doors.log_out)))
    app.router.add_get("/live", for_visitors(live.serve))
    app.router.add_static(STATIC, HERE / "static")
