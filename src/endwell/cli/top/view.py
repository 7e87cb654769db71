"""What ``endwell top`` shows, and what each key does. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..line import Line
from .layout import cut
from .tables import SORTS, Table, detail_lines, plot_line, summary_lines, table_lines

__all__ = ["Styled", "View"]

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
_HELP = "tab view  < > sort  r reverse  / search  s slow  enter details  c close  d drain worker  R restart  q quit"
#: Characters of what is searched: the server ends a feed that asks with a very long text.
MAX_SEARCH = 200
#: Those whose largest values are first.
_DESCENDING = {"age", "latency", "queued", "messages_in", "messages_out", "bytes_in", "bytes_out", "idle"}

#: What asks the server: the ask, and what to do with the answer.
Ask = dict[str, Any]


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
        self.note = f"error: {answer['error']}" if "error" in answer else "done"

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
            self._editing, self.search, self._selected = None, text.strip()[:MAX_SEARCH], 0
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
        self.sort = SORTS[(SORTS.index(self.sort) + step) % len(SORTS)]
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
        ask = {
            "ask": "close",
            "connection": row["connection"],
            "code": 1000,
            "reason": "closed by an operator",
        }
        self._question = _Question(f"close the connection of {who} with 1000? y/N", ask)

    def _ask_drain(self) -> None:
        row = self._row()
        if row is None or self.table is not Table.WORKERS:
            self.note = "select a worker to drain in the table of the workers"
            return
        ask = {"ask": "drain", "worker": row["worker"]}
        self._question = _Question(f"replace worker {row['worker']} (process {row['pid']})? y/N", ask)

    def _ask_restart(self) -> None:
        self._question = _Question(
            "replace all workers, one generation after the other? y/N", {"ask": "restart"}
        )

    def _row(self) -> dict[str, Any] | None:
        rows = self._rows[self.table]
        return rows[self._selected] if self._selected < len(rows) else None

    # -- lines ----------------------------------------------------------------------------

    def lines(self, columns: int, height: int) -> list[Styled]:
        """The screen: exactly ``height`` lines of ``columns`` columns."""
        head = [*self._head(columns)]
        details = self._detail_lines(columns)[: 2 * height // 3] if self._details else []
        self._height = max(1, height - len(head) - len(details) - 2)
        self._move(0)
        if not self._first <= self._selected < self._first + self._height:
            self._first = max(
                0, self._selected - self._height + 1 if self._selected > self._first else self._selected
            )
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
        return [
            first,
            *(Styled(cut(text, columns)) for text in summary_lines(summary, self._rates)),
            Styled(cut(plot_line(summary, ascii_only=self._ascii_only), columns)),
        ]

    def _body(self, columns: int) -> list[Styled]:
        shown = self._rows[self.table][self._first : self._first + self._height]
        sort = self.sort if self.table is Table.CONNECTIONS else None
        titles, *lines = table_lines(self.table, shown, columns, sort, "v" if self.descending else "^")
        at = self._selected - self._first
        return [
            Styled(titles, "7"),
            *(Styled(line, "1;34" if number == at else "") for number, line in enumerate(lines)),
        ]

    def _detail_lines(self, columns: int) -> list[Styled]:
        row = self._row()
        if row is None:
            return []
        return [Styled(line) for line in [" " * columns, *detail_lines(row, columns)]]

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
