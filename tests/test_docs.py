"""Docs are true: commands that they show exist, variables that they name exist, generated parts are current."""

import re
import shlex
import textwrap
from pathlib import Path
from typing import get_args

import pytest

from sidecar import (
    cli,
    exports_reference,
    logs_reference,
    metrics_reference,
    settings,
    settings_reference,
    traffic_reference,
    webhook_reference,
)
from sidecar.billing.api.server import application
from sidecar.billing.exports.config import load_exports
from sidecar.billing.ledger.database import Database, sqlite_url
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens
from sidecar.cli import reference
from sidecar.logged import LINES
from sidecar.plantest.conversation import Conversation, Expected, Step
from sidecar.policy.conditions import Operator
from sidecar.policy.fields import FACTS
from sidecar.policy.loading import load_plan
from sidecar.policy.plan import SessionConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "helm").rglob("README.md"))]


def commands(page):
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(), re.DOTALL):
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            for part in re.split(r"\s(?:&&|\||>)\s", line.removeprefix("$ ").partition(" #")[0]):
                words = part.strip()
                while re.match(r"[A-Z_]+=\S*\s", words):
                    words = words.partition(" ")[2].strip()
                if words.startswith("sidecar "):
                    yield words


SHOWN = [(page.name, command) for page in PAGES for command in commands(page)]


def test_the_docs_show_commands():
    assert len(SHOWN) >= 2


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_a_command_that_the_docs_show_is_understood(page, command):
    cli.parser().parse_args(shlex.split(command)[1:])


def test_every_make_target_that_the_docs_show_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        shown = set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE))
        assert shown <= targets, f"{page.name} shows {shown - targets}"


def test_every_variable_that_the_docs_name_is_read_by_something():
    known = {f"SIDECAR_{field.upper()}" for field in settings.Settings.model_fields}
    known |= {f"SIDECAR_{name}" for name in settings.OTHER_COMMANDS}
    for page in PAGES:
        for variable in re.findall(r"SIDECAR_[A-Z][A-Z_]+[A-Z]", page.read_text()):
            plain = variable.removesuffix("_FILE") if variable not in known else variable
            by_source = f"{plain}_".startswith(tuple(prefix for prefix, _ in settings.BY_SOURCE.values()))
            assert plain in known or by_source, f"{page.name} names {variable}"


def test_what_is_understood_of_traffic_is_current():
    assert (ROOT / "docs" / "traffic.md").read_text() == traffic_reference.document()


def test_the_table_of_metrics_is_current_and_every_metric_that_the_docs_name_is_in_it():
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_reference.document()
    known = {measure.name for measure in metrics_reference.shown()}
    for page in PAGES:
        named = set(re.findall(r"`(sidecar_[a-z_]+)[`{]", page.read_text()))
        assert {name.removesuffix("_bucket") for name in named} <= known, page.name


def test_the_table_of_the_logs_lines_is_current_and_every_line_is_in_it():
    assert (ROOT / "docs" / "logs.md").read_text() == logs_reference.document()
    assert logs_reference.lines().keys() == LINES.keys()
    for name, line in logs_reference.lines().items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert {"content", "text", "body", "headers", "message"}.isdisjoint(line.fields)


def test_the_page_about_operating_names_lines_of_the_log_that_there_are():
    page = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`(?= in the log| says| or `| and its code)", page))
    assert named
    assert named <= LINES.keys()


def test_the_tables_of_webhooks_are_current():
    page = (ROOT / "docs" / "webhooks.md").read_text()
    assert page == webhook_reference.document(page)


def test_the_tables_of_exports_are_current_and_the_file_that_they_show_loads(tmp_path):
    page = (ROOT / "docs" / "exports.md").read_text()
    assert page == exports_reference.document(page)
    secret = tmp_path / "hook"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    [shown] = re.findall(r"```yaml\n(exports:\n.*?)```", page, re.DOTALL)
    shown = shown.replace("/run/secrets/usage-hook", str(secret))
    assert [one.name for one in load_exports(shown.encode(), "exports.md", {"STRIPE_KEY": "k"})] == [
        "stripe",
        "warehouse",
    ]


def test_the_command_line_is_documented_as_it_is():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert page == reference.document(page)


def test_the_rules_that_the_docs_show_are_rules():
    shown = re.findall(r"```yaml\n(signals:\n.*?)```", (ROOT / "docs" / "webhooks.md").read_text(), re.DOTALL)
    assert len(shown) == 2
    for rules in shown:
        loaded = load_plan(b"rate_plan:\n  name: p\n" + textwrap.indent(rules, "  ").encode(), "webhooks.md")
        assert loaded.rules.wants("webhook")


def test_the_table_of_variables_is_current():
    assert (ROOT / "docs" / "configuration.md").read_text() == settings_reference.document()


def test_every_request_that_the_billing_api_answers_is_documented(tmp_path):
    page = (ROOT / "docs" / "http.md").read_text() + (ROOT / "docs" / "console.md").read_text()
    billing = Billing(Database(sqlite_url(tmp_path / "ledger.sqlite3")))
    routes = application(billing=billing, tokens=Tokens()).router.routes()
    for route in routes:
        if route.method != "HEAD":
            assert re.search(rf"`{route.method} {re.escape(route.resource.canonical)}[`?]", page), route


def test_every_request_that_the_admin_api_answers_is_documented():
    page = (ROOT / "docs" / "http.md").read_text()
    source = (ROOT / "sidecar" / "admin" / "server.py").read_text()
    routes = re.findall(r'web\.(get|post|put|delete)\("([^"]+)"', source)
    assert len(routes) >= 6
    for method, path in routes:
        assert re.search(rf"`{method.upper()} {re.escape(path)}[`?]", page), f"{method} {path}"


def test_the_page_about_plans_names_all_that_a_plan_and_its_tests_may_say():
    page = (ROOT / "docs" / "plans.md").read_text()
    said = (
        {name for facts in FACTS.values() for name in facts} | set(get_args(Operator)) | set(SessionConfig.model_fields)
    )
    said |= {name for model in (Step, Conversation, Expected) for name in model.model_fields}
    missing = {name for name in said if not re.search(rf"`{name}\b", page)}
    assert missing == set()
