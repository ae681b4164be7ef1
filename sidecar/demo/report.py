"""Shows the demo: progress while it runs (on stderr), tables at the end, or one JSON document."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sidecar.demo.latency import Added
from sidecar.demo.script import SCENARIOS, Part
from sidecar.demo.system import Addresses

WIDE_COLUMNS = 130


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that came out. `invoices` by customer; `differences` is empty when every figure is right."""

    parts: Sequence[Part]
    states: Mapping[str, int]
    states_expected: Mapping[str, int]
    invoices: Mapping[str, dict[str, Any]]
    requests: int
    added: Added
    killed: int
    seconds: float
    differences: Sequence[str] = field(default_factory=tuple)
    note: str = ""  # what may explain differences
    too_slow: str = ""  # why the machine could not keep to the script: then nothing can be said of the figures

    def document(self) -> dict[str, Any]:
        """What `--json` prints: the invoice is that of the first customer of the script, who has most conversations."""
        return {
            "sessions": dict(self.states),
            "invoice": self.invoices[self.parts[0].customer],
            "proxy": {
                "requests": self.requests,
                "added_p50_us": self.added.added_p50_us,
                "added_p99_us": self.added.added_p99_us,
            },
        }


def print_json(figures: Figures, out: TextIO) -> None:
    """One document and nothing else."""
    out.write(json.dumps(figures.document(), indent=2) + "\n")
    out.flush()


def progress(console: Console) -> Progress:
    """Bars that show how far the conversations, the outcomes and the rest have come."""
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def print_tables(figures: Figures, console: Console) -> None:
    """What happened, what it came to, and what it cost on the way."""
    console.print(_scenarios(figures.parts, wide=console.width >= WIDE_COLUMNS))
    console.print(_states(figures))
    console.print(_invoices(figures.invoices))
    added = figures.added
    console.print(
        f"[bold]The proxy[/] added {added.added_p50_us:.0f} µs to the median request and {added.added_p99_us:.0f} µs"
        f" to the 99th percentile (direct: {added.direct_p50_us:.0f} and {added.direct_p99_us:.0f} µs; paired,"
        f" interleaved). It forwarded {figures.requests} requests."
    )
    console.print(
        f"[bold]The observer[/] (process {figures.killed}) was killed with SIGKILL in the middle, and started again."
    )


def print_verdict(figures: Figures, console: Console) -> None:
    """Every difference by name, that there is none, or why that cannot be told."""
    if figures.too_slow:
        console.print("[bold yellow]This machine was too slow for the script, so its figures are not compared:[/]")
        console.print(f"  {figures.too_slow}.", highlight=False)
        console.print("That is no fault of the books. Run it again when the machine is quieter.", highlight=False)
    elif figures.differences:
        console.print(f"[bold red]{len(figures.differences)} figures are wrong:[/]")
        for difference in figures.differences:
            console.print(f"  {difference}", markup=False, highlight=False, soft_wrap=True)
        if figures.note:
            console.print(figures.note, highlight=False)
    else:
        console.print(
            f"[bold green]Every figure is right[/]: {len(figures.parts)} conversations, {sum(figures.states.values())}"
            f" sessions, once each, in {figures.seconds:.0f} s."
        )


def print_addresses(addresses: Addresses, invoice: Mapping[str, Any], console: Console, *, stay: bool) -> None:
    """Where things are, and how to put one's own agent there."""
    proxy, billing, admin = addresses.proxy, addresses.billing, addresses.admin.removeprefix("http://")
    customer, period = invoice["customer"], invoice["period"]
    command = command_name()
    if stay:
        lines = [
            "Still running, until Ctrl-C:",
            f"  the console    {billing}/ shows in a browser what was charged, and why",
            f"  your agent     OPENAI_BASE_URL={proxy}/v1 or ANTHROPIC_BASE_URL={proxy}; it talks to the fake LLM",
            f"  billing API    {billing}/v1/summary?period={period}",
            f"  an invoice     {billing}/v1/customers/{customer}/invoice?period={period}",
            f"  sessions       {command} sessions list --admin {admin}",
        ]
    else:
        lines = [
            f"The billing API and its console were at {billing}; `{command} demo --stay` keeps them running.",
            "Your own agent:",
            f"  SIDECAR_UPSTREAM=https://api.openai.com {command} run",
            "  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 python your_agent.py",
            "It should send its conversation's id as X-Session-Id and its customer's as X-Customer-Id.",
        ]
    console.print()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def command_name() -> str:
    """How this command is called here: `make demo` runs it from an environment that is not on the path."""
    started = sys.argv[0]
    return started if Path(started).name == "sidecar" and shutil.which("sidecar") is None else "sidecar"


def _scenarios(parts: Sequence[Part], *, wide: bool) -> Table:
    table = Table(title="What the conversations did", title_justify="left")
    table.add_column("scenario", no_wrap=True)
    if wide:
        table.add_column("what happens")
    table.add_column("must become")
    table.add_column("how many", justify="right")
    for scenario in SCENARIOS:
        count = sum(part.scenario is scenario for part in parts)
        if count:
            becomes = ", ".join(" → ".join(session.states) for session in scenario.sessions)
            about = [scenario.about] if wide else []
            table.add_row(scenario.name, *about, becomes, str(count))
    return table


def _states(figures: Figures) -> Table:
    table = Table(title="Sessions by state", title_justify="left")
    table.add_column("state")
    table.add_column("sessions", justify="right")
    table.add_column("right", justify="right")
    for state, count in figures.states.items():
        right = figures.states_expected.get(state, 0)
        style = "green" if count == right else "red"
        table.add_row(state, f"[{style}]{count}[/]", str(right))
    return table


def _invoices(invoices: Mapping[str, dict[str, Any]]) -> Table:
    table = Table(title="Invoices", title_justify="left")
    for name in ("customer", "charge", "metric"):
        table.add_column(name)
    for name in ("quantity", "free", "billed", "amount"):
        table.add_column(name, justify="right")
    for customer, invoice in invoices.items():
        for line in invoice["lines"]:
            cells = (line[name] for name in ("charge", "metric", "quantity", "free", "billed", "amount"))
            table.add_row(customer, *(str(cell) for cell in cells))
        if Decimal(invoice["credits"]):
            table.add_row(customer, "credits", "charges taken back", "", "", "", f"-{invoice['credits']}")
        total = f"[bold]{invoice['total']} {invoice['currency']}[/]"
        table.add_row(customer, "[bold]total[/]", "", "", "", "", total, end_section=True)
    return table
