"""`python -m bench.stitch [--seed N] [--conversations N]`: are the calls of a conversation found to be one?

Then Redis is emptied and rebuilt from the journals: the sessions and the posted events must be the same.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis.asyncio as redis_async

from bench.stitch import conversations, score, world
from sidecar.embedded.redis import server_argv

GOAL = 0.999
_START_SECONDS = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.stitch", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = subprocess.Popen(server_argv(folder, folder / "redis.sock"), stdout=subprocess.DEVNULL)
        try:
            return asyncio.run(_run(options.seed, options.conversations, folder))
        finally:
            server.kill()
            server.wait()


async def _run(seed: int, number: int, folder: Path) -> int:
    redis = redis_async.Redis(unix_socket_path=str(folder / "redis.sock"))
    await _up(redis)
    here = world.World(seed, redis, folder)
    calls = conversations.write(seed, number)
    began = time.perf_counter()
    seen = await here.run(calls)
    took = time.perf_counter() - began
    found = await here.sessions()
    scores = score.score(calls, [found.get(one) for one in seen], await here.turns())
    print(f"seed {seed}: {len(calls)} calls of {number} conversations over two replicas in {took:.0f} s\n")
    print(score.table(scores))
    _explain(scores)
    _print_counts(here.counts, await here.replicas[0].store.counters())
    good = scores["all"].precision >= GOAL and scores["all"].recall >= GOAL
    good &= await _rebuild(here, found)
    here.close()
    await redis.aclose()
    return 0 if good else 1


async def _rebuild(here: world.World, found: dict[tuple[str, int], str]) -> bool:
    good = True
    before = await here.posted()
    for title, journals in (("both journals", None), ("one journal of two", [1])):
        await here.lose_redis(journals=journals)
        again = await here.sessions()
        moved = sum(again[one] != session for one, session in found.items())
        posted = await here.posted()
        print(
            f"\nrebuilt from {title}: {moved} of {len(found)} calls in another session; "
            f"{len(posted)} of {len(before)} events posted again, {len(posted - before)} that were not posted before"
        )
        good &= moved == 0 and not posted - before
    return good


async def _up(redis: redis_async.Redis) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await redis.ping()
            except (redis_async.ConnectionError, OSError):
                await asyncio.sleep(0.02)
            else:
                return


def _explain(scores: dict[str, score.Score]) -> None:
    for kind, one in sorted(scores.items()):
        if kind != "all" and (one.missed or one.wrong):
            missed = ", ".join(f"{conversation} ({n})" for conversation, n in one.missed.most_common(8))
            wrong = ", ".join(f"{pair[0]} and {pair[1]} ({n})" for pair, n in one.wrong.most_common(8))
            print(
                f"\n{kind}: pairs apart in conversations {missed or 'none'}; pairs of two together in {wrong or 'none'}"
            )


def _print_counts(observers: dict[str, int], store: dict[str, int]) -> None:
    names = (
        "opened",
        "merged",
        "ambiguous",
        "ambiguous_apart",
        "made_twice",
        "exchanges",
        "unplaced",
        "text_sessions_dropped",
        "texts_dropped",
        "trace_joins_over",
    )
    told = {name: store.get(name, 0) for name in names} | {n: v for n, v in store.items() if n.startswith("found_by:")}
    told["observation_early"] = observers.get("observation_early", 0)
    print("\n" + ", ".join(f"{name} {value}" for name, value in told.items()))


if __name__ == "__main__":
    sys.exit(main())
