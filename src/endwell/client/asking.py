"""What the application is asked for before an attempt: a URI, headers."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..aio.cancellation import is_cancelled
from ..aio.syscalls import monotonic
from ..ending import Cause, Ending, TcpEnd
from ..errors import HandshakeError
from ..protocol.deadline import LATE

__all__ = ["Asking"]

T = TypeVar("T")


class Asking:
    """The questions of one attempt. They share the ``open_timeout`` of the attempt, which starts at :attr:`began`.

    Time during which this process was stalled does not count: it moves :attr:`began`.
    """

    def __init__(self, began: float, open_timeout: float | None) -> None:
        self.began = began
        self._opened_at = time.time()
        self._first = began
        self._open_timeout = open_timeout

    async def ask(self, name: str, function: Callable[[], Any], check: Callable[[Any], T]) -> T:
        """Return the checked result of ``function()``, which may be an awaitable.

        ``name`` is that of the argument. Raises HandshakeError for an exception of ``function`` and
        ``check``, and at the end of ``open_timeout``.
        """
        limit = asyncio.timeout(None)
        timer = self._set_timer(limit)
        try:
            async with limit:
                value = function()
                return check(await value if inspect.isawaitable(value) else value)
        except TimeoutError as exc:
            if not limit.expired():
                raise self._failure(f"the function {name} failed: {exc!r}", exc) from exc
            late = f"within {self._open_timeout:g} s (open_timeout)"
            raise self._failure(f"the function {name} has not returned {late}", exc) from exc
        except asyncio.CancelledError as exc:
            if is_cancelled():
                raise
            raise self._failure(f"the function {name} failed: {exc!r}", exc) from exc
        except Exception as exc:
            raise self._failure(f"the function {name} failed: {exc!r}", exc) from exc
        finally:
            if timer is not None:
                timer.cancel()

    def _set_timer(self, limit: asyncio.Timeout) -> _Timer | None:
        return None if self._open_timeout is None else _Timer(self, limit, self._open_timeout)

    def _failure(self, text: str, exc: BaseException) -> HandshakeError:
        cause = Cause.HANDSHAKE_FAILED
        ending = Ending(
            cause=cause,
            initiator=cause.initiator,
            clean=False,
            tcp=TcpEnd.NONE,
            exception=exc,
            opened_at=self._opened_at,
            duration=monotonic() - self._first,
        )
        return HandshakeError(ending, text, "arguments")


class _Timer:
    """Expires ``limit`` at the end of ``open_timeout``, unless this process was stalled."""

    def __init__(self, asking: Asking, limit: asyncio.Timeout, seconds: float) -> None:
        self._asking = asking
        self._limit = limit
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._set()

    def _set(self) -> None:
        self._from = monotonic()
        self._when = self._loop.time() + max(0.0, self._asking.began + self._seconds - self._from)
        self._handle = self._loop.call_at(self._when, self._fire)

    def _fire(self) -> None:
        if self._is_late():
            self._set()
        else:
            self._limit.reschedule(self._loop.time())

    def _is_late(self) -> bool:
        """Whether this process was stalled; if it was, that does not count."""
        late = self._loop.time() - self._when > LATE
        if late:
            self._asking.began += monotonic() - self._from
        return late

    def cancel(self) -> None:
        """The function has returned. A plain function may have stalled this process, so that no timer has run."""
        self._handle.cancel()
        self._is_late()
