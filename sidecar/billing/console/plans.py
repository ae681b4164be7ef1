"""Plans: the list, one in sentences, versions side by side, and a new version."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from sqlalchemy.exc import IntegrityError

from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.console.forms import Given, actor_of, file_or_text, text_of
from sidecar.billing.console.plan_diff import changes, side_by_side
from sidecar.billing.console.plan_words import described
from sidecar.billing.console.shell import render
from sidecar.billing.ledger.catalog import PlanVersion, compiled
from sidecar.billing.ledger.plans import customers_by_plan, plan_lines
from sidecar.billing.rating.periods import Period
from sidecar.policy.faults import Problem
from sidecar.policy.loading import LoadedPlan, PlanError, load_plan
from sidecar.policy.plan import RatePlan

_PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ID_PROBLEM = Problem("", 0, "the id is made of letters, digits, _ . and -, at most 64")
_NO_NAME = Problem("", 0, "say who you are: your name is kept with the version")


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wrote, and what is wrong with it; `loaded` when nothing is."""

    source: str
    problems: Sequence[Problem]
    loaded: LoadedPlan | None


async def show_all(request: web.Request) -> web.StreamResponse:
    """The newest version of each."""
    async with request.app[BILLING].database.reading() as connection:
        plans = await plan_lines(connection)
    return render(request, "plans.html", plans=plans)


async def show(request: web.Request) -> web.StreamResponse:
    """One version, the newest unless `?version=`, in sentences."""
    versions = await versions_of(request)
    chosen = version_of(versions, request.query.get("version"))
    async with request.app[BILLING].database.reading() as connection:
        counts = await customers_by_plan(connection)
    plan = await asyncio.to_thread(_read, chosen)
    return render(
        request,
        "plan.html",
        plan=chosen,
        versions=list(reversed(versions)),
        newest=versions[-1],
        customers=counts.get(chosen.plan_id, 0),
        text=described(plan),
        saved=request.query.get("saved") == str(versions[-1].version),
    )


async def compare(request: web.Request) -> web.StreamResponse:
    """Two versions: what differs in meaning, and the files beside each other."""
    versions = await versions_of(request)
    if len(versions) == 1:
        return render(request, "plan_compare.html", plan=versions[0], versions=versions, one=None)
    other = version_of(versions, request.query.get("to"))
    before = [version for version in versions if version.version < other.version] or versions[1:]
    one = version_of(versions, request.query.get("from")) if request.query.get("from") else before[-1]
    found, rows = await asyncio.to_thread(_compared, one, other)
    return render(
        request, "plan_compare.html", plan=versions[-1], versions=versions, one=one, other=other, changes=found,
        rows=rows,
    )  # fmt: skip


def _compared(one: PlanVersion, other: PlanVersion) -> tuple[Any, Any]:
    return changes(_read(one), _read(other)), side_by_side(one.source, other.source)


async def ask(request: web.Request) -> web.StreamResponse:
    """The form for a new version; it begins with the newest one, or with the one that is named."""
    versions = await versions_of(request)
    chosen = version_of(versions, request.query.get("version"))
    return _form(request, versions[-1], Draft(chosen.source, (), None))


async def ask_first(request: web.Request) -> web.StreamResponse:
    """The form for a new plan."""
    return render(request, "plan_edit.html", plan=None, plan_id="", draft=Draft("", (), None), changes=None, actor="")


async def save_first(request: web.Request) -> web.StreamResponse:
    """A new plan's first version."""
    given = await request.post()
    plan_id, draft, actor = text_of(given, "id"), await draft_of(given), actor_of(request, given)
    problems = list(draft.problems)
    if not actor:
        problems.insert(0, _NO_NAME)
    if not _PLAN_ID.fullmatch(plan_id):
        problems.insert(0, _ID_PROBLEM)
    elif await request.app[BILLING].plan(plan_id):
        problems.insert(0, Problem("", 0, f"there is a plan {plan_id} already: open it to save a version"))
    if problems or draft.loaded is None:
        draft = Draft(draft.source, problems, None)
        return render(
            request, "plan_edit.html", 422, plan=None, plan_id=plan_id, draft=draft, changes=None, actor=actor
        )
    await _put(request, plan_id, draft.loaded, actor)
    raise web.HTTPSeeOther(f"/plans/{plan_id}?saved=1")


async def save(request: web.Request) -> web.StreamResponse:
    """A further version: first what would change is shown, then it is saved."""
    versions = await versions_of(request)
    newest, given = versions[-1], await request.post()
    draft, actor = await draft_of(given), actor_of(request, given)
    problems = list(draft.problems)
    if not actor:
        problems.insert(0, _NO_NAME)
    if text_of(given, "base") != str(newest.version):
        saved = f"version {newest.version} was saved in the meantime: what you would change is shown against it"
        problems.insert(0, Problem("", 0, saved))
    if draft.loaded is not None and draft.loaded.digest == newest.digest:
        problems.append(Problem("", 0, f"this is the same file as version {newest.version}: nothing to save"))
    found = None
    if draft.loaded is not None:
        found = changes(await asyncio.to_thread(_read, newest), draft.loaded.plan)
    if problems or draft.loaded is None or text_of(given, "do") != "save":
        status = 422 if problems else 200
        return _form(request, newest, Draft(draft.source, problems, draft.loaded), found, actor, status=status)
    version = await _put(request, newest.plan_id, draft.loaded, actor)
    raise web.HTTPSeeOther(f"/plans/{newest.plan_id}?saved={version}")


def _form(
    request: web.Request, newest: PlanVersion, draft: Draft, found: Any = None, actor: str = "", *, status: int = 200
) -> web.StreamResponse:
    period = Period.of(request.app[BILLING].clock())
    return render(
        request, "plan_edit.html", status, plan=newest, plan_id=newest.plan_id, draft=draft, changes=found,
        actor=actor, period=period,
    )  # fmt: skip


async def _put(request: web.Request, plan_id: str, loaded: LoadedPlan, actor: str) -> int:
    try:
        version, _ = await request.app[BILLING].put_plan(plan_id, loaded, actor)
    except IntegrityError:
        raise ProblemError(409, "another version was saved in the same moment: go back and look at it") from None
    return version.version


async def draft_of(given: Given) -> Draft:
    """The file or the text of a form, checked."""
    content = file_or_text(given, "file", "text")
    source = content.decode("utf-8", "replace")
    try:
        return Draft(source, (), await asyncio.to_thread(load_plan, content, "plan"))
    except PlanError as error:
        return Draft(source, error.problems, None)


async def versions_of(request: web.Request) -> list[PlanVersion]:
    """All versions of the plan in the path, oldest first; 404 without any."""
    plan_id = request.match_info["id"]
    found = await request.app[BILLING].plan(plan_id) if _PLAN_ID.fullmatch(plan_id) else []
    if not found:
        raise ProblemError(404, f"there is no plan {plan_id!r}")
    return found


def version_of(versions: Sequence[PlanVersion], number: str | None) -> PlanVersion:
    """The version of that number, the newest without one."""
    by_number: Mapping[str, PlanVersion] = {str(version.version): version for version in versions}
    if number and number not in by_number:
        raise ProblemError(404, f"there is no version {number!r} of {versions[0].plan_id}")
    return by_number[number] if number else versions[-1]


def _read(version: PlanVersion) -> RatePlan:
    return compiled(version.source, version.name, version.digest).plan
