"""`python -m bench [--quick] [--tree DIR]`: the proxy beside its peers, as ratios measured in the same run.

`python -m bench decode`: what an exchange costs the observer. `python -m bench ledger`: what the ledger takes.
`python -m bench console`: how long its pages take over a large ledger.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import sys
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from bench import decode, latency, litellm, load, memory, peers, proxies, report, slowloris, streaming, tls
from bench.processes import awake, cores, pinned_to

_RESULTS = Path(__file__).parent / "results"
_SMALL = latency.request(1_700)
_LARGE = {"50 kB": (latency.request(50_000), 60), "1 MB": (latency.request(1_000_000), 12)}
_OURS = (peers.SIDECAR, peers.COMPILED, peers.SIDECAR_OFF)
_LARGE_PEERS = (peers.DIRECT, peers.AGAIN, *_OURS, peers.RELAY, peers.NGINX, peers.HAPROXY)
_LOAD_PEERS = (*_OURS, peers.RELAY, peers.NGINX, peers.MIRROR, peers.HAPROXY, peers.AIOHTTP)
_PACED_PEERS = (peers.DIRECT, peers.AGAIN, peers.SIDECAR, peers.NGINX)
_BUSY = 0.5
_ORIGIN_ANSWER = "x" * 260


def main() -> int:
    if sys.argv[1:2] == ["decode"]:
        return decode.main(sys.argv[2:])
    if sys.argv[1:2] == ["console"]:
        from bench import console  # noqa: PLC0415

        return console.main(sys.argv[2:])
    if sys.argv[1:2] == ["ledger"]:
        from bench import ledger  # noqa: PLC0415  the proxy's benchmark needs nothing of it

        return ledger.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--rounds",
        type=int,
        default=40,
        help="rounds, each visiting every peer once (default 40: about 18 minutes)",
    )
    parser.add_argument("--requests", type=int, default=150, help="requests per visit (default 150)")
    parser.add_argument(
        "--halting", choices=["both", "no", "yes"], default="both", help="let cores halt (default both)"
    )
    parser.add_argument("--quick", action="store_true", help="the latency of small requests only")
    parser.add_argument("--tree", action="append", default=[], help="compare with another checkout of the project")
    parser.add_argument("--name", default="latest", help="name of the files in bench/results")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    found = report.Results(when, options.seed, options.rounds, options.requests)
    peers.install()
    found.load.append(os.getloadavg()[0])
    if found.load[0] > _BUSY:
        print(f"!!! LOAD AVERAGE {found.load[0]:.1f}: OTHERS ARE AT WORK ON THIS MACHINE !!!", flush=True)
    gc.disable()
    _measure_latency(found, options)
    if not options.quick:
        _measure_load(found, options)
    found.load.append(os.getloadavg()[0])
    _write(options.name, found)
    return 0


def _measure_latency(found: report.Results, options: argparse.Namespace) -> None:
    with proxies.python("bench.origin", [], cores()[1]) as origin, peers.start(origin, trees=options.tree) as started:
        found.missing += started.missing
        for name in started.missing:
            print(f"!!! {name} IS NOT THERE AND IS NOT MEASURED !!!", flush=True)
        everything = {name: peer.port for name, peer in started.peers.items()}
        if not options.quick:
            _say("memory")
            found.memory = memory.measure(started[peers.SIDECAR])
            found.whole = memory.measure_whole(origin[0])
        how = {"rounds": options.rounds, "requests": options.requests, "seed": options.seed}
        far = cores()[1]
        if options.halting != "yes":
            with awake(), pinned_to(far):
                _say("2 kB up, cores kept awake")
                found.small = latency.measure(everything, _SMALL, **how)
                if not options.quick:
                    _measure_large(found, everything, options)
        if options.halting != "no":
            with pinned_to(far):
                _say("2 kB up, cores halting")
                found.halting = latency.measure(everything, _SMALL, **how)
        if not options.quick:
            _say("paced streams")
            some = {name: port for name, port in everything.items() if name in _PACED_PEERS}
            with pinned_to(far):
                found.paced = streaming.measure(some, streams=options.rounds, seed=options.seed)
            _measure_litellm(found, origin, everything, options)
    if not options.quick:
        _measure_apart(found, options)


def _measure_litellm(
    found: report.Results, origin: proxies.Running, ports: dict[str, int], options: argparse.Namespace
) -> None:
    _say("LiteLLM")
    if not litellm.install():
        print("!!! LITELLM CANNOT BE INSTALLED AND IS NOT MEASURED !!!", flush=True)
        found.missing.append(peers.LITELLM)
        return
    with litellm.running(origin[0], cores()[0]) as running, pinned_to(cores()[1]):
        some = {peers.DIRECT: ports[peers.DIRECT], peers.SIDECAR: ports[peers.SIDECAR], peers.LITELLM: running[0]}
        found.litellm = latency.measure(some, _SMALL, rounds=options.rounds, requests=30, seed=options.seed)


def _measure_apart(found: report.Results, options: argparse.Namespace) -> None:
    """What needs a proxy of its own: a TLS origin, and a crowd of silent clients."""
    near, far = cores()
    with pinned_to(far):  # the client, that is: this process
        _say("TLS origin")
        with awake() if options.halting != "yes" else nullcontext():
            trees = peers.checkouts(options.tree)
            found.tls = tls.measure(_SMALL, rounds=options.rounds, seed=options.seed, trees=trees)
        _say("silent clients")
        rounds = max(1, options.rounds // 5)
        with ExitStack() as stack:
            origin = stack.enter_context(proxies.python("bench.origin", [], far))
            running = stack.enter_context(proxies.sidecar(origin[0], near, capture=True))
            found.slowloris = slowloris.measure(running[0], _SMALL, rounds=rounds, requests=1000)


def _measure_large(found: report.Results, ports: dict[str, int], options: argparse.Namespace) -> None:
    some = {name: port for name, port in ports.items() if name in _LARGE_PEERS}
    for size, (data, requests) in _LARGE.items():
        _say(f"{size} up")
        how = {"rounds": options.rounds, "requests": requests, "seed": options.seed}
        found.large[size] = latency.measure(some, data, **how)


def _measure_load(found: report.Results, options: argparse.Namespace) -> None:
    if shutil.which("wrk") is None or shutil.which("nginx") is None:
        print("!!! wrk AND nginx ARE NEEDED FOR CPU PER REQUEST AND SATURATION, WHICH ARE NOT MEASURED !!!", flush=True)
        found.missing.append("wrk (CPU per request, saturation)")
        return
    with proxies.nginx_origin(cores()[1], _ORIGIN_ANSWER) as origin, peers.start(origin) as started:
        some = {name: started.peers[name] for name in _LOAD_PEERS if name in started.peers}
        how = {"rounds": options.rounds, "seconds": 1, "seed": options.seed}
        with awake() if options.halting != "yes" else nullcontext():
            _say("CPU per request, 16 connections")
            found.cpu = load.measure(some, _SMALL, connections=16, **how)
            _say("saturation, 64 connections")
            found.saturation = load.measure(some, _SMALL, connections=64, **how)
        if options.halting == "both":
            _say("CPU per request, 16 connections, cores halting")
            how["rounds"] = max(1, options.rounds // 4)
            found.cpu_halting = load.measure(some, _SMALL, connections=16, **how)


def _say(what: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {what} …", flush=True)


def _write(name: str, found: report.Results) -> None:
    text = report.markdown(found)
    print(text)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{name}.md").write_text(text.replace("latest.svg", f"{name}.svg"))
    (_RESULTS / f"{name}.json").write_text(json.dumps(report.document(found), indent=1) + "\n")
    plotted = found.small or found.halting
    if plotted:
        (_RESULTS / f"{name}.svg").write_text(report.svg(found))
    missed = [goal.what for goal in report.goals(found) if not goal.met]
    print(f"goals missed: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
