"""Measure endwell beside other libraries, in one interleaved run.

    python benchmarks/run.py                        everything; writes docs/explanation/performance.md
    python benchmarks/run.py --quick                a few scenarios, short windows; writes into build/bench
    python benchmarks/run.py --only 'ws 1 KiB*' --contenders endwell 'picows listener' --repeat 3
    python benchmarks/run.py --quick --also before=/path/to/other/checkout/src

In each repetition all servers run, and each scenario visits all of them in an order that rotates. A server
runs on one core, the load generator on another. It needs the packages of benchmarks/requirements.txt.

Exit status: 1 if a reply of endwell was wrong or missing, else 0, whether or not the promises hold.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path

import chart
import instruments
import report
import trustme
from contenders import CONTENDERS, OURS, OURS_BLOCKING, Contender, another
from findings import Findings, shown
from loops import LOOPS
from measure import LOADING, MEASURED, Bench, Fault, Server
from plot import draw
from scenarios import IDLE_CONNECTIONS, SCENARIOS, Kind, Scenario

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "explanation"


def main() -> int:
    """Run what the command line requests."""
    args = arguments()
    findings = Findings(chosen_scenarios(args), chosen_contenders(args), args.loops)
    busy = os.getloadavg()[0]
    if busy > 0.3:
        print(f"the machine is not idle (load average {busy:.1f}): trust no latency, and ratios only roughly")
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    allow_connections(IDLE_CONNECTIONS + 200)
    if MEASURED == LOADING:
        print("there is only one core: server and load share it, so that the figures say little")
    os.sched_setaffinity(0, {LOADING})  # for the load generator, and everything that is not measured
    tools = instruments.compiled(folder, sanitize=args.sanitize)
    instruments.check(tools)
    bench = Bench(tools, certificate(folder), folder / "servers.log", args.warmup, args.seconds)
    bench.log.write_text("")
    for repetition in range(args.repeat):
        repeat(bench, findings, repetition, args.repeat)
    publish(
        findings, report.Run(args.repeat, args.seconds, busy), args.out or (DOCS if whole(args) else folder)
    )
    (folder / "results.json").write_text(json.dumps(findings.as_dict(), indent=1))
    return (
        1 if any(f", {ours}, " in fault for fault in findings.faults for ours in (OURS, OURS_BLOCKING)) else 0
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    names = [contender.name for contender in CONTENDERS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few scenarios, 3 repetitions of 0.3 s")
    parser.add_argument(
        "--only", nargs="+", metavar="SCENARIO", help='names or patterns, such as "ws 1 KiB*"'
    )
    parser.add_argument(
        "--contenders", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--also", type=another, action="append", default=[], metavar="NAME=FOLDER",
                        help="measure the sources of endwell in this folder as well")  # fmt: skip
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--repeat", type=int, help="repetitions; default 5")
    parser.add_argument("--seconds", type=float, help="of each measurement; default 0.7")
    parser.add_argument("--warmup", type=float, default=0.2, help="seconds before it; default 0.2")
    parser.add_argument(
        "--out",
        type=Path,
        help="a folder for performance.md and performance.png; default: docs if everything is measured",
    )
    parser.add_argument("--sanitize", action="store_true",
                        help="compile the load generator with ASan and UBSan; its figures mean nothing")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the names of the scenarios")
    args = parser.parse_args()
    args.repeat = args.repeat or (3 if args.quick else 5)
    args.seconds = args.seconds or (0.3 if args.quick else 0.7)
    if args.list:
        print(*(scenario.name for scenario in SCENARIOS), sep="\n")
        sys.exit()
    return args


def whole(args: argparse.Namespace) -> bool:
    """Whether this run is one to publish."""
    partly = args.quick or args.only or args.contenders or args.also or args.sanitize
    return not partly and args.repeat >= 5 and len(args.loops) == len(LOOPS)


def chosen_scenarios(args: argparse.Namespace) -> list[Scenario]:
    """The requested contenders."""
    if args.only:
        chosen = [each for each in SCENARIOS if any(fnmatch(each.name, pattern) for pattern in args.only)]
    else:
        chosen = [each for each in SCENARIOS if each.quick or not args.quick]
    if not chosen:
        sys.exit("no such scenario: see --list")
    return chosen


def chosen_contenders(args: argparse.Namespace) -> list[Contender]:
    """The requested contenders."""
    return [*(each for each in CONTENDERS if each.name in (args.contenders or [each.name])), *args.also]


def repeat(bench: Bench, findings: Findings, repetition: int, repetitions: int) -> None:
    """Start every server, and let every scenario visit each of them."""
    with ExitStack() as stack:
        servers = start(stack, bench, findings)
        visits = [scenario for scenario in findings.scenarios for _ in range(scenario.rounds)]
        for turn, scenario in enumerate(visits, repetition):
            for loop in findings.loops:
                cells = []
                for contender in rotated(takers(scenario, findings.contenders), turn):
                    try:
                        server = servers.get((contender.name, loop, scenario.tls))
                        result = bench.measure(scenario, contender, loop, server)
                    except Fault as fault:
                        findings.add(scenario, contender, loop, fault)
                        cells.append((contender.name, str(fault)))
                    else:
                        findings.add(scenario, contender, loop, result)
                        cells.append((contender.name, shown(result.cost)))
                costs = ", ".join(f"{name} {cost}" for name, cost in sorted(cells))
                print(f"{repetition + 1}/{repetitions} {scenario.name}, {loop}: {costs}", flush=True)


def start(stack: ExitStack, bench: Bench, findings: Findings) -> dict[tuple[str, str, bool], Server]:
    """The servers of one repetition, by contender, loop and TLS."""
    ways = {scenario.tls for scenario in findings.scenarios if scenario.kind is Kind.LOAD}
    return {
        (contender.name, loop, tls): stack.enter_context(bench.serving(contender, loop, tls=tls))
        for tls in ways
        for loop in findings.loops
        for contender in findings.contenders
    }


def takers(scenario: Scenario, contenders: Sequence[Contender]) -> list[Contender]:
    """The contenders that support the scenario."""
    return [
        each
        for each in contenders
        if each.blocking is scenario.blocking
        and (scenario.rounds == 1 or each.name in (scenario.ours, scenario.baseline))
        and (each.has_client or scenario.kind is not Kind.CLIENT)
        and (each.has_deflate or not scenario.deflate)
    ]


def rotated(contenders: Sequence[Contender], turn: int) -> list[Contender]:
    """The order rotates, so that no contender always runs after the same one."""
    if not contenders:  # those that are chosen do not support the scenario
        return []
    start = turn % len(contenders)
    return [*contenders[start:], *contenders[:start]]


def publish(findings: Findings, run: report.Run, folder: Path) -> None:
    """Tables to the terminal and into ``folder``, and the plot into ``folder``; the chart only for the docs."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(report.figures(findings, run))
    print(f"\n{text}")
    draw(findings, folder / "performance.png")
    report.write(folder / "performance.md", text)
    if folder == DOCS:
        chart.write(folder / "performance.md")
    print(f"written: {folder / 'performance.md'} and its pictures")


def certificate(folder: Path) -> Path:
    """A key and a certificate of this run's own authority, in one file."""
    path = folder / "certificate.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def allow_connections(number: int) -> None:
    """Raise the limit of open files for this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        sys.exit(f"{number} open files are needed, {hard} allowed: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))


if __name__ == "__main__":
    sys.exit(main())
