"""The signals of a supervisor, for its selector."""

from __future__ import annotations

import signal
import socket
from types import TracebackType
from typing import Any, Self

__all__ = ["Signals"]


class Signals:
    """Collects the signals that arrive while the block runs. Readable for a selector when one has arrived."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._descriptor = -1
        self._before: dict[signal.Signals, Any] = {}

    def fileno(self) -> int:
        """The file descriptor, for a selector."""
        return self._ours.fileno()

    def __enter__(self) -> Self:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._descriptor = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        # Not a constant, because the module can be imported on Windows, which has only two of these signals.
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD]
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            numbers.append(signal.SIGUSR1)  # otherwise the application handles it
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)
        self._ours.close()
        self._theirs.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        self._numbers.append(number)

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def read(self) -> None:
        """Take what woke the selector."""
        self._ours.recv(4096)

    def take(self) -> int:
        """Return the first signal that is not handled yet."""
        return self._numbers.pop(0)
