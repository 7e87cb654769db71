"""What the rooms lose when something fails, and whether all members are told.

    python -m benchmarks.faults                             2 buses, 12 faults each, 20 rounds; needs root
    python -m benchmarks.faults --bus redis --rounds 3      fewer
    python -m benchmarks.faults --fault FLUSHALL            those whose name has this text

Eight processes serve, with members in each of them, in rooms with a long history, none, and a short one. Others
join, leave, and return to their position. Each message has a number of its publisher, who keeps the receipts.
At the end of a round, all accounts must agree: each member has got each publication once, in order, or was told of
exactly as many as it has not got.

- know: the maximum time until a process says that its bus is not connected. Goal: 2.5 s.
- heal: the maximum time from the moment at which the bus is back until the members of all processes have got a
  message that was published since. Goal: 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import on_redis, on_supervisor
from .play import Fault, Play, Result
from .witness import Ledger

BUSES = {"supervisor": on_supervisor, "redis": on_redis}
KNOW, HEAL = 2.5, 5.0
KINDS = ("history", "undetected", "duplicates", "reorderings", "gap")


def print_errors(folder: Path) -> None:
    """Print the lines of the logs that show an exception."""
    for log in folder.glob("*.log"):
        for line in log.read_text().splitlines()[-400:]:
            if any(word in line for word in ("Error", "exception")):
                print(f"  {log.name}: {line}")


async def play(bus: str, fault: Fault, rounds: int) -> Result:
    """Play a fault with processes of its own."""
    result = Result(bus, fault.name, Ledger(fault.name, fault.keeps))
    with tempfile.TemporaryDirectory(prefix="endwell-faults-") as folder:
        site = BUSES[bus].Stage(Path(folder), fault)
        try:
            await site.start()
            await Play(site, fault, result).run(rounds)
        except Exception as error:
            traceback.print_exc()
            result.ledger.fault("undetected", f"the run has failed: {error!r}")
        finally:
            await site.stop()
        if result.ledger.faults:
            print_errors(Path(folder))
    return result


HEAD = (
    *("what fails", "rounds", "published", "delivered", "told", "unknown gaps"),
    *("lost with history", "silent", "twice", "disorder", "wrong", "know", "heal"),
)


def row(result: Result) -> list[str]:
    """One line of the table."""
    ledger = result.ledger
    counts = ledger.counts
    return [
        result.fault,
        str(result.rounds),
        f"{counts['publications']:,}",
        f"{counts['deliveries']:,}",
        f"{counts['lost']:,}",
        f"{counts['unknown']:,}",
        *(str(len(ledger.faults[kind])) for kind in KINDS),
        "" if result.know is None else f"{result.know:.1f} s",
        f"{result.heal:.1f} s",
    ]


def is_good(result: Result, rounds: int) -> bool:
    """Whether a fault has shown what it must."""
    faults = any(result.ledger.faults.values())
    return result.rounds == rounds and not faults and (result.know or 0) <= KNOW and result.heal <= HEAL


async def play_all(chosen: list[tuple[str, Fault]], rounds: int, beside: int) -> list[Result]:
    """Play faults, some at the same time."""
    places = asyncio.Semaphore(beside)

    async def one(bus: str, fault: Fault) -> Result:
        async with places:
            began = time.monotonic()
            result = await play(bus, fault, rounds)
            verdict = "" if is_good(result, rounds) else "  FAILED"
            print(bus, *row(result), f"{time.monotonic() - began:.0f} s{verdict}", sep=" | ", flush=True)
            return result

    return await asyncio.gather(*(one(*each) for each in chosen))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--bus", choices=BUSES)
    parser.add_argument("--fault", default="", help="a part of its name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--beside", type=int, default=2, help="how many faults are played at the same time")
    wanted = parser.parse_args()
    random.seed(wanted.seed)
    logging.basicConfig(level=logging.ERROR)
    chosen = [
        (bus, fault)
        for bus, module in BUSES.items()
        for fault in module.FAULTS
        if wanted.bus in (None, bus) and wanted.fault in fault.name
    ]
    results = asyncio.run(play_all(chosen, wanted.rounds, wanted.beside))
    for bus in BUSES:
        rows = [row(each) for each in results if each.bus == bus]
        for cells in (HEAD, ["---"] + ["---:"] * (len(HEAD) - 1), *rows) if rows else ():
            print(f"| {' | '.join(cells)} |")
    if not results or not all(is_good(result, wanted.rounds) for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
