"""The tables, the plot and the goals, written as Markdown, SVG and JSON."""

from __future__ import annotations

import os
import platform
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.latency import Added
from bench.load import Load
from bench.memory import Memory, Whole
from bench.peers import (
    AGAIN,
    AIOHTTP,
    COMPILED,
    DIRECT,
    ENVOY,
    HAPROXY,
    LITELLM,
    MIRROR,
    NGINX,
    SIDECAR,
    SIDECAR_OFF,
    SIDECAR_STOPPED,
)
from bench.slowloris import Slowloris
from bench.streaming import Paced
from bench.tls import Tls

_WHY_AWAKE = (
    "Cores are kept from halting by a spinner each at idle priority: a virtual machine's halted core takes its host "
    "tens of microseconds to wake, twice per hop, which is charged to every proxy alike and hides what they differ in. "
    "The column *cores halting* is without spinners."
)


@dataclass
class Results:
    """What was measured, by peer; what was not is empty, and `missing` names it."""

    when: str
    seed: int
    rounds: int
    requests: int
    missing: list[str] = field(default_factory=list)
    load: list[float] = field(default_factory=list)  # average of the last minute, before and after
    small: dict[str, Added] = field(default_factory=dict)
    halting: dict[str, Added] = field(default_factory=dict)
    large: dict[str, dict[str, Added]] = field(default_factory=dict)
    cpu: dict[str, Load] = field(default_factory=dict)
    cpu_halting: dict[str, Load] = field(default_factory=dict)
    saturation: dict[str, Load] = field(default_factory=dict)
    paced: dict[str, Paced] = field(default_factory=dict)
    memory: Memory | None = None
    whole: Whole | None = None
    tls: dict[str, Tls] = field(default_factory=dict)
    slowloris: Slowloris | None = None
    litellm: dict[str, Added] = field(default_factory=dict)  # in a run apart, with fewer requests: it is slow


@dataclass(frozen=True)
class Goal:
    """A figure and the most (or, with `least`, the least) that it should be."""

    what: str
    value: float
    bound: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is within the bound."""
        return self.value >= self.bound if self.least else self.value <= self.bound


def machine() -> str:
    """Processor, cores, and which Python: one built without profile-guided optimization is slower by a seventh."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    build = "" if optimized else " (built without profile-guided optimization)"
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}{build}"


def goals(found: Results) -> Iterator[Goal]:
    """Every goal whose figures are there."""
    yield from _ratios("added p50, 2 kB", {name: one.p50_us for name, one in found.small.items()}, _SMALL)
    yield from _ratios("added p99, 2 kB", {name: one.p99_us for name, one in found.small.items()}, {NGINX: 1.2})
    for size, rows in found.large.items():
        yield from _ratios(f"added p50, {size}", {name: one.p50_us for name, one in rows.items()}, {NGINX: 1.2})
    cpu = {name: one.cpu_us for name, one in found.cpu.items()}
    yield from _ratios("CPU per request, 16 connections", cpu, {NGINX: 1.2, MIRROR: 0.4})
    rates = {name: one.per_second for name, one in found.saturation.items()}
    wanted = {NGINX: 0.9, MIRROR: 2.5, AIOHTTP: 8.0}
    yield from _ratios("requests per second, 64 connections", rates, wanted, least=True)
    if SIDECAR_OFF in found.small:
        added = found.small[SIDECAR].p50_us - found.small[SIDECAR_OFF].p50_us
        yield Goal("capture on less capture off, p50, µs", added, 5.0)
    if SIDECAR_STOPPED in found.small:
        moved = abs(found.small[SIDECAR].p50_us - found.small[SIDECAR_STOPPED].p50_us)
        yield Goal("observer alive against stopped, p50, µs", moved, max(5.0, abs(found.small[AGAIN].p50_us)))
    yield from _tls_goals(found.tls)
    if found.slowloris is not None:
        slow = found.slowloris
        yield Goal(f"p99 among {slow.silent} silent clients, of alone", slow.among_p99_us / slow.alone_p99_us, 1.5)
    if SIDECAR in found.paced:
        direct, through = found.paced[DIRECT], found.paced[SIDECAR]
        yield Goal("stream: first token p50 above direct, µs", through.first_p50_us - direct.first_p50_us, 150)
        yield Goal("stream: gap p99 above direct, µs", through.gap_p99_us - direct.gap_p99_us, 300)
    if found.memory is not None:
        memory = found.memory
        yield Goal("memory of the proxy, idle, MiB", memory.idle, 40)
        yield Goal("memory with 2,000 idle connections, MiB", memory.with_connections, 90)
        yield Goal("memory after 1 GB (sent before those connections), of idle", memory.after_1_gb / memory.idle, 1.1)
    if found.whole is not None:
        yield Goal("memory of proxy and observer, idle, MiB", found.whole.proxy + found.whole.observer, 100)


