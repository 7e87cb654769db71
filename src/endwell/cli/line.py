"""A line editor without I/O: the caller feeds the keys, and gets the completed lines.

``readline`` is unsuitable. Its ``input()`` blocks a thread that cannot be stopped when the connection ends,
and it does not notice output that appears while the user is typing.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from unicodedata import category, east_asian_width

__all__ = ["Line", "width"]

#: Maximum lines of the history.
HISTORY = 500
#: Maximum characters of an escape sequence.
MAX_ESCAPE = 16


class Line:
    """An editable line behind a ``prompt``, with a history."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.text = ""
        self.cursor = 0
        #: Whether Ctrl-D was typed on an empty line.
        self.ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""
        #: The previous lines, followed by the line being typed.
        self._history = [""]
        self._index = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """Process ``data`` from the terminal; yields each line that Enter completes."""
        for char in self._decoder.decode(data):
            if self.ended:
                return
            if self._escape:
                self._continue(char)
            elif char == "\x1b":
                self._escape = char
            elif char in "\r\n":
                yield self._enter()
            elif char in _KEYS:
                _KEYS[char](self)
            elif char.isprintable():
                self._replace(self.cursor, self.cursor, char)

    def draw(self, columns: int) -> str:
        """Return the output that draws the line on the last row; of a long line, the part around the cursor."""
        room = columns - 1 - sum(map(width, self.prompt))
        start = self.cursor
        while start and (needed := width(self.text[start - 1])) <= room:
            room -= needed
            start -= 1
        end = self.cursor
        while end < len(self.text) and (needed := width(self.text[end])) <= room:
            room -= needed
            end += 1
        behind = sum(map(width, self.text[self.cursor : end]))
        # Erase first: after writing up to the last column, a terminal would erase that column, too.
        return f"\r\x1b[K{self.prompt}{self.text[start:end]}" + (f"\x1b[{behind}D" if behind else "")

    # -- keys -----------------------------------------------------------------

    def _home(self) -> None:
        self.cursor = 0

    def _end(self) -> None:
        self.cursor = len(self.text)

    def _left(self) -> None:
        self.cursor = max(0, self.cursor - 1)

    def _right(self) -> None:
        self.cursor = min(len(self.text), self.cursor + 1)

    def _backspace(self) -> None:
        self._replace(max(0, self.cursor - 1), self.cursor, "")

    def _delete(self) -> None:
        self._replace(self.cursor, self.cursor + 1, "")

    def _kill_left(self) -> None:
        self._replace(0, self.cursor, "")

    def _kill_right(self) -> None:
        self._replace(self.cursor, len(self.text), "")

    def _kill_word(self) -> None:
        kept = self.text[: self.cursor].rstrip()
        self._replace(kept.rfind(" ") + 1, self.cursor, "")

    def _older(self) -> None:
        self._recall(self._index - 1)

    def _newer(self) -> None:
        self._recall(self._index + 1)

    def _end_of_input(self) -> None:
        if self.text:
            self._delete()
        else:
            self.ended = True

    # -- editing ----------------------------------------------------------------

    def _continue(self, char: str) -> None:
        """Process the next character of an escape sequence (ECMA-48 §5.4: parameters, then a final byte)."""
        self._escape += char
        if self._escape in ("\x1b[", "\x1bO"):
            return
        if self._escape[1] == "[" and not "@" <= char <= "~" and len(self._escape) < MAX_ESCAPE:
            return
        sequence, self._escape = self._escape, ""
        if sequence in _KEYS:
            _KEYS[sequence](self)

    def _replace(self, start: int, end: int, text: str) -> None:
        self.text = self.text[:start] + text + self.text[end:]
        self.cursor = start + len(text)

    def _enter(self) -> str:
        line = self.text
        if line and self._history[-2:-1] != [line]:
            self._history[-1:] = [line, ""]
            del self._history[:-HISTORY]
        self._index = len(self._history) - 1
        self._history[-1] = self.text = ""
        self.cursor = 0
        return line

    def _recall(self, index: int) -> None:
        if not 0 <= index < len(self._history):
            return
        if self._index == len(self._history) - 1:
            self._history[-1] = self.text
        self._index = index
        self.text = self._history[index]
        self.cursor = len(self.text)


#: The methods by the sequences that xterm and compatible terminals send for keys.
_KEYS = {
    "\x01": Line._home,
    "\x02": Line._left,
    "\x04": Line._end_of_input,
    "\x05": Line._end,
    "\x06": Line._right,
    "\x08": Line._backspace,
    "\x0b": Line._kill_right,
    "\x0e": Line._newer,
    "\x10": Line._older,
    "\x15": Line._kill_left,
    "\x17": Line._kill_word,
    "\x7f": Line._backspace,
    "\x1b[3~": Line._delete,
    "\x1b[A": Line._older,
    "\x1b[B": Line._newer,
    "\x1b[C": Line._right,
    "\x1b[D": Line._left,
    "\x1b[F": Line._end,
    "\x1b[H": Line._home,
    "\x1bOA": Line._older,
    "\x1bOB": Line._newer,
    "\x1bOC": Line._right,
    "\x1bOD": Line._left,
    "\x1bOF": Line._end,
    "\x1bOH": Line._home,
}


def width(char: str) -> int:
    """The number of columns of a character (Unicode UAX #11)."""
    if category(char) in ("Mn", "Me"):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1
