"""What the processes that have ended leave to the others: their counts of endings, and their last endings."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from .endings import HOURS, KEPT, MINUTES, Ended, EndingLog
from .merging import merge_counts

__all__ = ["SOURCES", "Heritage", "bequest_of"]

#: Number of processes whose counts are kept. With some causes and codes in each minute and hour, those of one are 7 KB
#: of JSON.
SOURCES = 256
#: Maximum characters of what one process leaves. About 400 endings fit.
MAX_BEQUEST = 256 << 10
#: Number of processes that are added up, and of endings that become JSON, in one turn of the event loop. It takes less
#: than 2 ms, also if endwell is not compiled.
ADDED = 4
DUMPED = 50


class Heritage:
    """What this process keeps of processes that have ended."""

    def __init__(self) -> None:
        #: The counts of each process, the first one that has ended first.
        self._counts: dict[str, dict[str, Any]] = {}
        #: The newest endings of all of them with the process, the newest last.
        self.recent: list[tuple[str, Ended]] = []
        self._sum: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def sources(self) -> list[str]:
        """The processes."""
        return list(self._counts)

    def bequest(self) -> dict[str, Any]:
        """All of it, for a process that was not there in time. See :func:`bequest_of`."""
        return {"counts": self._counts, "rows": [[source, *ended.values()] for source, ended in self.recent]}

    def add(self, bequest: dict[str, Any], own: str) -> None:
        """Keep what a process has left.

        Each process is kept once. What it has left later replaces what it had left before. What ``own``, this process,
        has left itself is ignored.
        """
        new = {source: counts for source, counts in bequest["counts"].items() if source != own}
        # Before something is changed: the message may be of another version.
        merge_counts(list(new.values()))
        rows = [
            (source, Ended(*values))
            for source, *values in bequest["rows"]
            if source in new and values[-1]["text"]
        ]
        kept = [each for each in self.recent if each[0] not in new]
        self.recent = sorted(kept + rows, key=lambda each: each[1].at)[-KEPT:]
        self._counts = self._counts | new
        while len(self._counts) > SOURCES:
            del self._counts[next(iter(self._counts))]
        self._sum = None

    async def counts(self, present: set[str]) -> dict[str, Any]:
        """The sum of the counts, without those of the processes that are ``present`` and have told them."""
        minute = int(time.time() // 60)
        key = minute, *sorted(present & self._counts.keys())
        if self._sum is not None and self._sum[0] == key:
            return self._sum[1]
        # If something is added meanwhile, another dict replaces this one, and the sum is not kept.
        counts = self._counts
        total = merge_counts([])
        sources = [source for source in self._counts if source not in present]
        for start in range(0, len(sources), ADDED):
            if start:
                await asyncio.sleep(0)
            added = [self._recent_counts(source, minute) for source in sources[start : start + ADDED]]
            total = merge_counts([total, *added])
        if counts is self._counts:
            self._sum = key, total
        return total

    def _recent_counts(self, source: str, minute: int) -> dict[str, Any]:
        counts = self._counts.get(source) or merge_counts([])
        counts["minutes"] = [row for row in counts["minutes"] if row[0] > minute - MINUTES]
        counts["hours"] = [row for row in counts["hours"] if row[0] > minute // 60 - HOURS]
        return counts


async def bequest_of(worker: str, log: EndingLog) -> str | None:
    """What a process leaves, as JSON; None if no connection has ended.

    ``counts`` has the counts by process, and ``rows`` the newest endings that fit: the process, and the fields of
    :class:`Ended`.
    """
    if not log.recent:
        return None
    counts = json.dumps({worker: log.counts()})
    left = MAX_BEQUEST - len(counts)
    rows: list[str] = []
    for index, ended in enumerate(reversed([*log.recent])):
        if index % DUMPED == DUMPED - 1:
            await asyncio.sleep(0)
        row = json.dumps([worker, *ended.values()])
        left -= len(row) + 2
        if left < 0:
            break
        rows.append(row)
    return f'{{"counts": {counts}, "rows": [{", ".join(rows)}]}}'