def _tls_goals(rows: Mapping[str, Tls]) -> Iterator[Goal]:
    for ours, how in ((SIDECAR, ""), (COMPILED, ", compiled")):
        if ours not in rows:
            continue
        direct, through = rows[DIRECT], rows[ours]
        fresh = through.fresh_p50_us / direct.fresh_p50_us
        yield Goal(f"TLS origin, new connection per request, p50{how}, of direct's", fresh, 1.0)
        if NGINX in rows:
            added = (through.kept_p50_us - direct.kept_p50_us) / (rows[NGINX].kept_p50_us - direct.kept_p50_us)
            yield Goal(f"TLS origin, kept connection, added p50{how}, of nginx's", added, 1.5)


_SMALL = {NGINX: 1.0, HAPROXY: 1.0, ENVOY: 0.3, MIRROR: 0.65, AIOHTTP: 0.1}


def _ratios(
    what: str, rows: Mapping[str, float], bounds: Mapping[str, float], *, least: bool = False
) -> Iterator[Goal]:
    for ours, how in ((SIDECAR, ""), (COMPILED, ", compiled")):
        for peer, bound in bounds.items():
            if peer in rows and ours in rows:
                yield Goal(f"{what}{how}, of {peer}'s", rows[ours] / rows[peer], bound, least)


def markdown(found: Results) -> str:
    """The page for people."""
    lines = [
        f"# The proxy beside its peers, {found.when[:10]}",
        "",
        f"Machine: {machine()}. Proxies on one core, client and origin on another, one run, random order,",
        f"seed {found.seed}; latencies over one kept connection, {found.rounds} rounds of {found.requests} requests",
        "per peer, as medians of what the hop adds to direct in the same round. A/A is direct once more: the noise.",
        "",
        _WHY_AWAKE,
        "",
        f"Load average before and after the run: {' and '.join(f'{one:.1f}' for one in found.load)}. Above 0.5,",
        "neighbours were at work on these cores: p99, streams and saturation then tell little, ratios of p50 more.",
        "",
        *(f"**{name} was not there and was not measured.**" for name in found.missing),
        "",
        "![Added p50 by peer](latest.svg)" if found.small else "",
        "",
        "| goal | measured | bound | met |",
        "|---|---|---|---|",
    ]
    for goal in goals(found):
        sign = "≥" if goal.least else "≤"
        lines.append(f"| {goal.what} | {goal.value:.2f} | {sign} {goal.bound:g} | {'yes' if goal.met else '**no**'} |")
    lines += ["", "## 2 kB up, 0.3 kB down", "", *_latency_table(found)]
    for size, rows in found.large.items():
        lines += ["", f"## {size} up", "", "| peer | added p50, µs | added p99, µs |", "|---|---|---|"]
        lines += [f"| {peer} | {one.p50_us:.0f} | {one.p99_us:.0f} |" for peer, one in rows.items() if peer != DIRECT]
    for title, loads in (
        ("16 connections", found.cpu),
        ("16 connections, cores halting", found.cpu_halting),
        ("64 connections", found.saturation),
    ):
        if loads:
            lines += [
                "",
                f"## {title}",
                "",
                "| peer | requests/s | CPU per request, µs | failures |",
                "|---|---|---|---|",
            ]
            lines += [
                f"| {peer} | {one.per_second:.0f} | {one.cpu_us:.1f} | {one.failures or 'none'} |"
                for peer, one in loads.items()
            ]
    if found.paced:
        lines += ["", "## Events paced at 20 ms", "", "| peer | first p50, µs | gap p99, µs | one by one |"]
        lines += ["|---|---|---|---|"]
        for peer, stream in found.paced.items():
            alone = "yes" if stream.one_by_one else "no"
            lines.append(f"| {peer} | {stream.first_p50_us:.0f} | {stream.gap_p99_us:.0f} | {alone} |")
    lines += _rest(found)
    return "\n".join(lines) + "\n"


