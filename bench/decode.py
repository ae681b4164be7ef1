"""`python -m bench decode`: what one exchange costs the observer, by API and size, and what bombs cost.

An exchange's cost is everything from its copied bytes to the observation as the journal keeps it: heads framed, codings
undone, JSON parsed, the API read, ids found, rules judged, digests made. Measured in CPU time of this process; several
conversations in turn, the fastest of some rounds, since neighbours only ever add.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import bombs, report, traffic
from sidecar.observer.journal import Journal, NewRow
from sidecar.observer.observe import Observing
from sidecar.observer.reader import ExchangeReader, RawExchange
from sidecar.policy.loading import builtin_plan
from sidecar.wire.ring import RingReader, RingWriter

_RESULTS = Path(__file__).parent / "results"
_SIZES = {"2 kB": 2_000, "5 kB": 5_000, "50 kB": 50_000, "1 MB": 1_000_000}
_ROUNDS = 5
_ROUND_SECONDS = 0.05
_CONVERSATIONS = 8
# Twenty times the bytes should cost no more than twenty times as much, and a quarter for caches that are too small.
_GROWTH_MAX = 25
_QUEUE_BYTES = 32 << 20
_BATCH = 200
_CUSTOMER = "header:x-customer-id;baggage:customer.id;body:metadata.customer_id"


@dataclass
class Results:
    """`cost_us` by kind of exchange and size; `profile` are the five functions with the most time of their own."""

    when: str
    cost_us: dict[str, dict[str, float]] = field(default_factory=dict)
    per_second: float = 0.0
    journaled_per_second: float = 0.0
    profile: list[tuple[str, float]] = field(default_factory=list)
    bombs: list[bombs.Blast] = field(default_factory=list)
    load: list[float] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench decode", description=__doc__)
    parser.add_argument("--name", default="decode", help="name of the files in bench/results")
    options = parser.parse_args(arguments)
    found = Results(datetime.now(UTC).isoformat(timespec="seconds"))
    found.load.append(os.getloadavg()[0])
    observe = _observer()
    for kind in traffic.kinds():
        row = {size: _cost_us(observe, kind, bytes_up) for size, bytes_up in _SIZES.items()}
        found.cost_us[kind.name] = row
        print(f"{kind.name:30}", *(f"{cost:9.0f}" for cost in row.values()), flush=True)
    mix = [traffic.exchange(kind, _SIZES["5 kB"], number) for number in range(40) for kind in traffic.kinds()]
    found.per_second = 1_000_000 / _fastest_us(lambda: [observe(raw) for raw in mix], len(mix))
    found.profile = _profile(observe, mix)
    found.journaled_per_second = _journaled(mix)
    found.bombs = list(bombs.blasts())
    found.load.append(os.getloadavg()[0])
    text = markdown(found)
    print(text)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{options.name}.md").write_text(text)
    (_RESULTS / f"{options.name}.json").write_text(json.dumps(document(found), indent=1) + "\n")
    return 0


def _observer() -> Callable[[RawExchange], bytes]:
    """From the copied bytes to the row of the journal."""
    observing = Observing("acme", b"k" * 32, "", _CUSTOMER, False, lambda _event: None)
    plan = builtin_plan()

    def observe(raw: RawExchange) -> bytes:
        observation = observing.observe(raw, plan)
        if observation is None:
            raise RuntimeError("the exchange left no observation")
        return observation.to_json()

    return observe


def _cost_us(observe: Callable[[RawExchange], bytes], kind: traffic.Kind, size: int) -> float:
    raws = [traffic.exchange(kind, size, number) for number in range(1, _CONVERSATIONS + 1)]
    return _fastest_us(lambda: [observe(raw) for raw in raws], len(raws))


def _fastest_us(work: Callable[[], Any], exchanges: int) -> float:
    """CPU microseconds for each exchange, of the fastest round."""
    rounds = []
    for _ in range(_ROUNDS):
        began, done = time.process_time(), 0
        while done == 0 or time.process_time() - began < _ROUND_SECONDS:
            work()
            done += exchanges
        rounds.append((time.process_time() - began) / done)
    return 1_000_000 * min(rounds)


def _profile(observe: Callable[[RawExchange], bytes], mix: list[RawExchange]) -> list[tuple[str, float]]:
    """The five functions with the most time of their own, as shares of all."""
    profile = cProfile.Profile()
    profile.enable()
    for raw in mix:
        observe(raw)
    profile.disable()
    stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    own = sorted(((row[2], place) for place, row in stats.items()), reverse=True)
    total = sum(seconds for seconds, _ in own)
    return [(_where(place), seconds / total) for seconds, place in own[:5]]


def _where(place: tuple[str, int, str]) -> str:
    path, _line, name = place
    return name if path == "~" else f"{Path(path).parent.name}/{Path(path).name} {name}"


def _journaled(mix: list[RawExchange]) -> float:
    """Exchanges for each second of CPU with the queue read and the journal written, as the observer's loop does it."""
    observe = _observer()
    with tempfile.TemporaryDirectory() as folder:
        writer = RingWriter(f"{folder}/queue", _QUEUE_BYTES, body_bytes_max=1 << 20)
        reader = ExchangeReader(RingReader(f"{folder}/queue"), f"{folder}/spill", spill_bytes_max=1 << 20)
        journal = Journal(f"{folder}/journal", hours=1, bytes_max=1 << 30)
        spent, done = 0.0, 0
        while done < len(mix):
            for raw in mix[done : done + _BATCH]:
                copy = writer.copy(0)
                copy.request(raw.request)
                copy.response(raw.response)
                copy.end()
            began = time.process_time()
            exchanges = reader.poll()
            rows = [NewRow(raw.producer, raw.sequence, "observation", raw.at_ms, observe(raw)) for raw in exchanges]
            journal.append(rows)
            reader.release()
            spent += time.process_time() - began
            done += len(exchanges)
        journal.close()
        return done / spent


