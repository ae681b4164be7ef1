"""The tables of docs/exports.md, out of what the code knows of targets and of parked entries."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from sidecar.billing.exports.gate import CAUSES
from sidecar.billing.exports.target import DAY_US, MINUTE_US, Target
from sidecar.billing.exports.targets import TARGETS


def document(page: str) -> str:
    """The page with its tables as they are now."""
    for name, lines in (("targets", _targets()), ("behaviour", _behaviour()), ("causes", _causes())):
        before, begin, rest = page.partition(f"<!-- {name}:begin -->\n")
        _, end, after = rest.partition(f"<!-- {name}:end -->")
        page = before + begin + "\n".join(lines) + "\n" + end + after
    return page


def _targets() -> Iterator[str]:
    yield "| `kind` | target | `url` unless said | posts to | `batch_max` | `concurrency_max` |"
    yield "|---|---|---|---|---|---|"
    for target in TARGETS.values():
        url = f"`{target.url}`" if target.url else "to be given"
        most = f"{target.traits.batch_max} | {target.traits.concurrency_max}"
        yield f"| `{target.kind}` | {target.title} | {url} | {_paths(target)} | {most} |"


def _paths(target: Target) -> str:
    return ", ".join(f"`{path}`" for path in target.paths) or "the URL itself"


def _behaviour() -> Iterator[str]:
    yield "| target | a repetition is answered | ids are remembered | times taken | a correction is |"
    yield "|---|---|---|---|---|"
    for target in TARGETS.values():
        traits = target.traits
        memory = "for ever" if traits.memory_us is None else _span(traits.memory_us)
        yield f"| {target.title} | {target.duplicates} | {memory} | {_times(target)} | {target.negative} |"


def _times(target: Target) -> str:
    past, future = target.traits.past_us, target.traits.future_us
    parts = [] if past is None else [f"{_span(past)} back"]
    if future is not None:
        parts.append(f"{_span(future)} ahead" if future else "none ahead")
    return ", ".join(parts) or "any"


def _span(us: int) -> str:
    if us % DAY_US:
        return f"{us // MINUTE_US} min"
    return "24 h" if us == DAY_US else f"{us // DAY_US} d"


def _causes() -> Iterator[str]:
    yield "| `cause` | because |"
    yield "|---|---|"
    for cause, meaning in CAUSES.items():
        yield f"| `{cause}` | {meaning} |"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(document(path.read_text(encoding="utf-8")), encoding="utf-8")