def _rest(found: Results) -> Iterator[str]:
    if found.tls:
        yield from (
            "",
            "## TLS origin",
            "",
            "Direct, the client speaks TLS itself; through a proxy, the proxy does.",
            "",
        )
        yield from ("| peer | new connection per request, p50, µs | kept connection, p50, µs |", "|---|---|---|")
        for peer, one in found.tls.items():
            yield f"| {peer} | {one.fresh_p50_us:.0f} | {one.kept_p50_us:.0f} |"
    if found.slowloris is not None:
        slow = found.slowloris
        yield from ("", "## Silent clients", "")
        yield f"p99 of a healthy client: {slow.alone_p99_us:.0f} µs alone, {slow.among_p99_us:.0f} µs beside"
        yield f"{slow.silent} that have connected and say nothing or never finish a head."
    if found.whole is not None:
        whole = found.whole
        yield from ("", "## Memory of the whole sidecar, idle", "")
        yield f"Proxy {whole.proxy:.0f} MiB, observer {whole.observer:.0f} MiB; the embedded Redis, where no other is"
        yield f"used, {whole.embedded_redis:.0f} MiB. Shared pages are counted once, the queue apart."
    if found.litellm:
        yield from ("", f"## {LITELLM}", "", "| peer | added p50, µs | added p99, µs |", "|---|---|---|")
        for peer, row in found.litellm.items():
            if peer != DIRECT:
                yield f"| {peer} | {row.p50_us:.0f} | {row.p99_us:.0f} |"


def _latency_table(found: Results) -> Iterator[str]:
    yield "| peer | added p50, µs | added p99, µs | cores halting: p50 | p99 |"
    yield "|---|---|---|---|---|"
    for peer, one in found.small.items():
        halting = found.halting.get(peer)
        rest = f"{halting.p50_us:.1f} | {halting.p99_us:.1f}" if halting is not None else "– | –"
        name = "direct itself" if peer == DIRECT else peer
        yield f"| {name} | {one.p50_us:.1f} | {one.p99_us:.1f} | {rest} |"


def document(found: Results) -> dict[str, Any]:
    """The same for programs."""
    return {
        "machine": machine(),
        **asdict(found),
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals(found)],
    }


def svg(found: Results) -> str:
    """Bars of the added p50."""
    rows = [(peer, one.p50_us) for peer, one in found.small.items() if peer not in {DIRECT, AGAIN}]
    most = max(value for _, value in rows)
    height = 28 * len(rows) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20" font-weight="bold">Added p50, µs (2 kB up, 0.3 kB down, one connection)</text>',
    ]
    for index, (peer, value) in enumerate(sorted(rows, key=lambda row: row[1])):
        y, width = 34 + 28 * index, 440 * value / most
        color = "#2a6fdb" if peer.startswith(SIDECAR) else "#9aa5b1"
        out += [
            f'<text x="190" y="{y + 15}" text-anchor="end">{peer}</text>',
            f'<rect x="200" y="{y}" width="{width:.1f}" height="20" fill="{color}"/>',
            f'<text x="{206 + width:.1f}" y="{y + 15}">{value:.0f}</text>',
        ]
    return "\n".join([*out, "</svg>", ""])