def goals(found: Results) -> Iterator[report.Goal]:
    """Every goal."""
    yield report.Goal(
        "exchanges of 5 kB for each second of a core, all kinds in turn", found.per_second, 1_500, least=True
    )
    yield report.Goal("the same with queue and journal", found.journaled_per_second, 1_500, least=True)
    for name, row in found.cost_us.items():
        yield report.Goal(f"{name}: cost at 1 MB, of that at 50 kB", row["1 MB"] / row["50 kB"], _GROWTH_MAX)
    yield report.Goal("bombs: peak of memory, MiB", max(blast.peak_mib for blast in found.bombs), 256)


def markdown(found: Results) -> str:
    """The page for people."""
    load = " and ".join(f"{one:.1f}" for one in found.load)
    lines = [
        f"# What an exchange costs the observer, {found.when[:10]}",
        "",
        f"Machine: {report.machine()}. Load average before and after the run: {load}.",
        f"CPU time, the fastest of {_ROUNDS} rounds. The size is that of the request's body; streamed answers",
        "have some 40 events. Measured is everything from the copied bytes to the row of the journal.",
        "",
        "| goal | measured | bound | met |",
        "|---|---|---|---|",
    ]
    for goal in goals(found):
        sign = "≥" if goal.least else "≤"
        lines.append(f"| {goal.what} | {goal.value:.1f} | {sign} {goal.bound:g} | {'yes' if goal.met else '**no**'} |")
    lines += ["", "## CPU µs by API and size", "", f"| kind | {' | '.join(_SIZES)} |", f"|---{'|---' * len(_SIZES)}|"]
    for name, row in found.cost_us.items():
        lines.append(f"| {name} | {' | '.join(f'{cost:.0f}' for cost in row.values())} |")
    lines += ["", "## Where the time goes", "", "All kinds in turn at 5 kB; time of their own.", ""]
    lines += ["| function | share |", "|---|---|"]
    lines += [f"| `{where}` | {share:.1%} |" for where, share in found.profile]
    lines += ["", "## Bombs", "", "Each read in a process of its own. What is counted is in the last column.", ""]
    lines += ["| bomb | bytes | CPU ms | memory, MiB | session told complete | counted |", "|---|---|---|---|---|---|"]
    for blast in found.bombs:
        told = "yes" if blast.complete else "no"
        line = f"| {blast.name} | {blast.body_bytes} | {blast.cpu_ms:.0f} | {blast.peak_mib:.0f} | {told} |"
        lines.append(f"{line} {', '.join(blast.counts)} |")
    return "\n".join(lines) + "\n"


def document(found: Results) -> dict[str, Any]:
    """The same for programs."""
    return {
        "machine": report.machine(),
        **asdict(found),
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals(found)],
    }
