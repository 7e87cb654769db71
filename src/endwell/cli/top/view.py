"""What ``endwell top`` shows, and what each key does. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from ..line import Line
from .layout import bars, cut, duration, fields, size

__all__ = ["View", "report"]

#: The keys that are not one character, as terminals send them (xterm, and the application mode of VT100).
_KEYS = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1b[4~": "end",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1b": "escape",
    "\t": "tab",
    "\r": "enter",
    "\n": "enter",
    "\x03": "q",
}
_HELP = (
    "tab view  < > sort  r reverse  / search  s slow  enter details  c close  d drain worker  R restart  q quit"
)
#: The columns of the list of connections: the title, the field by which it sorts, its width (0: the rest), and whether
#: it is on the right.
_CONNECTIONS = (
    ("address", "address", 21, False),
    ("key", "key", 14, False),
    ("route", "route", 16, False),
    ("age", "age", 7, True),
    ("idle", "idle", 7, True),
    ("round trip", "latency", 10, True),
    ("queued", "queued", 7, True),
    ("msg in", "messages_in", 7, True),
    ("msg out", "messages_out", 7, True),
    ("in", "bytes_in", 7, True),
    ("out", "bytes_out", 7, True),
    ("worker", None, 8, False),
    ("user agent", None, 0, False),
)
_ENDINGS = (
    ("time", 8, False),
    ("address", 21, False),
    ("key", 14, False),
    ("route", 16, False),
    ("how it ended", 0, False),
)
_WORKERS = (
    ("worker", 8, False),
    ("host", 16, False),
    ("process", 8, True),
    ("up", 7, True),
    ("open", 7, True),
    ("closing", 7, True),
    ("slow", 6, True),
    ("stalled", 8, True),
    ("memory", 8, True),
    ("state", 0, False),
)
#: Those whose largest values are first.
_DESCENDING = {"age", "latency", "queued", "messages_in", "messages_out", "bytes_in", "bytes_out", "idle"}

#: What asks the server: the ask, and what to do with the answer.
Ask = dict[str, Any]


class Table(Enum):
    """The tables, in the order of the tab key."""

    CONNECTIONS = "connections"
    ENDINGS = "endings"
    WORKERS = "workers"


class _Question(NamedTuple):
    """An action that waits for a confirmation."""

    text: str
    ask: Ask


class Styled(NamedTuple):
    """A line, and how it is shown: "" or a parameter of SGR (ECMA-48 §8.3.117)."""

    text: str
    style: str = ""


class View:
    """The state of the screen.

    Args:
        where: The address of the server, for the first line.
        ascii_only: Whether the terminal has no other characters.
    """

    def __init__(self, where: str, *, ascii_only: bool = False) -> None:
        self._where = where
        self._ascii_only = ascii_only
        self.table = Table.CONNECTIONS
        self.sort = "age"
        self.descending = True
        self.search = ""
        self.slow = False
        self.ended = False
        #: What is wrong with the connection; "" while it is open.
        self.trouble = "connecting"
        #: The answer to the last action.
        self.note = ""
        self._editing: Line | None = None
        self._question: _Question | None = None
        self._asks: list[Ask] = []
        self._summary: dict[str, Any] | None = None
        self._rates = {"messages_in": 0.0, "messages_out": 0.0, "bytes_in": 0.0, "bytes_out": 0.0}
        self._rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in Table}
        self._total = 0
        self._selected = 0
        self._first = 0
        self._details = False
        #: Number of rows that fit on the screen.
        self._height = 20
        self._escape = ""

    # -- from the server ------------------------------------------------------------------

    def summarize(self, summary: dict[str, Any]) -> None:
        """A summary has come."""
        before = self._summary
        self._summary = summary
        self._rows[Table.WORKERS] = summary["workers"]
        if before is not None and (seconds := summary["at"] - before["at"]) > 0:
            known = {worker["worker"]: worker for worker in before["workers"]}
            for name in self._rates:
                # A worker that has come or gone meanwhile has no rate.
                grown = sum(
                    worker[name] - known[worker["worker"]][name]
                    for worker in summary["workers"]
                    if worker["worker"] in known
                )
                self._rates[name] = max(0.0, grown / seconds)

    def listed(self, table: Table, answer: dict[str, Any]) -> None:
        """The rows of a table have come."""
        if "error" in answer:
            self.note = str(answer["error"])
            return
        self._rows[table] = answer["rows"]
        if table is Table.CONNECTIONS:
            self._total = answer["total"]

    def acted(self, answer: dict[str, Any]) -> None:
        """The answer to an action has come."""
        self.note = f"not done: {answer['error']}" if "error" in answer else "done"

    # -- to the server --------------------------------------------------------------------

    def wanted(self) -> Ask | None:
        """The ask for the table that is shown; None if the summary has it."""
        search = self.search or None
        if self.table is Table.ENDINGS:
            return {"ask": "endings", "search": search, "limit": 200}
        if self.table is Table.CONNECTIONS:
            order = {"sort": self.sort, "descending": self.descending, "slow": self.slow}
            return {"ask": "list", "search": search, "limit": 200, **order}
        return None

    def take_asks(self) -> list[Ask]:
        """The actions that were confirmed since the last call."""
        asks, self._asks = self._asks, []
        return asks

    # -- keys -----------------------------------------------------------------------------

    def type(self, text: str) -> bool:
        """Handle what was typed. Returns whether the table is to be asked for again."""
        changed = False
        while text:
            key, text = _next_key(text)
            changed = self._press(key) or changed
        return changed

    def _press(self, key: str) -> bool:
        if self._editing is not None:
            return self._edit(self._editing, key)
        if self._question is not None:
            if key in ("y", "Y"):
                self._asks.append(self._question.ask)
                self.note = "asked"
            self._question = None
            return False
        self.note = ""
        name = _KEYS.get(key, key)
        if name in _ACTIONS:
            return bool(_ACTIONS[name](self))
        return False

    def _edit(self, line: Line, key: str) -> bool:
        if key in ("\x03", "\x1b"):
            self._editing = None
            return False
        for text in line.feed(key.encode()):
            self._editing, self.search, self._selected = None, text.strip(), 0
            return True
        return False

    def _quit(self) -> None:
        self.ended = True

    def _next_table(self) -> bool:
        tables = [*Table]
        self.table = tables[(tables.index(self.table) + 1) % len(tables)]
        self._selected = self._first = 0
        self._details = False
        return True

    def _move(self, rows: int) -> None:
        self._selected = max(0, min(self._selected + rows, len(self._rows[self.table]) - 1))

    def _sort_by(self, step: int) -> bool:
        names = [name for _, name, _, _ in _CONNECTIONS if name is not None]
        self.sort = names[(names.index(self.sort) + step) % len(names)]
        self.descending = self.sort in _DESCENDING
        return True

    def _reverse(self) -> bool:
        self.descending = not self.descending
        return True

    def _toggle_slow(self) -> bool:
        self.slow = not self.slow
        self._selected = 0
        return True

    def _begin_search(self) -> None:
        self._editing = Line("search: ")

    def _leave(self) -> bool:
        if self._details:
            self._details = False
            return False
        searched, self.search = self.search, ""
        return bool(searched)

    def _toggle_details(self) -> None:
        self._details = not self._details

    def _ask_close(self) -> None:
        row = self._row()
        if row is None or self.table is not Table.CONNECTIONS:
            self.note = "select a connection to close"
            return
        who = cut(str(row["key"] or row["address"]), 30).strip()
        ask = {"ask": "close", "connection": row["connection"], "code": 1000, "reason": "closed by an operator"}
        self._question = _Question(f"close the connection of {who} with 1000? y/N", ask)

    def _ask_drain(self) -> None:
        row = self._row()
        if row is None or self.table is not Table.WORKERS:
            self.note = "select a worker to drain in the table of the workers"
            return
        ask = {"ask": "drain", "worker": row["worker"]}
        self._question = _Question(f"replace worker {row['worker']} (process {row['pid']})? y/N", ask)

    def _ask_restart(self) -> None:
        self._question = _Question("replace all workers, one generation after the other? y/N", {"ask": "restart"})

    def _row(self) -> dict[str, Any] | None:
        rows = self._rows[self.table]
        return rows[self._selected] if self._selected < len(rows) else None

    # -- lines ----------------------------------------------------------------------------

    def lines(self, columns: int, height: int) -> list[Styled]:
        """The screen: exactly ``height`` lines of ``columns`` columns."""
        head = [*self._head(columns)]
        details = self._detail_lines(columns)[: height // 2] if self._details else []
        self._height = max(1, height - len(head) - len(details) - 2)
        self._move(0)
        if not self._first <= self._selected < self._first + self._height:
            self._first = max(0, self._selected - self._height + 1 if self._selected > self._first else self._selected)
        body = self._body(columns)
        rest = [Styled(" " * columns)] * (self._height + 1 - len(body))
        lines = [*head, *body, *rest, *details, self._foot(columns)]
        return lines[: height - 1] + lines[-1:] if len(lines) > height else lines

    def _head(self, columns: int) -> list[Styled]:
        trouble = f"  {self.trouble}" if self.trouble else ""
        first = Styled(cut(f"endwell top  {self._where}{trouble}", columns), "31" if self.trouble else "1")
        summary = self._summary
        if summary is None:
            return [first]
        return [first, *(Styled(cut(text, columns)) for text in summary_lines(summary, self._rates)), self._plot(columns)]

    def _plot(self, columns: int) -> Styled:
        assert self._summary is not None
        now = int(self._summary["at"] // 60)
        counts = dict.fromkeys(range(now - 59, now + 1), 0)
        for at, row in self._summary["endings"]["minutes"]:
            if at in counts:
                counts[at] += sum(row.values())
        plot = bars([*counts.values()], ascii_only=self._ascii_only)
        text = f"endings in each of the last 60 minutes, at most {max(counts.values())}: {plot}"
        return Styled(cut(text, columns))

    def _body(self, columns: int) -> list[Styled]:
        shown = self._rows[self.table][self._first : self._first + self._height]
        if self.table is Table.CONNECTIONS:
            titles = [self._title(title, name) for title, name, _, _ in _CONNECTIONS]
            layout = [(wide, right) for _, _, wide, right in _CONNECTIONS]
            texts = [_connection(row) for row in shown]
        elif self.table is Table.ENDINGS:
            titles = [title for title, _, _ in _ENDINGS]
            layout = [(wide, right) for _, wide, right in _ENDINGS]
            texts = [_ending(row) for row in shown]
        else:
            titles = [title for title, _, _ in _WORKERS]
            layout = [(wide, right) for _, wide, right in _WORKERS]
            texts = [_worker(row) for row in shown]
        widths, right = _widths(layout, columns), [each for _, each in layout]
        count = len(widths)
        rows = [titles[:count], *(text[:count] for text in texts)]
        lines = [cut(fields(row, widths, right[:count]), columns) for row in rows]
        at = self._selected - self._first
        return [
            Styled(lines[0], "7"),
            *(Styled(line, "1;34" if number == at else "") for number, line in enumerate(lines[1:])),
        ]

    def _title(self, title: str, name: str | None) -> str:
        if name != self.sort:
            return title
        return f"{title}{'v' if self.descending else '^'}"

    def _detail_lines(self, columns: int) -> list[Styled]:
        row = self._row()
        if row is None:
            return []
        return [
            Styled(" " * columns),
            *(Styled(cut(f"  {name}: {_plain(value)}", columns)) for name, value in row.items()),
        ]

    def _foot(self, columns: int) -> Styled:
        if self._editing is not None:
            return Styled(cut(f"search: {self._editing.text}_", columns))
        if self._question is not None:
            return Styled(cut(self._question.text, columns), "1;31")
        if self.note:
            return Styled(cut(self.note, columns), "1")
        found = f"{self._total} found" if self.table is Table.CONNECTIONS else self.table.value
        searched = f" with {self.search!r}" if self.search else ""
        slow = ", slow ones" if self.slow and self.table is Table.CONNECTIONS else ""
        return Styled(cut(f"{found}{searched}{slow}  |  {_HELP}", columns), "2")


_ACTIONS: dict[str, Callable[[View], object]] = {
    "q": View._quit,
    "tab": View._next_table,
    "up": lambda view: view._move(-1),
    "k": lambda view: view._move(-1),
    "down": lambda view: view._move(1),
    "j": lambda view: view._move(1),
    "page up": lambda view: view._move(-view._height),
    "page down": lambda view: view._move(view._height),
    "home": lambda view: view._move(-1000),
    "end": lambda view: view._move(1000),
    "<": lambda view: view._sort_by(-1),
    "left": lambda view: view._sort_by(-1),
    ">": lambda view: view._sort_by(1),
    "right": lambda view: view._sort_by(1),
    "r": View._reverse,
    "s": View._toggle_slow,
    "/": View._begin_search,
    "escape": View._leave,
    "enter": View._toggle_details,
    "c": View._ask_close,
    "d": View._ask_drain,
    "R": View._ask_restart,
}


def _next_key(text: str) -> tuple[str, str]:
    """The first key of what was typed, and the rest."""
    if not text.startswith("\x1b") or len(text) == 1 or text[1] not in "[O":
        return text[0], text[1:]
    end = 2
    # ECMA-48 §5.4: parameters, then a final byte.
    while end < len(text) and not "@" <= text[end] <= "~":
        end += 1
    return text[: end + 1], text[end + 1 :]


def summary_lines(summary: dict[str, Any], rates: dict[str, float] | None = None) -> list[str]:
    """The lines that tell a summary."""
    workers = summary["workers"]

    def total(name: str) -> int:
        return sum(worker[name] for worker in workers)

    if rates is None:
        traffic = f"received {size(total('messages_in'))} messages, {size(total('bytes_in'))}B"
        traffic += f"; sent {size(total('messages_out'))} messages, {size(total('bytes_out'))}B"
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
        *(line for worker in workers if (line := _drain_line(worker))),
        f"endings: {', '.join(f'{cause} {count}' for cause, count in causes) or 'none'}",
    ]


def _drain_line(worker: dict[str, Any]) -> str:
    drain = worker["drain"]
    if drain is None:
        return ""
    left = duration(drain["seconds_left"])
    return (
        f"worker {worker['worker']} drains: {drain['phase'].replace('_', ' ')}, {drain['open']} open, "
        f"{drain['ended']} ended, {left} left"
    )


def report(summary: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """The lines of ``endwell top --once``."""
    widths = [wide or 40 for _, _, wide, _ in _CONNECTIONS]
    right = [each for _, _, _, each in _CONNECTIONS]
    titles = [title for title, _, _, _ in _CONNECTIONS]
    table = [titles, *map(_connection, rows)]
    return [*summary_lines(summary), "", *(fields(texts, widths, right).rstrip() for texts in table)]


def _widths(layout: list[tuple[int, bool]], columns: int) -> list[int]:
    """The widths of the columns that fit; the last one, whose width is 0, has the rest."""
    widths: list[int] = []
    left = columns
    for wide, _ in layout:
        if not wide:
            widths.append(left)
            break
        if wide > left:
            break
        widths.append(wide)
        left -= wide + 1
        if left <= 0:
            break
    return widths


def _connection(row: dict[str, Any]) -> list[str]:
    return [
        row["address"],
        row["key"] or row["subject"] or "",
        row["route"],
        duration(row["age"]),
        duration(row["idle"]),
        duration(row["latency"]),
        size(row["queued"]),
        size(row["messages_in"]),
        size(row["messages_out"]),
        size(row["bytes_in"]),
        size(row["bytes_out"]),
        row["worker"],
        row["user_agent"] or "",
    ]


def _ending(row: dict[str, Any]) -> list[str]:
    clock = time.strftime("%H:%M:%S", time.localtime(row["at"]))
    return [clock, row["address"], row["key"] or row["subject"] or "", row["route"], row["sentence"]]


def _worker(row: dict[str, Any]) -> list[str]:
    drain = row["drain"]
    state = row["state"] if drain is None else f"draining: {drain['phase']}, {duration(drain['seconds_left'])} left"
    return [
        row["worker"],
        row["host"],
        str(row["pid"]),
        duration(row["uptime"]),
        str(row["open"]),
        str(row["closing"]),
        str(row["slow"]),
        duration(row["stalled_seconds"]),
        f"{size(row['memory'])}B",
        state,
    ]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items() if each not in (None, "", 0))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
