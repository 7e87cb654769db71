"""The asyncio client that comes back: ``reconnecting``."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import fields
from typing import Any, Unpack

from ..aio.websocket import WebSocket, begin_close
from ..ending import Cause, Ending
from ..errors import ConnectionClosed, GaveUp, HandshakeError
from ..options import check_keywords
from .connect import ConnectKeywords, connect
from .retry import History, RetryPolicy, StopReason

__all__ = ["ReconnectLoop", "reconnecting"]

logger = logging.getLogger("endwell.client")


class ReconnectLoop:
    """The attempts and connections of one :class:`reconnecting`, of either face."""

    def __init__(
        self,
        url: str,
        *,
        policy: RetryPolicy | None = None,
        on_attempt: Callable[[int], object] | None = None,
        on_ending: Callable[[Ending | HandshakeError, float | StopReason], object] | None = None,
        **keywords: Unpack[ConnectKeywords],
    ) -> None:
        for name, callback in (("on_attempt", on_attempt), ("on_ending", on_ending)):
            if callback is not None and (not callable(callback) or inspect.iscoroutinefunction(callback)):
                raise TypeError(f"{name} must be a plain function, not {callback!r}")
        if not isinstance(policy, RetryPolicy | None):
            raise TypeError(f"policy must be a RetryPolicy or None, not {policy!r}")
        _check_keywords(keywords)
        self._connect = connect(url, **keywords)
        self._policy = policy or RetryPolicy()
        self._on_attempt = on_attempt
        self._on_ending = on_ending
        self._history = History()
        self._attempts = 0
        self._verdict: float | StopReason = 0.0
        self._due = 0.0
        self._ws: WebSocket | None = None
        self._stopped = False
        # Whether a failed attempt is still worth a warning: none has succeeded, and none was told so.
        self._warn_on_failure = True
        self._loop: asyncio.AbstractEventLoop | None = None
        # Around whatever is waited for between two connections: stop() lets it expire.
        self._timeout: asyncio.Timeout | None = None

    def begin(self) -> None:
        """A loop begins. Raises RuntimeError if it would end at once."""
        if self._stopped:
            raise RuntimeError(
                "this client was stopped, or its loop has ended: create another reconnecting(...)"
            )

    def stop(self) -> None:
        """See :meth:`reconnecting.stop`."""
        self._stop(Cause.APP_CLOSED)

    async def aclose(self) -> None:
        """See :meth:`reconnecting.aclose`."""
        self.stop()
        if self._ws is not None:
            await self._ws.closed

    async def next(self) -> WebSocket | None:
        """The next connection, after closing the last one; None if there shall be none.

        Raises what the loop raises.
        """
        self._loop = asyncio.get_running_loop()
        if self._ws is not None:
            ending = await self._ws.close()
            self._ws = None
            self._apply_verdict(ending)
        while not self._stopped:
            try:
                await self._attempt()
            except HandshakeError as failure:
                self._ended(failure)
                self._apply_verdict(failure)
                continue
            if self._ws is not None and not self._stopped:
                return self._ws
        await self.aclose()
        return None

    async def _attempt(self) -> None:
        try:
            async with asyncio.timeout(None) as self._timeout:
                await asyncio.sleep(max(0.0, self._due - time.monotonic()))
                await self._announce()
                ws = self._ws = await self._connect
                self._warn_on_failure = False
                ws.on_close(self._ended)
        except TimeoutError:
            if not self._stopped:
                raise
        finally:
            self._timeout = None

    async def _announce(self) -> None:
        self._attempts += 1
        self._call(self._on_attempt, self._attempts)

    def _ended(self, last: Ending | HandshakeError) -> None:
        """Decide as soon as the end is known, however long the body still takes."""
        now = time.monotonic()
        self._history = self._policy.after(self._history, last, now)
        jitter = random.random()  # noqa: S311  (it spreads a crowd, it hides nothing)
        self._verdict = (
            StopReason.STOPPED if self._stopped else self._policy.decide(self._history, last, now, jitter)
        )
        if isinstance(self._verdict, StopReason):
            logger.info("%s; not coming back: %s", last, self._verdict.value)
        else:
            self._due = now + self._verdict
            self._log(last, self._verdict)
        self._call(self._on_ending, last, self._verdict)

    def _log(self, last: Ending | HandshakeError, wait: float) -> None:
        if self._warn_on_failure and isinstance(last, HandshakeError):
            # Without it, a wrong URL would look like a program that does nothing: INFO is not shown by default.
            logger.warning("%s; coming back in %.1f s (more failed attempts are logged as INFO)", last, wait)
            self._warn_on_failure = False
        else:
            logger.info("%s; coming back in %.1f s", last, wait)

    def _apply_verdict(self, last: Ending | HandshakeError) -> None:
        """End the loop if that was the verdict on ``last``."""
        if not isinstance(self._verdict, StopReason):
            return
        self._stopped = True
        if self._verdict in {StopReason.DONE, StopReason.STOPPED}:
            return
        error = ConnectionClosed.of(last) if isinstance(last, Ending) else last
        if self._verdict is StopReason.REFUSED:
            raise error
        raise GaveUp(self._verdict.value, error) from error

    def _call(self, callback: Callable[..., object] | None, *arguments: Any) -> None:
        if callback is None:
            return
        try:
            callback(*arguments)
        except Exception:
            logger.exception("callback %r failed", callback)

    def _stop(self, cause: Cause) -> None:
        # Once: it cannot expire twice.
        if self._timeout is not None and self._loop is not None and not self._stopped:
            self._timeout.reschedule(self._loop.time())
        self._stopped = True
        if self._ws is not None:
            assert cause.close_code is not None
            begin_close(self._ws, cause, cause.close_code)

    def leave(self) -> None:
        """Stop, because the loop was left: by break, return, an exception or a cancellation; from any thread."""
        if self._stopped or self._loop is None:
            return
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not self._loop:
            # The garbage collector ran in another thread, or after the loop.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.stop)
            return
        task = asyncio.current_task()
        self._stop(Cause.CANCELLED if task is not None and task.cancelling() else Cause.APP_CLOSED)


class reconnecting:
    """Connect, and come back when the connection ends: ``async for ws in reconnecting(url):``.

    - ``policy`` decides from the ending, or from the failed handshake, whether to come
      back and when: see :class:`RetryPolicy`. The first connection is no exception: a
      server that is not there yet is waited for.
    - ``on_attempt(number)`` is called before each attempt; the first is number 1.
    - ``on_ending(last, verdict)`` is called at once, for each :class:`Ending` and each
      :exc:`HandshakeError`; ``verdict`` is the seconds to wait, or why not to come
      back, a :class:`StopReason`.
    - ``keywords``: those of :class:`connect`. Each attempt resolves the host name anew.

    A connection is closed when its turn of the loop is over. Whoever ends it for good
    ends the loop: ``break``, :meth:`stop`, ``ws.close()``, leaving the body while the
    connection is open, and a server's 1000. The loop raises :exc:`ConnectionClosed` or
    :exc:`HandshakeError` where coming back would end the same way, and
    :exc:`GaveUp` when the policy's ``max_retries`` or ``max_time`` is used up.

    One object is for one loop: one that begins after the last has ended, or after
    :meth:`stop`, raises RuntimeError.

    Raises ValueError and TypeError at the call, as :class:`connect` does.
    """

    def __init__(
        self,
        url: str,
        *,
        policy: RetryPolicy | None = None,
        on_attempt: Callable[[int], object] | None = None,
        on_ending: Callable[[Ending | HandshakeError, float | StopReason], object] | None = None,
        **keywords: Unpack[ConnectKeywords],
    ) -> None:
        self._connecting = ReconnectLoop(
            url, policy=policy, on_attempt=on_attempt, on_ending=on_ending, **keywords
        )

    def __aiter__(self) -> AsyncIterator[WebSocket]:
        self._connecting.begin()
        return _Connections(self._connecting)

    def stop(self) -> None:
        """End the loop, at once: no more waiting, no more connecting, and a Close 1000 for an open connection.

        Belongs to the event loop's thread. The loop ends quietly.
        """
        self._connecting.stop()

    async def aclose(self) -> None:
        """:meth:`stop`, and wait for the end of the connection."""
        await self._connecting.aclose()


def _check_keywords(keywords: Iterable[str]) -> None:
    known = {*ConnectKeywords.__optional_keys__, "policy", "on_attempt", "on_ending"}
    for name in keywords:
        limit = any(name == field.name for field in fields(RetryPolicy))
        hint = f"; it is one of the policy: policy=RetryPolicy({name}=...)" if limit else ""
        check_keywords("reconnecting", [name], known, hint)


class _Connections:
    """The iterator of one ``async for``, which alone holds it.

    ``async for`` does not tell its iterator that it is left. It drops it, though, so
    the Close leaves within the ``break``, not in a task that may never run when the
    program ends after it.
    """

    def __init__(self, client: ReconnectLoop) -> None:
        self._client = client

    def __aiter__(self) -> _Connections:
        return self

    def __anext__(self) -> Coroutine[Any, Any, WebSocket]:
        # Not a coroutine of this object: from Python 3.12 on, the traceback of a failed attempt also keeps the callers'
        # frames, and with a frame that has this object it would not be freed at the break.
        return _next(self._client)

    def __del__(self) -> None:
        self._client.leave()


async def _next(client: ReconnectLoop) -> WebSocket:
    ws = await client.next()
    if ws is None:
        raise StopAsyncIteration
    return ws
