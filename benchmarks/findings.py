"""The measurements: every result, medians, and ratios of results measured side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from statistics import median
from typing import Any

from contenders import Contender
from measure import Fault, Result
from scenarios import Promise, Scenario


@dataclass(frozen=True)
class Figure:
    """The median of some repetitions, and their range."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{shown(self.median)} ({shown(self.least)} to {shown(self.most)})"

    @property
    def spread(self) -> str:
        """Half of the range, relative to the median."""
        return f"±{50 * (self.most - self.least) / self.median:.0f} %" if self.median else ""


@dataclass(frozen=True)
class Verdict:
    """The result of a promise on one loop."""

    scenario: Scenario
    promise: Promise
    loop: str
    ours: Figure
    theirs: Figure | None
    #: The ratio of ours to theirs; or our figure, if the promise is absolute.
    found: Figure

    @property
    def kept(self) -> bool:
        """The value, rounded as it is printed."""
        return round(self.found.median, 2) <= self.promise.at_most


@dataclass
class Findings:
    """The results of one run, in the order of repetitions."""

    scenarios: Sequence[Scenario]
    contenders: Sequence[Contender]
    loops: Sequence[str]
    #: For each scenario, contender and loop, by name.
    results: dict[tuple[str, str, str], list[Result | None]] = field(
        default_factory=lambda: defaultdict(list)
    )
    faults: list[str] = field(default_factory=list)

    def add(self, scenario: Scenario, contender: Contender, loop: str, result: Result | Fault) -> None:
        """One more repetition."""
        if isinstance(result, Fault):
            self.faults.append(f"{scenario.name}, {contender.name}, {loop}: {result}")
        self.results[scenario.name, contender.name, loop].append(
            None if isinstance(result, Fault) else result
        )

    def figure(self, scenario: Scenario, contender: str, loop: str, name: str = "cost") -> Figure | None:
        """One figure of one contender; None if it was not measured."""
        found = self.results.get((scenario.name, contender, loop), [])
        return _figure([getattr(result, name) for result in found if result])

    def ratio(self, scenario: Scenario, contender: str, loop: str, name: str = "cost") -> Figure | None:
        """The ratio to the baseline, from results of each repetition, which were measured within seconds."""
        ours = self.results.get((scenario.name, contender, loop), [])
        theirs = self.results.get((scenario.name, scenario.baseline, loop), [])
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(ours, theirs, strict=False) if a and b]
        return _figure([a / b for a, b in pairs if b])

    def verdicts(self) -> Iterator[Verdict]:
        """The results of the promises that this run covers."""
        for scenario in self.scenarios:
            for promise, loop in product(scenario.promises, self.loops):
                ours = self.figure(scenario, scenario.ours, loop, promise.figure)
                theirs = self.figure(scenario, scenario.baseline, loop, promise.figure)
                found = (
                    ours if promise.absolute else self.ratio(scenario, scenario.ours, loop, promise.figure)
                )
                if ours and found:
                    yield Verdict(scenario, promise, loop, ours, theirs, found)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        rows = [
            {
                "scenario": scenario,
                "contender": contender,
                "loop": loop,
                "results": [r and asdict(r) for r in found],
            }
            for (scenario, contender, loop), found in self.results.items()
        ]
        return {"rows": rows, "faults": self.faults}


def _figure(values: Sequence[float]) -> Figure | None:
    return Figure(median(values), min(values), max(values)) if values else None


def shown(value: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
