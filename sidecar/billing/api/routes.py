"""Every request that the API answers, once: the router, the index and the OpenAPI description are made of this list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.billing.api import (
    bodies,
    books_shapes,
    catalog,
    export_shapes,
    exports,
    model_prices,
    outcome_shapes,
    outcomes,
    reports,
    shapes,
    summary_shapes,
)
from sidecar.billing.api.problems import Handler
from sidecar.billing.events import OutcomeEvent, StatementEvent
from sidecar.policy.plan import PlanFile

JSON, PROBLEM, CSV = "application/json", "application/problem+json", "text/csv"
SINGLE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
Event = OutcomeEvent | StatementEvent

_PERIOD = ("period", "a month in UTC, like 2026-11", True)
_PAGE = (
    ("after", "`next` of the page before", False),
    ("limit", "entries of a page, 100, at most 1000", False),
)
_FORMAT = ("format", "json, or csv for a spreadsheet", False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One request: what it takes (`body` by content type, `query` as name, meaning, needed) and answers (by status)."""

    method: str
    path: str
    handler: Handler
    answers: Mapping[int, Any]
    query: tuple[tuple[str, str, bool], ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()
    csv: bool = False

    @property
    def summary(self) -> str:
        """What it does, in the handler's words."""
        return " ".join((self.handler.__doc__ or "").split())


def _decision(handler: Handler, body: Any) -> Endpoint:
    """An operator's decision about an outcome: 201, or 200 when it was decided before."""
    return Endpoint(
        "POST",
        f"/v1/outcomes/{{id}}/{handler.__name__}",
        handler,
        {201: outcome_shapes.Decision, 200: outcome_shapes.Decision},
        body={JSON: body},
        refusals=(400, 404, 409, 415, 422),
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST", "/v1/outcomes", outcomes.post_outcomes, {200: outcome_shapes.Receipt},
        body={SINGLE: Event, BATCH: list[Event]}, refusals=(400, 413, 415),
    ),
    Endpoint(
        "GET", "/v1/outcomes", outcomes.get_outcomes, {200: outcome_shapes.Outcomes}, refusals=(400,), csv=True,
        query=(
            ("customer", "the customer that the event names", False),
            ("state", "RESOLVED, NOT_BILLABLE, INCONCLUSIVE or REVERSED", False),
            ("conversation", "a conversation id", False),
            ("period", "of the event's time, like 2026-11", False),
            *_PAGE, _FORMAT,
        ),
    ),
    Endpoint("GET", "/v1/outcomes/{id}", outcomes.get_outcome, {200: outcome_shapes.OutcomeShown}, refusals=(404,)),
    _decision(outcomes.release, bodies.DecisionBody),
    _decision(outcomes.drop, bodies.DecisionBody),
    _decision(outcomes.reverse, bodies.DecisionBody),
    _decision(outcomes.assign, bodies.AssignmentBody),
    Endpoint(
        "GET", "/v1/decisions", outcomes.get_decisions, {200: outcome_shapes.Decisions}, refusals=(400,),
        query=(("customer", "about its outcomes, or giving it some", False), *_PAGE),
    ),
    Endpoint("GET", "/v1/sessions/{id}", outcomes.get_session, {200: outcome_shapes.Session}, refusals=(404,)),
    Endpoint("GET", "/v1/plans", catalog.get_plans, {200: shapes.Plans}),
    Endpoint(
        "POST", "/v1/plans/backtest", reports.post_backtest, {200: shapes.Backtest},
        (("period", "the month, when the body is YAML", False),),
        {JSON: bodies.BacktestBody, catalog.YAML[0]: str}, (400, 415, 422),
    ),
    Endpoint(
        "PUT", "/v1/plans/{id}", catalog.put_plan, {200: shapes.PlanShown, 201: shapes.PlanShown},
        body={JSON: PlanFile, catalog.YAML[0]: str}, refusals=(400, 415, 422),
    ),
    Endpoint(
        "GET", "/v1/plans/{id}", catalog.get_plan, {200: shapes.PlanWhole},
        (("version", "an earlier version's number", False),), refusals=(404,),
    ),
    Endpoint("GET", "/v1/customers", catalog.get_customers, {200: shapes.Customers}, _PAGE, refusals=(400,)),
    Endpoint(
        "PUT", "/v1/customers/{id}", catalog.put_customer, {200: shapes.CustomerShown},
        body={JSON: bodies.CustomerBody}, refusals=(400, 415, 422),
    ),
    Endpoint("GET", "/v1/customers/{id}", catalog.get_customer, {200: shapes.CustomerShown}, refusals=(404, 422)),
    Endpoint(
        "GET", "/v1/customers/{id}/history", catalog.get_history, {200: shapes.CustomerHistory}, refusals=(404, 422)
    ),
    Endpoint(
        "GET", "/v1/customers/{id}/invoice", catalog.get_invoice, {200: shapes.Invoice},
        (_PERIOD, ("shadow", "true: what shadow events would have cost", False), _FORMAT), refusals=(400, 422),
        csv=True,
    ),
    Endpoint(
        "GET", "/v1/customers/{id}/sessions", catalog.get_line, {200: shapes.Uses},
        (
            _PERIOD,
            ("charge", "the id of a charge on the invoice", True),
            ("from", "the line's `from`: where its section begins; without it, all lines of the charge", False),
            *_PAGE,
        ),
        refusals=(400, 404, 422),
    ),
    Endpoint("GET", "/v1/summary", reports.get_summary, {200: summary_shapes.Summary}, (_PERIOD,), refusals=(400,)),
    Endpoint("GET", "/v1/model-prices", model_prices.get_model_prices, {200: shapes.ModelPrices}),
    Endpoint(
        "PUT", "/v1/model-prices", model_prices.put_model_prices, {200: shapes.ModelPrices, 201: shapes.ModelPrices},
        body={JSON: bodies.ModelPricesBody}, refusals=(400, 409, 415, 422),
    ),
    Endpoint("GET", "/v1/books", reports.get_books, {200: books_shapes.BooksShown}),
    Endpoint(
        "GET", "/v1/alerts", reports.get_alerts, {200: shapes.Alerts},
        (("customer", "one customer's", False), *_PAGE), refusals=(400,),
    ),
    Endpoint(
        "GET", "/v1/exports", exports.get_exports, {200: export_shapes.ExportsShown},
        (("period", "a month like 2026-11, to set the ledger's rows beside what was exported", False),),
        refusals=(400,),
    ),
    Endpoint(
        "GET", "/v1/exports/{target}", exports.get_export, {200: export_shapes.ExportEntries},
        (("state", "waiting, acknowledged or parked", False), *_PAGE), refusals=(400, 404),
    ),
    Endpoint(
        "POST", "/v1/exports/{target}/redeliver", exports.redeliver, {200: export_shapes.Redelivered},
        body={JSON: bodies.RedeliveryBody}, refusals=(400, 404, 409, 415, 422),
    ),
)  # fmt: skip
