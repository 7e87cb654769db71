"""The results as tables, in a terminal and in docs/explanation/performance.md."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contenders import BASELINE, versions
from findings import Findings, shown

import endwell

BEGIN = "<!-- Figures made by `make bench`: do not edit up to the end mark. -->"
END = "<!-- End of the figures. -->"


@dataclass(frozen=True)
class Run:
    """The conditions of the measurement."""

    repeat: int
    seconds: float
    #: The load of the machine before the run: a value above 0 affected it.
    busy: float


def conditions(findings: Findings, run: Run) -> str:
    """The machine, the versions and the number of repetitions."""
    compiled = len(endwell.compiled())
    return prose(
        f"Measured on {datetime.now(UTC).date().isoformat()}: {_processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, {platform.python_implementation()} {platform.python_version()}; "
        f"{', '.join(versions())}. "
        f"endwell {endwell.__version__}, {f'{compiled} modules compiled' if compiled else 'plain build'}. "
        f"Medians of {run.repeat} repetitions of {run.seconds:g} s. Load average before the run: {run.busy:.1f}. "
        f"Wrong replies: {len(findings.faults) or 'none'}."
    )


def prose(text: str) -> str:
    """A paragraph in lines as wide as the prose of the pages."""
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False) + "\n"


def promises(findings: Findings) -> str:
    """The promises beside the measurements."""
    rows = []
    for verdict in findings.verdicts():
        scenario, promise = verdict.scenario, verdict.promise
        latency = promise.figure == "p99"
        rows.append(
            (
                scenario.name + (", p99" if latency else ""),
                verdict.loop,
                f"{verdict.ours} {'µs' if latency else scenario.unit.split()[0]}",
                f"{scenario.baseline} {verdict.theirs}" if verdict.theirs else "",
                "" if promise.absolute else str(verdict.found),
                f"{promise.at_most:.2f}",
                "yes" if verdict.kept else "**no**",
            )
        )
    return table(("scenario", "loop", "endwell", "compared with", "ratio", "goal", "met"), rows)


def costs(findings: Findings, loop: str) -> str:
    """Medians of the cost, with their spread and their ratio to the baseline."""
    names = [contender.name for contender in findings.contenders]
    rows = []
    for scenario in findings.scenarios:
        cells = []
        for name in names:
            figure = findings.figure(scenario, name, loop)
            ratio = findings.ratio(scenario, name, loop) if name != scenario.baseline else None
            times = f" = **{ratio.median:.2f}**" if ratio else ""
            cells.append(f"{shown(figure.median)} {figure.spread}{times}" if figure else "")
        rows.append((scenario.name, scenario.unit, *cells))
    return table(("scenario", "unit", *names), rows)


def speeds(findings: Findings, loop: str) -> str:
    """Rates and latencies."""
    names = [contender.name for contender in findings.contenders]
    rows = []
    for scenario in findings.scenarios:
        cells = []
        for name in names:
            rate = findings.figure(scenario, name, loop, "rate")
            if not rate or not rate.median:
                cells.append("")
                continue
            cell = f"{rate.median / 1000:.3g}"
            p50, p99 = (findings.figure(scenario, name, loop, key) for key in ("p50", "p99"))
            if p50 and p99 and p50.median:
                cell += f": {shown(p50.median)} / {shown(p99.median)}"
            cells.append(cell)
        if any(cells):
            rows.append((scenario.name, *cells))
    return table(("scenario", *names), rows)


def figures(findings: Findings, run: Run) -> Iterator[str]:
    """The generated part of docs/explanation/performance.md."""
    yield f"## All figures\n\n{conditions(findings, run)}"
    yield "![Cost of each library in relation to picows's listener](performance.png)\n"
    yield "### Goals\n"
    yield prose(
        "A goal is the highest acceptable ratio of endwell's cost (in the rows with p99: latency) to that of the "
        "other library. The ratio is the median of the ratios of the repetitions. The goal of the row *idle* is in KiB."
    )
    yield promises(findings)
    for loop in findings.loops:
        yield f"### Cost on {loop}\n"
        yield prose(
            f"The median, ± half of the range, = **the ratio to {BASELINE}**. The row *deflate* has the ratio to "
            f"aiohttp, because {BASELINE} has no compression."
        )
        yield costs(findings, loop)
    for loop in findings.loops:
        yield f"### Rate and latency on {loop}\n"
        yield prose(
            "Thousands per second: p50 / p99 in µs. The latency is that of an echo; in *churn* it lasts from the "
            "load generator's Close to the end of TCP, in *broadcast* until all connections have the message."
        )
        yield speeds(findings, loop)
    if findings.faults:
        yield "### Faults\n\n" + "".join(f"- {fault}\n" for fault in findings.faults)


def write(path: Path, text: str) -> None:
    """Put the figures between the marks of a page, or create the page; the prose around them stays."""
    page = path.read_text(encoding="utf-8") if path.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned for a terminal."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )


def _processor() -> str:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
