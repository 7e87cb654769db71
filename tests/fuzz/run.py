"""Fuzz every target for a while: ``make fuzz``, or ``make fuzz SECONDS=3600 TARGETS="frames close"``.

Inputs are mutated at random. An input that takes a new path through the code is added to the corpus and
mutated in turn. (The pure build is traced for that; the compiled build must give the same result for every
input.) A find is an input that violates a property, raises an undocumented exception, takes long, or
differs between the builds. It is printed, its input is kept, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from hashlib import sha256
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import endwell
from tests.fuzz.builds import COMPILED, Other, outcome
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS

__all__ = ["CORPUS", "corpus"]

CORPUS = Path(__file__).parent / "corpus"
SOURCE = str(Path(endwell.__file__).parent)

#: Seconds for one input in one build, with all its splits, that count as too slow.
SLOW = 2.0

#: The number of finds after which a target pauses: they probably have the same cause.
ENOUGH = 10

Way = tuple[object, ...]


def corpus(name: str) -> list[bytes]:
    """The corpus of a target, the shortest inputs first."""
    inputs = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    return sorted(inputs, key=len)


def ways_of(name: str, data: bytes) -> set[Way]:
    """All line-to-line steps in the package that an input causes, whole and in two halves."""
    ways: set[Way] = set()
    last = 0

    def line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal last
        ways.add((frame.f_code.co_filename, last, last := frame.f_lineno))
        return line

    def begin(frame: FrameType, event: str, arg: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(SOURCE) else None

    for cuts in ([], [len(data) // 2]):
        sys.settrace(begin)
        try:
            TARGETS[name](data, cuts)
        except Exception:  # outcome() reports it
            pass
        finally:
            sys.settrace(None)
    return ways


class Target:
    """The inputs of one target, and the paths they take."""

    def __init__(self, name: str, other: Other, keep: bool) -> None:
        self.name = name
        self.other = other
        self.keep = keep
        self.inputs: list[bytes] = []
        self.ways: set[Way] = set()
        self.runs = self.finds = 0
        self.slowest = 0.0

    def load(self) -> None:
        """Run the corpus; inputs without a new path are not mutated."""
        for data in corpus(self.name):
            self.run(data, kept=True)

    def run(self, data: bytes, kept: bool = False) -> None:
        """Run one input in both builds."""
        self.runs += 1
        began = time.thread_time()
        ours = outcome(self.name, data)
        took = time.thread_time() - began
        self.slowest = max(self.slowest, took)
        theirs = self.other.outcome(self.name, data)
        if ours.startswith("FIND"):
            self.find(data, ours)
        elif theirs != ours:
            self.find(data, f"FIND: the builds differ\n{ours}\n{theirs}")
        elif took > SLOW:
            self.find(data, f"FIND: it took {took:.1f} s")
        ways = ways_of(self.name, data)
        if not ways <= self.ways:
            self.ways |= ways
            self.inputs.append(data)
            if self.keep and not kept:
                (CORPUS / self.name / sha256(data).hexdigest()[:12]).write_bytes(data)

    def find(self, data: bytes, what: str) -> None:
        """Print the find, and keep its input if the corpus does not have it yet."""
        self.finds += 1
        path = Path(f"find-{self.name}-{sha256(data).hexdigest()[:12]}")
        path.write_bytes(data)
        print(f"{self.name}: {what}\n{data!r}\nis in {path}", flush=True)

    def __str__(self) -> str:
        return (
            f"{self.name:<12}{self.runs:>9} inputs {len(self.inputs):>5} kept {len(self.ways):>6} ways"
            f"{self.slowest:>7.2f} s the slowest{self.finds:>4} finds"
        )


def main() -> int:
    """Alternate between the targets until the time is up; 1 if there are finds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="in sum")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the dice; by default, another one each time"
    )
    parser.add_argument("--keep", action="store_true", help="add what leads somewhere new to the corpus")
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    given = parser.parse_args()
    seed = time.time_ns() if given.seed is None else given.seed
    dice = Random(seed)
    print(f"seed {seed}", "compiled: nothing is traced (ENDWELL_PURE=1)" if COMPILED else "")
    until = time.monotonic() + given.seconds
    with Other() as other:
        targets = [Target(name, other, given.keep) for name in given.targets]
        for target in targets:
            target.load()
        told = time.monotonic()
        while time.monotonic() < until:
            for target in targets:
                for _ in range(20 if target.finds < ENOUGH else 0):
                    # Half of the time one of the newest, which have been mutated least.
                    pool = target.inputs if dice.random() < 0.5 else target.inputs[-20:]
                    target.run(mutated(dice.choice(pool), target.inputs, dice))
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(*targets, sep="\n", end="\n\n", flush=True)
    print(*targets, sep="\n")
    return 1 if any(target.finds for target in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
