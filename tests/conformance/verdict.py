"""Reads the reports of the Autobahn testsuite: which cases failed, and why."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["faults", "reports", "summary"]

Report = Mapping[str, Any]

#: Excludes NON-STRICT, where a "SHOULD" is not obeyed, and UNIMPLEMENTED, the result of 12.* and 13.*
#: without permessage-deflate.
GOOD = {"OK", "INFORMATIONAL"}


def reports(folder: Path) -> dict[str, Report]:
    """The report of each case, from all parts of a run."""
    found: dict[str, Report] = {}
    for index in sorted(folder.glob("*/index.json")):
        for agent in json.loads(index.read_text(encoding="utf-8")).values():
            for case, row in agent.items():
                path = index.parent / row["reportfile"]
                details = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
                found[case] = {**details, **row}
    return found


def faults(cases: Sequence[str], found: Mapping[str, Report]) -> Iterator[str]:
    """A line for each of ``cases`` that failed; a missing report is a failure."""
    for case in cases:
        report = found.get(case)
        if report is None:
            yield f"{case}: there is no report"
        elif report["behavior"] not in GOOD:
            yield f"{case}: {report['behavior']}; {report.get('result')}"
        elif report["behaviorClose"] not in GOOD:
            sent, received = report.get("localCloseCode"), report.get("remoteCloseCode")
            yield (
                f"{case}: close {report['behaviorClose']}; {report.get('resultClose')}; "
                f"the suite sent {sent} and received {received}, clean {report.get('wasClean')}"
            )


def summary(found: Mapping[str, Report]) -> Iterator[str]:
    """The number of cases with each verdict, by group, as lines."""
    groups: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for case, report in found.items():
        groups[int(case.partition(".")[0])][report["behavior"]] += 1
    for group, counts in sorted(groups.items()):
        yield f"{group:>4}.*  {_told(counts)}"
    yield f"closes: {_told(Counter(report['behaviorClose'] for report in found.values()))}"


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
