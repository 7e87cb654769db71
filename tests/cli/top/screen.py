"""``endwell top`` on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from endwell.cli.top.terminal import BEGIN, END
from tests.cli.process import PATIENCE, command

__all__ = ["Screen", "top"]

_SGR = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """What the terminal shows, and its keys."""

    def __init__(self, process: Any, terminal: int) -> None:
        self.process = process
        self.terminal = terminal
        #: All that was written.
        self.output = ""
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(terminal, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.terminal, 1 << 16)
        except OSError:  # EIO: the program has ended
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.terminal)
        self.output += data.decode(errors="surrogateescape")
        self._changed.set()

    @property
    def frame(self) -> str:
        """The text of the last complete screen."""
        before, end, _ = self.output.rpartition(END)
        text = _SGR.sub("", before.rpartition(BEGIN)[2]).replace("\x1b[K", "") if end else ""
        return text.replace("\r", "")  # the terminal adds one, too

    async def shows(self, *texts: str) -> str:
        """Wait until the screen has these texts."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not all(text in self.frame for text in texts):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{texts} not in:\n{self.frame}\n{self.output[-500:]!r}") from None
        return self.frame

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    async def ended(self) -> int:
        """The exit status."""
        status: int = await asyncio.to_thread(self.process.wait, PATIENCE)
        return status


@asynccontextmanager
async def top(*argv: str, columns: int = 180, lines: int = 30, **keywords: Any) -> AsyncIterator[Screen]:
    """Run ``endwell top argv...``."""
    terminal, inner = pty.openpty()
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), inner)
        # A session of its own, whose terminal this is, so that it gets SIGWINCH and SIGTSTP.
        with command(
            "top", *argv, **streams, start_new_session=True, preexec_fn=_take_terminal, **keywords
        ) as process:
            screen = Screen(process, terminal)
            screen.modes = termios.tcgetattr(inner)  # type: ignore[attr-defined]
            screen.inner = inner  # type: ignore[attr-defined]
            try:
                yield screen
            finally:
                asyncio.get_running_loop().remove_reader(terminal)
    finally:
        os.close(inner)
        os.close(terminal)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
