"""Directs the demo: starts the system, lets everybody talk, kills the observer, waits for the books, compares."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.progress import Progress

from sidecar.demo import books, latency, report, script
from sidecar.demo.books import Posted, Spoken
from sidecar.demo.examples import MissingPartError, examples_dir, load_agent
from sidecar.demo.ledger import STANDSTILL_SECONDS, Ledger
from sidecar.demo.script import Part
from sidecar.demo.system import System, SystemFailedError, running, until
from sidecar.demo.talk import Ensemble, Talk

OK, DIFFERS, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
KILL_AFTER_SHARE = 0.4  # of the first model calls: the observer dies while most conversations are under way
MONTH_END_SECONDS = 120.0  # a run that began this close to midnight of the month's last day would fill two invoices
FIRST_ACT_SECONDS = 300.0  # on a machine that is busy with other things
STANDSTILL = f"Then nothing new came into the ledger for {STANDSTILL_SECONDS:.0f} seconds."
QUIET_SECONDS = 1.0  # after the last outcome: one that should not be there would come now


def run(*, json_output: bool, stay: bool, conversations: int) -> int:
    """See `sidecar.demo.run_demo`."""
    errors = Console(stderr=True)
    if not 1 <= conversations <= script.CONVERSATIONS_MAX:
        errors.print(f"sidecar demo: --conversations must be from 1 to {script.CONVERSATIONS_MAX}", highlight=False)
        return WRONG_USAGE
    try:
        folder = examples_dir()
        agent = load_agent(folder)
    except MissingPartError as error:
        errors.print(f"sidecar demo: {error}", markup=False, highlight=False, soft_wrap=True)
        return WRONG_USAGE
    demo = Demo(folder, agent, script.cast(conversations), json_output=json_output, stay=stay)
    return asyncio.run(_until_interrupted(demo.run()))


async def _until_interrupted(work: Any) -> int:
    """SIGINT and SIGTERM cancel the work, which then cleans up after itself."""
    task: asyncio.Task[int] = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED


@dataclass(slots=True)
class Bars:
    """The progress of one run."""

    progress: Progress

    def bar(self, description: str, total: int) -> Callable[[int], None]:
        """A bar; the function returned advances it."""
        task = self.progress.add_task(description, total=total)
        return lambda count: self.progress.advance(task, count)

    def level(self, description: str, total: int) -> Callable[[int], None]:
        """A bar; the function returned says where it stands."""
        task = self.progress.add_task(description, total=total)
        return lambda count: self.progress.update(task, completed=count)


@dataclass(frozen=True, slots=True)
class Played:
    """What playing the script brought, besides what is in the ledger."""

    talks: list[Talk]
    killed: int
    added: latency.Added
    complete: bool  # every conversation came to stand in the ledger as the script has it


class Demo:
    """One run."""

    def __init__(self, folder: Path, agent: ModuleType, parts: list[Part], *, json_output: bool, stay: bool) -> None:
        self._folder = folder
        self._agent = agent
        self._parts = parts
        self._json_output = json_output
        self._stay = stay
        self._plan = folder / "plans" / "demo.yaml"
        self._last_act = self._plan.read_bytes()
        plan = yaml.safe_load(self._last_act)
        self._first_act = yaml.safe_dump(script.first_act_plan(plan)).encode()
        self._tariff = books.Tariff.of(plan)
        self._session_config = plan["rate_plan"]["session_config"]
        self._errors = Console(stderr=True)
        self._console = self._errors if json_output else Console()
        self._calls = 0

    async def run(self) -> int:
        """Everything from the start of the system to the exit code."""
        started = time.monotonic()
        try:
            await self._leave_month_end()
            async with running(self._folder, self._plan, self._first_act, self._say) as system:
                figures = await self._figures(system)
                figures = replace(figures, seconds=time.monotonic() - started)
                self._show(figures, system)
                if self._stay:
                    await until_cancelled()
        except (SystemFailedError, TimeoutError, httpx.HTTPError, OSError) as error:
            self._errors.print(f"sidecar demo: {error}", markup=False, highlight=False, soft_wrap=True)
            return DIFFERS
        return DIFFERS if figures.differences or figures.too_slow else OK

    def _say(self, text: str) -> None:
        self._errors.print(f"[dim]{text} …[/]", highlight=False)

    async def _leave_month_end(self) -> None:
        left = seconds_left_in_month(datetime.now(UTC))
        if left < MONTH_END_SECONDS:
            self._say(f"waiting {left:.0f} seconds for the new month, so that one invoice holds everything")
            await asyncio.sleep(left + 1)

    async def _figures(self, system: System) -> report.Figures:
        period = datetime.now(UTC).strftime("%Y-%m")
        ledger = Ledger(system.addresses.billing)
        ensemble = Ensemble(self._agent, system.addresses.proxy, system.addresses.admin, ledger)
        try:
            with report.progress(self._errors) as progress:
                played = await self._play(system, ledger, ensemble, Bars(progress))
            system.check()
            return await self._compare(system, ledger, period, played)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the first failure ended all the others
        finally:
            await ensemble.close()
            await ledger.close()

    async def _play(self, system: System, ledger: Ledger, ensemble: Ensemble, bars: Bars) -> Played:
        """Everybody talks at once, and the observer dies in the middle; done when all outcomes are in the ledger."""
        calls, done = (
            bars.bar("model calls", script.calls_expected(self._parts)),
            bars.bar("conversations", len(self._parts)),
        )
        posted = bars.level("outcomes in the ledger", script.events_expected(self._parts))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(ledger.watch(posted))
            killing = group.create_task(self._kill_in_the_middle(system))
            group.create_task(self._begin_last_act(system, ensemble, killing))
            talking = [group.create_task(self._converse(ensemble, part, calls, done)) for part in self._parts]
            talks = [await talk for talk in talking]
            killed = await killing
            # The last customers are leaving in silence now, and the machine is quiet enough to measure.
            added = await latency.measure_apart(system.addresses.upstream, system.addresses.proxy)
            complete = await ledger.wait(lambda rows: not books.missing(self._parts, rows))
            await asyncio.sleep(QUIET_SECONDS)
            watching.cancel()
        return Played(talks, killed, added, complete)

    async def _converse(
        self, ensemble: Ensemble, part: Part, calls: Callable[[int], None], done: Callable[[int], None]
    ) -> Talk:
        def progress(count: int) -> None:
            self._calls += count
            calls(count)

        talk = Talk(part)
        try:
            await ensemble.play(talk, progress)
        except (self._agent.openai.OpenAIError, self._agent.anthropic.AnthropicError) as error:
            talk.differences.append(f"{part}: the SDK failed with {error!r}")
        done(1)
        return talk

    async def _kill_in_the_middle(self, system: System) -> int:
        """Kill the observer once enough was said, and wait for the next one; the pid that died."""
        first_act = [part for part in self._parts if part.scenario.begun_in_first_act]
        first_sessions = sum(part.scenario.sessions[0].llm_calls for part in first_act)

        async def in_the_middle() -> bool | None:
            return True if self._calls >= KILL_AFTER_SHARE * first_sessions else None

        await until(in_the_middle, "the conversations to get going", system.check, FIRST_ACT_SECONDS)
        killed = await system.kill_observer()
        self._say(f"killed the observer (process {killed}) with SIGKILL")
        await system.observer_after(killed)
        return killed

    async def _begin_last_act(self, system: System, ensemble: Ensemble, killing: asyncio.Task[int]) -> None:
        """Once every session of the first act is open, and keeps its terms: silence ends those that begin now."""
        await killing
        wanted = script.begun_in_first_act(self._parts)

        async def all_begun() -> bool | None:
            begun = await system.sessions_begun()
            return True if all(begun.get(name, 0) >= count for name, count in wanted.items()) else None

        # If one never begins the play goes on, and the comparison names it.
        with contextlib.suppress(TimeoutError):
            await until(all_begun, "the sessions of the first act to begin", system.check, FIRST_ACT_SECONDS)
        await system.follow_plan(self._last_act)
        ensemble.last_act.set()

    async def _compare(self, system: System, ledger: Ledger, period: str, played: Played) -> report.Figures:
        """Every figure against the script, the agents' own view and the arithmetic of the plan."""
        rows = await ledger.read()
        spoken = {talk.part.conversation: talk.spoken() for talk in played.talks}
        differences = [text for talk in played.talks for text in talk.differences]
        differences += books.session_differences(self._parts, spoken, rows)
        invoices = {}
        for customer, resolutions in books.resolutions_expected(self._parts).items():
            invoices[customer] = await ledger.invoice(customer, period)
            differences += books.invoice_differences(customer, invoices[customer], resolutions, self._tariff)
        differences += books.summary_differences(self._parts, await ledger.summary(period), self._tariff)
        too_slow = self._too_slow(played, spoken, rows) if differences else ""
        requests = await system.requests()
        sent = sum(seen.llm_calls for sessions in spoken.values() for seen in sessions) + latency.REQUESTS
        if requests != sent:
            differences.append(f"the proxy counted {requests} requests, {sent} were sent")
        return report.Figures(
            parts=self._parts,
            states=books.states(rows),
            states_expected=books.states_expected(self._parts),
            invoices=invoices,
            requests=requests,
            added=played.added,
            killed=played.killed,
            seconds=0.0,
            note="" if played.complete else STANDSTILL,
            differences=() if too_slow else differences,
            too_slow=too_slow,
        )

    def _too_slow(self, played: Played, spoken: Mapping[str, Sequence[Spoken]], rows: Sequence[Posted]) -> str:
        """Why the script could not be kept, when only conversations differ that could not say in time what pressed."""
        settle_s = float(self._session_config["settle_minutes"]) * 60
        late = {talk.part.conversation: talk.pressed_s for talk in played.talks if talk.pressed_s >= settle_s}
        punctual = [talk for talk in played.talks if talk.part.conversation not in late]
        rows = [row for row in rows if row.data["conversation"] not in late]
        differing = books.session_differences([talk.part for talk in punctual], spoken, rows)
        if not late or any(talk.differences for talk in punctual) or differing:
            return ""
        return (
            f"{len(late)} users wanted to write within the {settle_s:.1f} s in which a resolution settles, and it took"
            f" up to {max(late.values()):.1f} s"
        )

    def _show(self, figures: report.Figures, system: System) -> None:
        if self._json_output:
            report.print_json(figures, sys.stdout)
        else:
            report.print_tables(figures, self._console)
        report.print_verdict(figures, self._errors if self._json_output else self._console)
        if figures.differences:
            self._errors.print(system.log_end(), markup=False, highlight=False, soft_wrap=True)
        if self._stay or not self._json_output:
            report.print_addresses(
                system.addresses, figures.invoices[self._parts[0].customer], self._console, stay=self._stay
            )


async def until_cancelled() -> None:
    """Wait for the interrupt that ends a demo which stays; it is the regular end, so the cancellation ends here."""
    task = asyncio.current_task()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if task is not None:
            task.uncancel()


def seconds_left_in_month(now: datetime) -> float:
    """Until the first of the next month, UTC."""
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return (datetime(year, month, 1, tzinfo=UTC) - now).total_seconds()
