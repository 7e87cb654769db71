"""From the answers of several processes to one. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .knowledge import LARGEST
from .order import Order, Place, first

__all__ = ["later_totals", "merge_counts", "merge_endings", "merge_rows", "merge_summaries", "sum_counts"]


def merge_summaries(answers: list[dict[str, Any]], missing: int) -> dict[str, Any]:
    """The summary of several processes."""
    parts = _valid(answers)
    workers = sorted((each["worker"] for each in parts), key=lambda each: (each["host"], each["pid"]))
    return {
        "workers": workers,
        "connections": sum(each["connections"] for each in workers),
        "by_route": sum_counts(each["by_route"] for each in parts),
        "endings": merge_counts([each["endings"] for each in parts]),
        "rooms": _merge_rooms([each["rooms"] for each in parts]),
        "bus": _merge_buses([each["bus"] for each in parts]),
        "totals": _merge_totals(each["totals"] for each in parts),
        "missing_workers": missing + len(answers) - len(parts),
    }


def merge_counts(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of the counts of endings of several processes."""
    return {
        "minutes": _sum_rows(each["minutes"] for each in counts),
        "hours": _sum_rows(each["hours"] for each in counts),
        "by_cause": sum_counts(each["by_cause"] for each in counts),
        "by_code": sum_counts(each["by_code"] for each in counts),
    }


def merge_rows(ask: dict[str, Any], answers: list[dict[str, Any]], missing: int) -> dict[str, Any]:
    """One list of connections."""
    order, parts = Order.of(ask), _valid(answers)
    rows: dict[Place, Any] = {
        (value, worker, number): row for part in parts for (value, worker, number), row in part["rows"]
    }
    # A process may have more connections after the last one that it has considered.
    ends = [
        (value, worker, number) for part in parts if part["last"] for value, worker, number in [part["last"]]
    ]
    end = first(order._replace(limit=1), ends)
    if end:
        known = order._replace(after=end[0])
        rows = {place: row for place, row in rows.items() if not known.is_after(place)}
    chosen = first(order, rows)
    after = chosen[-1:] if len(chosen) < len(rows) else end
    return {
        "total": sum(part["total"] for part in parts),
        "rows": [rows[place] for place in chosen],
        "after": order.cursor(after[0]) if after else None,
        "missing_workers": missing + len(answers) - len(parts),
    }


def merge_endings(ask: dict[str, Any], answers: list[dict[str, Any]], missing: int) -> dict[str, Any]:
    """One list of endings, newest first."""
    parts = _valid(answers)
    rows = sorted((row for part in parts for row in part["rows"]), key=lambda row: row["at"], reverse=True)
    return {
        "rows": rows[: ask.get("limit", 200)],
        "total": sum(part.get("total", 0) for part in parts),
        "missing_workers": missing + len(answers) - len(parts),
    }


def _valid(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are no errors. After an update, a worker of another version may not know an ask."""
    return [each for each in answers if "error" not in each]


def sum_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sums of the counts with the same names."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _sum_rows(tables: Iterable[list[list[Any]]]) -> list[list[Any]]:
    total: dict[int, tuple[Counter[str], Counter[str]]] = {}
    for table in tables:
        for at, *counts in table:
            for sum_, row in zip(total.setdefault(at, (Counter(), Counter())), counts, strict=False):
                sum_.update(row)
    return [[at, *map(dict, total[at])] for at in sorted(total)]


def _merge_rooms(parts: list[dict[str, Any]]) -> dict[str, Any]:
    members = sum_counts(dict(each["largest"]) for each in parts)
    largest = sorted(members.items(), key=lambda each: (-each[1], each[0]))
    # A room with members in several processes is one room. Its name is known if it is one of the largest.
    count = max([len(members), *(each["count"] for each in parts)])
    return {"count": count, "largest": [list(each) for each in largest[:LARGEST]]}


def _merge_buses(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": parts[0]["kind"],
        "connected": all(each["connected"] for each in parts),
    }


def _merge_totals(parts: Iterable[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    """The totals of each table of counts. The processes that share one have read it one after the other."""
    merged: dict[str, dict[str, int]] = {}
    for part in parts:
        for table, counts in part.items():
            merged[table] = later_totals(merged.get(table, {}), counts)
    return merged


def later_totals(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Of two reads of the same totals, the later one: no count goes back."""
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one | other}
