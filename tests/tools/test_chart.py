"""The chart and the table at the top of docs/explanation/performance.md show the figures of that page."""

from __future__ import annotations

import runpy

from tests.cli.process import ROOT

CHART = runpy.run_path(str(ROOT / "benchmarks" / "chart.py"))
PAGE = ROOT / "docs" / "explanation" / "performance.md"


def test_the_chart_is_drawn_from_the_tables_of_the_page():
    drawn = CHART["chart"](PAGE.read_text())
    assert PAGE.with_suffix(".svg").read_text() == drawn, "run benchmarks/chart.py"


def test_the_table_of_factors_is_computed_from_the_tables_of_the_page():
    assert CHART["filled"](PAGE.read_text()) == PAGE.read_text(), "run benchmarks/chart.py"


def test_each_panel_has_a_bar_for_each_library_that_was_measured():
    head, found = CHART["rows"](PAGE.read_text())
    for name in CHART["PANELS"]:
        names = [name for name, _ in CHART["bars"](head, found[name])]
        assert names[0].startswith("endwell")
        assert len(names) == sum(bool(cell) for cell in found[name][2:]) > 1
