"""Every page of the console, once."""

from __future__ import annotations

from aiohttp import web

from sidecar.billing.api.problems import Handler
from sidecar.billing.console import customers, decisions, doors, overview, sessions
from sidecar.billing.console.live import Live
from sidecar.billing.console.login import GATE, Gate, for_visitors
from sidecar.billing.console.shell import HELP_DESK_URL, HERE, STATIC, shown_to_people
from sidecar.billing.console.wiring import WIRING, Wiring
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens

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
}
# Path → what does what a form asks for.
FORMS: dict[str, Handler] = {
    "/decisions": decisions.decide,
}


def add_console(app: web.Application, billing: Billing, tokens: Tokens, help_desk_url: str | None) -> None:
    """The pages, their forms, their style and script."""
    app[GATE] = Gate(tokens)
    app[HELP_DESK_URL] = help_desk_url or ""
    app[WIRING] = Wiring(billing)
    live = Live(billing)
    app.on_shutdown.append(live.stop)
    for path, handler in PAGES.items():
        app.router.add_get(path, shown_to_people(for_visitors(handler)))
    for path, handler in FORMS.items():
        app.router.add_post(path, shown_to_people(for_visitors(handler, operators=True)))
    app.router.add_get("/login", shown_to_people(doors.ask))
    app.router.add_post("/login", shown_to_people(doors.log_in))
    app.router.add_post("/logout", shown_to_people(for_visitors(doors.log_out)))
    app.router.add_get("/live", for_visitors(live.serve))
    app.router.add_static(STATIC, HERE / "static")
