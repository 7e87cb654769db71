"""The results as a plot: the cost of each contender relative to the baseline."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from contenders import BASELINE, OURS
from findings import Findings
from matplotlib import pyplot as plt

MARKERS = ("o", "|", "s", "^", "D", "v", "P", "X")
TICKS = (0.1, 0.2, 0.5, 1, 2, 5)


def draw(findings: Findings, path: Path) -> None:
    """One panel per loop, one line per scenario, one mark per contender."""
    scenarios = list(findings.scenarios)
    height = 1.6 + 0.3 * len(scenarios)
    figure, panels = plt.subplots(
        1, len(findings.loops), sharey=True, squeeze=False, figsize=(5.5 * len(findings.loops) + 2, height)
    )
    for panel, loop in zip(panels[0], findings.loops, strict=True):
        for marker, contender in zip(MARKERS, findings.contenders, strict=False):
            points = [
                (ratio.median, row)
                for row, scenario in enumerate(scenarios)
                if (ratio := findings.ratio(scenario, contender.name, loop))
            ]
            ours = contender.name == OURS
            panel.plot(
                [x for x, _ in points],
                [y for _, y in points],
                marker,
                label=contender.name,
                markersize=9 if ours else 6,
                markeredgewidth=2 if marker == "|" else 1,
                alpha=1 if ours else 0.7,
                zorder=3 if ours else 2,
            )
        panel.axvline(1, color="0.5", linewidth=1)
        panel.set_xscale("log")
        panel.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        panel.minorticks_off()
        panel.set_title(loop)
        panel.set_xlabel(f"cost, relative to {BASELINE}\n(left is better)")
        panel.grid(alpha=0.3)
    panels[0][0].set_yticks(range(len(scenarios)), [scenario.name for scenario in scenarios])
    panels[0][0].invert_yaxis()
    panels[0][-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
