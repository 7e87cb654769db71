"""The tables of ``endwell top``: their columns, and the texts in them. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from .layout import bars, cut, duration, fields, size

__all__ = ["SORTS", "Table", "detail_lines", "plot_line", "report", "summary_lines", "table_lines"]

#: Columns of the terminal for a field of the details.
DETAIL_WIDTH = 50

#: A row of the feed.
Row = dict[str, Any]


class _Column(NamedTuple):
    """A column of a table."""

    title: str
    #: In columns of the terminal; 0: the rest.
    width: int
    text: Callable[[Row], str]
    is_right: bool = False
    #: The field by which the server can sort.
    sort: str | None = None


class Table(Enum):
    """The tables, in the order of the tab key."""

    CONNECTIONS = "connections"
    ENDINGS = "endings"
    WORKERS = "workers"


def _key(row: Row) -> str:
    return str(row["key"] or row["subject"] or "")


def _counted(name: str, title: str) -> _Column:
    return _Column(title, 7, lambda row: size(row[name]), True, name)


def _lasting(name: str, title: str, width: int = 7) -> _Column:
    return _Column(title, width, lambda row: duration(row[name]), True, name)


def _state(row: Row) -> str:
    drain = row["drain"]
    if drain is None:
        return str(row["state"])
    return f"draining: {drain['phase']}, {duration(drain['seconds_left'])} left"


_COLUMNS = {
    Table.CONNECTIONS: (
        _Column("address", 21, lambda row: row["address"], sort="address"),
        _Column("key", 14, _key, sort="key"),
        _Column("route", 16, lambda row: row["route"], sort="route"),
        _lasting("age", "age"),
        _lasting("idle", "idle"),
        _lasting("latency", "round trip", 11),
        _counted("queued", "queued"),
        _counted("messages_in", "msg in"),
        _counted("messages_out", "msg out"),
        _counted("bytes_in", "in"),
        _counted("bytes_out", "out"),
        _Column("worker", 8, lambda row: row["worker"]),
        _Column("user agent", 0, lambda row: row["user_agent"] or ""),
    ),
    Table.ENDINGS: (
        _Column("time", 8, lambda row: time.strftime("%H:%M:%S", time.localtime(row["at"]))),
        _Column("address", 21, lambda row: row["address"]),
        _Column("key", 14, _key),
        _Column("route", 16, lambda row: row["route"]),
        _Column("how it ended", 0, lambda row: row["sentence"]),
    ),
    Table.WORKERS: (
        _Column("worker", 8, lambda row: row["worker"]),
        _Column("host", 16, lambda row: row["host"]),
        _Column("process", 8, lambda row: str(row["pid"]), True),
        _lasting("uptime", "up"),
        _Column("open", 7, lambda row: str(row["open"]), True),
        _Column("closing", 7, lambda row: str(row["closing"]), True),
        _Column("slow", 6, lambda row: str(row["slow"]), True),
        _lasting("stalled_seconds", "stalled", 8),
        _Column("memory", 8, lambda row: f"{size(row['memory'])}B", True),
        _Column("state", 0, _state),
    ),
}
#: The fields by which the server can sort the connections, in the order of the columns.
SORTS = tuple(column.sort for column in _COLUMNS[Table.CONNECTIONS] if column.sort)


def table_lines(
    table: Table, rows: list[Row], columns: int, sort: str | None = None, mark: str = ""
) -> list[str]:
    """The titles and the rows, as lines of ``columns`` columns. ``mark`` follows the title of the sort."""
    shown = _fitting(_COLUMNS[table], columns)
    right = [each.is_right for each, _ in shown]
    widths = [wide for _, wide in shown]
    titles = [each.title + (mark if sort is not None and each.sort == sort else "") for each, _ in shown]
    texts = [titles, *([each.text(row) for each, _ in shown] for row in rows)]
    return [cut(fields(row, widths, right), columns) for row in texts]


def _fitting(table: tuple[_Column, ...], columns: int) -> list[tuple[_Column, int]]:
    """The columns that fit, and their widths."""
    shown: list[tuple[_Column, int]] = []
    for each in table:
        wide = each.width or columns
        if wide > columns and each.width:
            break
        shown.append((each, wide))
        columns -= wide + 1
        if columns <= 0:
            break
    return shown


def plot_line(summary: dict[str, Any], *, ascii_only: bool) -> str:
    """The number of endings in each of the last 60 minutes."""
    now = int(summary["at"] // 60)
    counts = dict.fromkeys(range(now - 59, now + 1), 0)
    for at, causes, *_ in summary["endings"]["minutes"]:
        if at in counts:
            counts[at] += sum(causes.values())
    plot = bars([*counts.values()], ascii_only=ascii_only)
    return f"endings in each of the last 60 minutes, at most {max(counts.values())}: {plot}"


def summary_lines(summary: dict[str, Any], rates: dict[str, float] | None = None) -> list[str]:
    """The lines that tell a summary."""
    workers = summary["workers"]

    def total(name: str) -> int:
        return sum(worker[name] for worker in workers)

    if rates is None:
        totals = summary["totals"]
        traffic = f"received {size(totals['messages_in'])} messages, {size(totals['bytes_in'])}B"
        traffic += f"; sent {size(totals['messages_out'])} messages, {size(totals['bytes_out'])}B"
    else:
        traffic = f"in {size(rates['messages_in'])} msg/s, {size(rates['bytes_in'])}B/s"
        traffic += f"; out {size(rates['messages_out'])} msg/s, {size(rates['bytes_out'])}B/s"
    counts = f"{total('closing')} closing, {total('lingering')} lingering, {total('slow')} slow"
    missing = summary["missing_workers"]
    silent = f", {missing} without an answer" if missing else ""
    rooms, bus = summary["rooms"], summary["bus"]
    connected = "connected" if bus["connected"] else "NOT CONNECTED"
    lost = f", {bus['lost_publications']} lost publications" if bus["lost_publications"] else ""
    causes = sorted(summary["endings"]["by_cause"].items(), key=lambda each: -each[1])
    return [
        f"{summary['connections']} connections ({counts}); {traffic}",
        f"{len(workers)} workers{silent}; {rooms['count']} rooms; bus {bus['kind']} {connected}{lost}",
        *(_drain_line(worker) for worker in workers if worker["drain"] is not None),
        f"endings: {', '.join(f'{cause} {count}' for cause, count in causes) or 'none'}",
    ]


def _drain_line(worker: Row) -> str:
    drain = worker["drain"]
    left = duration(drain["seconds_left"])
    return (
        f"worker {worker['worker']} drains: {drain['phase'].replace('_', ' ')}, {drain['open']} open, "
        f"{drain['ended']} ended, {left} left"
    )


def report(summary: dict[str, Any], rows: list[Row], endings: list[Row]) -> list[str]:
    """The lines of ``endwell top --once``."""
    connections = table_lines(Table.CONNECTIONS, rows, 180)
    return [
        *summary_lines(summary),
        "",
        *(line.rstrip() for line in connections),
        "",
        *(line.rstrip() for line in table_lines(Table.ENDINGS, endings, 180)),
    ]


def detail_lines(row: Row, columns: int) -> list[str]:
    """All fields of a row, in as many columns as fit."""
    fields_of = {**row, **row["ending"]} if isinstance(row.get("ending"), dict) else row
    texts = [f"  {name}: {_plain(value)}" for name, value in fields_of.items() if name != "ending"]
    beside = max(1, columns // DETAIL_WIDTH)
    height = -(-len(texts) // beside)
    wide = columns // beside
    lines = ["".join(cut(text, wide) for text in texts[number::height]) for number in range(height)]
    return [cut(line, columns) for line in lines]


def _plain(value: object) -> str:
    """A value of a row as text."""
    if isinstance(value, dict):
        return ", ".join(
            f"{name} {_plain(each)}" for name, each in value.items() if each not in (None, "", 0)
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
