"""Handlers of signals: which signals are free for the server, and the signals of a supervisor, for its selector."""

from __future__ import annotations

import atexit
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Signals", "hand_back", "hold_back", "ignore", "is_free"]


def is_free(number: signal.Signals) -> bool:
    """Whether a signal has its default action: neither the application nor its parent process has chosen another."""
    return signal.getsignal(number) is _ignore or _is_default(number)


def _is_default(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_DFL and not _has_foreign_handler(number)


def _has_foreign_handler(number: signal.Signals) -> bool:
    """Whether C code has set a handler, of which the module ``signal`` does not know: ``faulthandler.register()``."""
    with suppress(OSError), open("/proc/self/status", "rb") as status:  # only Linux has it
        for line in status:
            if line.startswith(b"SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def hand_back(handlers: Mapping[signal.Signals, Any]) -> None:
    """Restore the handlers of before the server, when it has ended.

    SIGHUP and SIGUSR1 have no effect from now on. To a server they do not mean that it ends now, as their default
    action does, and the sender cannot know that the process is about to exit.
    """
    for number, handler in handlers.items():
        harmless = handler is signal.SIG_DFL and number in _lethal()
        signal.signal(number, _ignore if harmless else handler)
    _ignore_at_exit()


@contextmanager
def hold_back() -> Iterator[None]:
    """Block SIGHUP and SIGUSR1 in this thread. A process that starts in the block has them blocked, too.

    So they do not kill it before it calls :func:`ignore`. They are not ignored, because Python keeps a signal
    ignored that was ignored when it started, and so would all programs that the process starts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _lethal())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """SIGHUP and SIGUSR1 have no effect from now on, also those that :func:`hold_back` blocked.

    Except where the application or its parent process has chosen another action, or chooses one later.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # Python sets handlers in the main thread only
    for number in _lethal():
        if _is_default(number):
            signal.signal(number, _ignore)
            signal.siginterrupt(number, False)  # no system call of the application fails with EINTR
    _ignore_at_exit()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _lethal())


def _lethal() -> tuple[signal.Signals, ...]:
    """The signals that a server handles, and whose default action ends the process."""
    # Not a constant, because the module can be imported on Windows, which has none of these signals.
    return signal.SIGHUP, signal.SIGUSR1


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler. Not SIG_IGN, which the processes that this one starts would inherit."""


def _ignore_at_exit() -> None:
    # The last function that is registered runs first, and Python calls it twice if it is registered twice.
    atexit.unregister(_ignore_to_the_end)
    atexit.register(_ignore_to_the_end)


def _ignore_to_the_end() -> None:
    # When Python exits, it sets the default action of each signal that has a handler.
    for number in _lethal():
        if signal.getsignal(number) is _ignore:
            signal.signal(number, signal.SIG_IGN)


class Signals:
    """Collects the signals that arrive while the block runs. Readable for a selector when one has arrived."""

    def __init__(self) -> None:
        #: The signals that are not handled yet.
        self.numbers: list[int] = []
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
        if is_free(signal.SIGUSR1):
            numbers.append(signal.SIGUSR1)  # otherwise the application handles it
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        hand_back(self._before)
        signal.set_wakeup_fd(self._descriptor)
        self._ours.close()
        self._theirs.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        self.numbers.append(number)

    def __bool__(self) -> bool:
        return bool(self.numbers)

    def read(self) -> None:
        """Take what woke the selector."""
        self._ours.recv(4096)

    def take(self) -> int:
        """Return the first signal that is not handled yet."""
        return self.numbers.pop(0)
