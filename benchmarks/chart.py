"""The summary at the top of docs/explanation/performance.md, made from the tables of that page.

    python benchmarks/chart.py        writes docs/explanation/performance.svg and the table of factors

``run.py`` calls it after it has written the tables. It needs only the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "performance.md"

#: The heading of the table from which the chart is drawn.
HEADING = "### Cost on uvloop"

#: The panels: the name of a row, and its title.
PANELS = {
    "ws 1 KiB 64x16": "1 KiB, 64 connections, 16 messages in flight",
    "ws 1 KiB 64x1": "1 KiB, 64 connections, 1 message in flight",
    "ws 1 KiB 1x1": "1 KiB, 1 connection, 1 message in flight",
    "ws 64 KiB 64x1": "64 KiB, 64 connections, 1 message in flight",
    "wss 1 KiB 64x1": "TLS, 1 KiB, 64 connections, 1 message in flight",
    "churn, 32 at once": "a whole connection: connect, one echo, close",
    "blocking 1 KiB 64x1": "blocking handlers, 1 KiB, 64 connections",
    "idle, 5000 connections": "memory of an idle connection",
}

#: The rows of the table of factors: the name of a row, and its title.
FACTORS = {
    "ws 1 KiB 64x16": "1 KiB, 64 connections, 16 messages in flight on each",
    "ws 1 KiB 64x1": "1 KiB, 64 connections, 1 message in flight on each",
    "ws 1 KiB 1x1": "1 KiB, 1 connection, 1 message in flight",
    "ws 64 KiB 64x1": "64 KiB, 64 connections, 1 message in flight on each",
    "ws 1 MiB 8x4": "1 MiB, 8 connections, 4 messages in flight on each",
    "wss 1 KiB 64x16": "TLS, 1 KiB, 64 connections, 16 messages in flight on each",
    "wss 1 KiB 64x1": "TLS, 1 KiB, 64 connections, 1 message in flight on each",
    "deflate 1 KiB JSON 64x1": "1 KiB of JSON with permessage-deflate, 64 connections",
    "churn, 32 at once": "a whole connection: connect, one echo, close",
    "broadcast 1 KiB to 1000": "broadcast of 1 KiB to 1000 connections",
    "client 1 KiB 1x1": "a client, 1 KiB, 1 message in flight",
    "client 1 KiB 1x16": "a client, 1 KiB, 16 messages in flight",
    "idle, 5000 connections": "memory of an idle connection",
}
#: The libraries of that table, by the heads of the columns, and their titles.
OTHERS = {
    "picows listener": "picows",
    "aiohttp": "aiohttp",
    "websockets": "websockets",
    "uvicorn": "uvicorn + Starlette",
}
BEGIN = "<!-- Made by benchmarks/chart.py from the table below: do not edit up to the end mark. -->\n"
END = "<!-- End of the factors. -->\n"

WIDTH, PANEL_WIDTH, LABEL, BAR, STEP = 940, 455, 118, 200, 20
#: The offset of the first bar in a panel, and the height of a panel without its bars.
TITLE, REST = 30, 50
PER_ROW = 2

STYLE = """
  .page { fill: #ffffff }
  text { font-family: system-ui, sans-serif; font-size: 13px; fill: #263238 }
  .title { font-weight: 600; fill: #004d40 }
  .own { fill: #00796b }
  .other { fill: #b0bec5 }
"""


def rows(page: str) -> tuple[list[str], dict[str, list[str]]]:
    """The heads of the columns, and the cells of each row by its name."""
    lines = page.partition(f"{HEADING}\n")[2].partition("\n#")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, _, *body = cells
    return head, {row[0]: row for row in body}


def bars(head: list[str], row: list[str]) -> list[tuple[str, str]]:
    """The name of each library in a row, and its median as the table has it."""
    return [
        (name, found[0])
        for name, cell in zip(head[2:], row[2:], strict=True)
        if (found := re.match(r"[\d.]+", cell))
    ]


def panel(title: str, unit: str, medians: list[tuple[str, str]], x: int, y: int) -> Iterator[str]:
    """One scenario: a bar for each library; the highest cost has the full length."""
    yield f'<text class="title" x="{x}" y="{y + 16}">{escape(title)}</text>'
    longest = max(float(median) for _, median in medians)
    for number, (name, median) in enumerate(medians):
        top = y + TITLE + number * STEP
        length = max(2.0, BAR * float(median) / longest)
        kind = "own" if name.startswith("endwell") else "other"
        yield f'<text x="{x + LABEL - 8}" y="{top + 12}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect class="{kind}" x="{x + LABEL}" y="{top}" width="{length:.1f}" height="{STEP - 5}"/>'
        yield f'<text x="{x + LABEL + length + 6:.1f}" y="{top + 12}">{median} {unit}</text>'


def chart(page: str) -> str:
    """The chart of the figures of a page, as SVG."""
    head, found = rows(page)
    body: list[str] = []
    y, names = 10, list(PANELS)
    for first in range(0, len(names), PER_ROW):
        height = 0
        for column, name in enumerate(names[first : first + PER_ROW]):
            medians = bars(head, found[name])
            body += panel(
                PANELS[name], found[name][1].split()[0], medians, 15 + column * (PANEL_WIDTH + 10), y
            )
            height = max(height, REST + len(medians) * STEP)
        y += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">\n'
        "<title>Cost of endwell and of other libraries; shorter is better</title>\n"
        f'<style>{STYLE}</style>\n<rect class="page" width="{WIDTH}" height="{y}" rx="8"/>\n'
        + "".join(f"{line}\n" for line in body)
        + "</svg>\n"
    )


def factors(page: str) -> str:
    """The costs of the other libraries in relation to endwell's, as a table."""
    head, found = rows(page)
    lines = ["| | " + " | ".join(OTHERS.values()) + " |", "| --- |" + " ---: |" * len(OTHERS)]
    for name, title in FACTORS.items():
        medians = {library: float(median) for library, median in bars(head, found[name])}
        cells = [
            f"{medians[other] / medians['endwell']:#.2g}".rstrip(".") if other in medians else "-"
            for other in OTHERS
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def filled(page: str) -> str:
    """The page with the table of factors, which must have its place there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the table of factors")
    return f"{before}{BEGIN}\n{factors(page)}\n{END}{after}"


def write(path: Path) -> None:
    """Write the table of factors into a page, and the chart into the file beside it."""
    page = path.read_text(encoding="utf-8")
    path.write_text(filled(page), encoding="utf-8")
    path.with_suffix(".svg").write_text(chart(page), encoding="utf-8")


if __name__ == "__main__":
    write(PAGE)
