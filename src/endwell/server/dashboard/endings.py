"""The last endings of a process, and how many there were by time, cause and code."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from ...aio.bind import format_peer
from ...aio.inspection import key_of
from ...aio.websocket import WebSocket
from ...ending import Ending
from ...metrics.codes import CodeLabels
from .numbers import Numbers
from .order import AskError, check_limit, search_of

__all__ = [
    "HOURS",
    "KEPT",
    "MAX_TEXT",
    "MINUTES",
    "SEARCHED",
    "Ended",
    "EndingLog",
    "find_endings",
    "matches",
    "text_of",
]

#: Number of endings that are kept.
KEPT = 1000
#: Minutes and hours for which endings are counted.
MINUTES = 60
HOURS = 24
#: Maximum number of codes of peers that are counted each on its own, beside those that are registered.
CODES_OF_PEERS = 50
#: Maximum characters of a text from the peer or from the application.
MAX_TEXT = 200
#: Number of endings, or connections, that are searched in one turn of the event loop. It takes 1 ms.
SEARCHED = 200

#: The endings of a minute or an hour: by cause, and by code.
Counts: TypeAlias = tuple[dict[str, int], dict[str, int]]


class Ended(NamedTuple):
    """An ending that is kept."""

    at: float
    number: int
    key: str | None
    subject: str | None
    address: str
    route: str
    ending: Ending | dict[str, Any]

    def values(self) -> Ended:
        """The same with values that JSON has."""
        return self if isinstance(self.ending, dict) else self._replace(ending=self.ending.as_dict())

    def as_dict(self, worker: str) -> dict[str, Any]:
        """The ending as the feed has it."""
        ending = self.ending if isinstance(self.ending, dict) else self.ending.as_dict()
        return {
            "at": round(self.at, 3),
            "worker": worker,
            "connection": f"{worker}:{self.number}",
            "key": self.key,
            "subject": self.subject,
            "address": self.address,
            "route": self.route,
            "sentence": ending["text"],
            "ending": ending,
        }


class EndingLog:
    """The endings of one process. An observer of its connections."""

    def __init__(self, skipped: str, numbers: Numbers) -> None:
        self._skipped = skipped
        self._numbers = numbers
        self.recent: deque[Ended] = deque(maxlen=KEPT)
        #: The endings of each minute and hour by cause and by code; the newest last.
        self.minutes: dict[int, Counts] = {}
        self.hours: dict[int, Counts] = {}
        self.by_cause: Counter[str] = Counter()
        self.by_code: Counter[str] = Counter()
        self._codes = CodeLabels(CODES_OF_PEERS)
        # What the connections that have ended have counted.
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0

    def ended(self, ws: WebSocket, ending: Ending) -> None:
        """A connection has ended."""
        request = ws.request
        number = self._numbers.forget(ws)
        if request.route == self._skipped:
            return
        now = time.time()
        if ending.record is not None:
            # A copy has no record. 1,000 of them would take megabytes, in memory and in an answer. The recorder has
            # its own place for them.
            ending = replace(ending)
        # An exception keeps the frames of its traceback.
        kept = ending if ending.exception is None else ending.as_dict()
        address = format_peer(request.remote_address)
        route = request.route or ""
        self.recent.append(Ended(now, number, text_of(key_of(ws)), text_of(ws.subject), address, route, kept))
        cause = ending.cause.value
        self.by_cause[cause] += 1
        code = self._codes.label(int(ending.code), ending.initiator)
        self.by_code[code] += 1
        _count(self.minutes, int(now // 60), MINUTES, cause, code)
        _count(self.hours, int(now // 3600), HOURS, cause, code)
        self.messages_in += ending.messages_in
        self.messages_out += ending.messages_out
        self.bytes_in += ending.bytes_in
        self.bytes_out += ending.bytes_out

    def counts(self) -> dict[str, Any]:
        """The counts, as values that JSON has."""
        now = time.time()
        return {
            "minutes": _since(self.minutes, int(now // 60) - MINUTES),
            "hours": _since(self.hours, int(now // 3600) - HOURS),
            "by_cause": dict(self.by_cause),
            "by_code": dict(self.by_code),
        }


def _count(counts: dict[int, Counts], moment: int, limit: int, cause: str, code: str) -> None:
    row = counts.get(moment)
    if row is None:
        row = counts[moment] = {}, {}
        while len(counts) > limit:
            del counts[min(counts)]  # not the first: the clock may have been set back
    causes, codes = row
    causes[cause] = causes.get(cause, 0) + 1
    codes[code] = codes.get(code, 0) + 1


def _since(counts: dict[int, Counts], moment: int) -> list[list[Any]]:
    return [[at, *row] for at, row in sorted(counts.items()) if at > moment]


def text_of(key: Hashable) -> str | None:
    """A key of the sessions as text. An application may have keys of any type."""
    if key is None:
        return None
    try:
        return (key if isinstance(key, str) else repr(key))[:MAX_TEXT]
    except Exception:
        return f"<{type(key).__name__}>"


async def find_endings(recent: list[tuple[str, Ended]], ask: dict[str, Any]) -> dict[str, Any]:
    """What a client asks of endings. ``recent`` are those with their processes, the newest last.

    Raises:
        AskError: The ask is not valid.
    """
    search, limit = search_of(ask), ask.get("limit", 200)
    cause, code = ask.get("cause"), ask.get("code")
    check_limit(limit, 1000)
    if not isinstance(cause, str | None):
        raise AskError("cause must be a text or null")
    if not isinstance(code, int | None) or isinstance(code, bool):
        raise AskError("code must be a number or null")
    all_match = not search and cause is None and code is None
    total = len(recent) if all_match else 0
    if all_match:
        recent = recent[max(0, len(recent) - limit) :]
    rows: list[dict[str, Any]] = []
    for index, (worker, each) in enumerate(reversed(recent)):
        if index % SEARCHED == SEARCHED - 1:
            await asyncio.sleep(0)
        row = each.as_dict(worker)
        ending = row["ending"]
        if (cause is not None and ending["cause"] != cause) or (code is not None and ending["code"] != code):
            continue
        texts = ("connection", "key", "subject", "address", "route", "sentence")
        found = matches(search, *(row[name] for name in texts))
        if search and not found:
            continue
        total += not all_match
        if len(rows) < limit:
            rows.append(row)
    return {"rows": rows, "total": total}


def matches(search: str, *texts: str | None) -> bool:
    """Whether one of the texts contains what was searched."""
    return any(text is not None and search in text.lower() for text in texts)
