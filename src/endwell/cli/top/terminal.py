"""The terminal of ``endwell top``: the whole screen, and the keys without Enter."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self

from .view import Styled

if sys.platform != "win32":
    import termios
    import tty

__all__ = ["Terminal"]

# The private modes of xterm: 1049 the alternate screen, 25 the cursor, 7 the wrap of long lines, 2026 an update that
# is shown as a whole.
ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN, END = "\x1b[?2026h\x1b[H", "\x1b[J\x1b[?2026l"


class Terminal:
    """The terminal, while the block runs. Whatever ends the block, the terminal is as it was before.

    Args:
        typed: Called with what was typed; with "" at the end of the input.
        redraw: Called when the size has changed, or the program goes on after Ctrl-Z.
    """

    def __init__(self, typed: Callable[[str], object], redraw: Callable[[], object]) -> None:
        self._typed = typed
        self._redraw = redraw
        self._loop = asyncio.get_running_loop()
        self._modes: list[Any] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __enter__(self) -> Self:
        self._take()
        self._loop.add_reader(sys.stdin.fileno(), self._read)
        self._loop.add_signal_handler(signal.SIGWINCH, self._redraw)
        self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        # Otherwise they would end the program without restoring the terminal.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            self._loop.add_signal_handler(number, self._typed, "")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(sys.stdin.fileno())
        for number in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        self._give_back()

    def _take(self) -> None:
        self._modes = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        _write(ENTER)

    def _give_back(self) -> None:
        if self._modes is not None:
            _write(LEAVE)
            with suppress(termios.error):  # the terminal was closed
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._modes)
            self._modes = None

    def _suspend(self) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self._redraw()

    def _read(self) -> None:
        try:
            data = os.read(sys.stdin.fileno(), 4096)
        except OSError:  # EIO: the terminal was closed
            data = b""
        if data:
            self._typed(self._decoder.decode(data))
        else:
            self._loop.remove_reader(sys.stdin.fileno())
            self._typed("")

    @property
    def size(self) -> tuple[int, int]:
        """The number of columns and lines."""
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return 80, 24
        # A terminal without a size has 0.
        return found.columns or 80, found.lines or 24

    def draw(self, lines: Iterable[Styled]) -> None:
        """Show these lines."""
        plain = "NO_COLOR" in os.environ
        texts = []
        for text, style in lines:
            # Without colours, what is selected is still visible.
            shown = "7" if plain and style in ("1;34", "7") else "" if plain else style
            texts.append(f"\x1b[{shown}m{text}\x1b[0m\x1b[K" if shown else f"{text}\x1b[K")
        _write(BEGIN + "\r\n".join(texts) + END)


def _write(text: str) -> None:
    with suppress(OSError):  # EIO: the terminal was closed
        sys.stdout.write(text)
        sys.stdout.flush()
