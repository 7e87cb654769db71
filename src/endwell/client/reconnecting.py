"""The asyncio client that reconnects: ``reconnecting``."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Unpack

from ..aio.ending_log import is_written
from ..aio.syscalls import monotonic
from ..aio.websocket import WebSocket, begin_close
from ..codes import CloseCode, Retry
from ..ending import Cause, Ending
from ..errors import ConnectionClosed, GaveUp, HandshakeError
from ..options import check_keywords
from .connect import ConnectKeywords, URIArgument, connect
from .retry import History, RetryPolicy, StopReason
from .state import ClientPhase, ClientState

__all__ = ["ReconnectLoop", "reconnecting", "servers"]

logger = logging.getLogger("endwell.client")


class ReconnectLoop:
    """The attempts and connections of one ``reconnecting``, asyncio or blocking."""

    def __init__(
        self,
        url: URIArgument | Sequence[URIArgument],
        *,
        policy: RetryPolicy | None = None,
        on_attempt: Callable[[int], object] | None = None,
        on_ending: Callable[[Ending | HandshakeError, float | StopReason], object] | None = None,
        on_state: Callable[[ClientState], object] | None = None,
        **keywords: Unpack[ConnectKeywords],
    ) -> None:
        callbacks = {"on_attempt": on_attempt, "on_ending": on_ending, "on_state": on_state}
        for name, callback in callbacks.items():
            if callback is not None and (not callable(callback) or inspect.iscoroutinefunction(callback)):
                raise TypeError(f"{name} must be a plain function, not {callback!r}")
        if not isinstance(policy, RetryPolicy | None):
            raise TypeError(f"policy must be a RetryPolicy or None, not {policy!r}")
        _check_keywords(keywords)
        if keywords.get("sock") is not None:
            raise ValueError("sock serves one connection only: use connect()")
        self._servers = [connect(uri, **keywords) for uri in servers(url)]
        # The index of the server that the next attempt connects to.
        self._server = 0
        self._policy = _policy_with_token(policy or RetryPolicy(), keywords.get("token"))
        self._on_attempt = on_attempt
        self._on_ending = on_ending
        self._on_state = on_state
        self.state = ClientState(phase=ClientPhase.IDLE)
        self._history = History()
        self._attempts = 0
        self._verdict: float | StopReason = 0.0
        self._due = 0.0
        self._ws: WebSocket | None = None
        self._stopped = False
        # True until an attempt has succeeded or a failed one has been logged as a warning.
        self._warn_on_failure = True
        self._loop: asyncio.AbstractEventLoop | None = None
        # Covers the wait, the callback and the attempt between two connections. stop() expires it.
        self._timeout: asyncio.Timeout | None = None

    def begin(self) -> None:
        """Begin a loop. Raise RuntimeError if it would end immediately."""
        if self._stopped:
            raise RuntimeError(
                "this client was stopped, or its loop has ended; create a new reconnecting(...)"
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
        """Close the last connection and return the next one, or None at the end of the loop.

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
                await asyncio.sleep(max(0.0, self._due - monotonic()))
                await self._announce()
                ws = self._ws = await self._servers[self._server]
                self._warn_on_failure = False
                self._enter(ClientPhase.OPEN)
                ws.on_close(self._ended)
        except TimeoutError:
            if not self._stopped:
                raise
        finally:
            self._timeout = None

    async def _announce(self) -> None:
        self._attempts += 1
        self._enter(ClientPhase.CONNECTING)
        self._call(self._on_attempt, self._attempts)

    def _ended(self, last: Ending | HandshakeError) -> None:
        """Ask the policy as soon as the end is known, even if the loop body takes longer."""
        now = monotonic()
        self._history = self._policy.after(self._history, last, now)
        stable = isinstance(last, Ending) and self._policy.is_stable(last)
        self._server = 0 if stable else (self._server + 1) % len(self._servers)
        jitter = random.random()  # noqa: S311  (not for security)
        self._verdict = (
            StopReason.STOPPED if self._stopped else self._policy.decide(self._history, last, now, jitter)
        )
        if isinstance(self._verdict, StopReason):
            logger.info("%s; not reconnecting: %s", _shown(last), self._verdict.value)
        else:
            self._due = now + self._verdict
            self._log(last, self._verdict)
        self._call(self._on_ending, last, self._verdict)
        if isinstance(self._verdict, StopReason):
            self._enter(ClientPhase.STOPPED, reason=self._verdict, last=last)
        else:
            self._enter(ClientPhase.WAITING, until=time.time() + self._verdict, last=last)

    def _enter(
        self,
        phase: ClientPhase,
        *,
        until: float | None = None,
        reason: StopReason | None = None,
        last: Ending | HandshakeError | None = None,
    ) -> None:
        """Change the state, and tell the application. STOPPED is final."""
        if self.state.phase is not ClientPhase.STOPPED:
            self.state = ClientState(
                phase=phase,
                until=until,
                reason=reason,
                last=last or self.state.last,
                attempts=self._attempts,
            )
            self._call(self._on_state, self.state)

    def _log(self, last: Ending | HandshakeError, wait: float) -> None:
        if self._warn_on_failure and isinstance(last, HandshakeError):
            # INFO is not shown by default: without a warning, nothing would tell the user of a wrong URL.
            logger.warning(
                "%s; reconnecting in %.1f s (further failed attempts are logged at INFO)", last, wait
            )
            self._warn_on_failure = False
        else:
            logger.info("%s; reconnecting in %.1f s", _shown(last), wait)

    def _apply_verdict(self, last: Ending | HandshakeError) -> None:
        """End the loop if that is the policy's verdict on ``last``."""
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
        # A Timeout cannot expire twice.
        if self._timeout is not None and self._loop is not None and not self._stopped:
            self._timeout.reschedule(self._loop.time())
        self._stopped = True
        if self._ws is not None:
            assert cause.close_code is not None
            begin_close(self._ws, cause, cause.close_code)
        if self._ws is None or self._ws.ending is not None:
            self._enter(ClientPhase.STOPPED, reason=StopReason.STOPPED)

    def leave(self) -> None:
        """Stop after a break, a return, an exception or a cancellation. May be called in any thread."""
        if self._stopped or self._loop is None:
            return
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not self._loop:
            # The garbage collector ran in another thread, or after the event loop ended.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.stop)
            return
        task = asyncio.current_task()
        self._stop(Cause.CANCELLED if task is not None and task.cancelling() else Cause.APP_CLOSED)


class reconnecting:
    """Connect, and reconnect when the connection ends: ``async for ws in reconnecting(url):``.

    The loop body gets each connection once it is open. When the body is done, the connection is closed
    with 1000 if it is still open, and the policy decides from its :class:`Ending` whether and when to
    connect again. The policy applies to the first attempt too: a server that does not run yet is
    tried again.

    The loop ends quietly after ``break``, :meth:`stop` and ``ws.close()``, when the body is left while the
    connection is open, and when the server closes with 1000.

    One object serves one loop. A second loop raises RuntimeError.

    Args:
        url: The URI, or a function that returns it before each attempt, as in :class:`connect`. Each
            attempt resolves the host name anew. Or a sequence of these, for several servers: after a
            failed attempt, and after a connection shorter than the policy's ``stable_after``, the next
            server is tried; after a longer connection the first.
        policy: Decides from an :class:`Ending` or a :exc:`HandshakeError` whether to reconnect, and
            when. Default: ``RetryPolicy()``.
        on_attempt: ``on_attempt(number)`` is called before each attempt; the first is number 1.
        on_ending: ``on_ending(last, verdict)`` is called for each :class:`Ending` and each
            :exc:`HandshakeError`, as soon as it is known. ``verdict`` is the seconds until the next
            attempt, or the :class:`StopReason`. Exceptions in a callback are logged.
        on_state: ``on_state(state)`` is called with each new :attr:`state`.
        **keywords: The other arguments of :class:`connect`. With a function for ``token``, a Close with 3000
            (unauthorized) is followed by another attempt, with a new token.

    Raises:
        ValueError: At the call, as :class:`connect` does.
        TypeError: At the call, as :class:`connect` does, and for a callback that is not a plain function.
        RuntimeError: When the loop begins, if an earlier loop has ended or :meth:`stop` was called.
        ConnectionClosed: In the loop, if a new connection would end in the same way
            (:attr:`Retry.NEVER`).
        HandshakeError: In the loop, if a new attempt would fail in the same way.
        GaveUp: In the loop, if the policy's ``max_retries`` or ``max_time`` is exceeded.
        NotImplementedError: In the loop, on Windows.

    Example:
        ```python
        import asyncio
        import endwell

        server = endwell.Server()

        @server.websocket("/")
        async def greet(ws):
            await ws.send("hello")

        async def main():
            async with server.serving(port=0):
                url = f"ws://127.0.0.1:{server.port}/"
                async for ws in endwell.reconnecting(url, on_ending=print):
                    async for message in ws:
                        print(message)

        asyncio.run(main())
        ```
    """

    def __init__(
        self,
        url: URIArgument | Sequence[URIArgument],
        *,
        policy: RetryPolicy | None = None,
        on_attempt: Callable[[int], object] | None = None,
        on_ending: Callable[[Ending | HandshakeError, float | StopReason], object] | None = None,
        on_state: Callable[[ClientState], object] | None = None,
        **keywords: Unpack[ConnectKeywords],
    ) -> None:
        self._connecting = ReconnectLoop(
            url,
            policy=policy,
            on_attempt=on_attempt,
            on_ending=on_ending,
            on_state=on_state,
            **keywords,
        )

    def __aiter__(self) -> AsyncIterator[WebSocket]:
        self._connecting.begin()
        return _Connections(self._connecting)

    @property
    def state(self) -> ClientState:
        """What the client does at the moment, for a user interface: a new object for each change."""
        return self._connecting.state

    def stop(self) -> None:
        """End the loop quietly, without waiting.

        A pending wait or attempt is cancelled, and an open connection is closed with 1000. Call this method
        in the thread of the event loop.
        """
        self._connecting.stop()

    async def aclose(self) -> None:
        """Do what :meth:`stop` does, then wait for the end of the connection."""
        await self._connecting.aclose()


def servers(url: URIArgument | Sequence[URIArgument]) -> Sequence[URIArgument]:
    """Return ``url`` as a sequence of the servers' URIs. Raises ValueError if it has none."""
    if not isinstance(url, list | tuple):
        return [url]  # type: ignore[list-item]
    if not url:
        raise ValueError("url must be a URI or a list with at least one")
    return url


def _policy_with_token(policy: RetryPolicy, token: object) -> RetryPolicy:
    """With a function for the token, the next attempt has a new one: 3000 (unauthorized) does not end the loop."""
    if not callable(token):
        return policy
    return replace(policy, codes={CloseCode.UNAUTHORIZED: Retry.LATER, **policy.codes})


def _check_keywords(keywords: Iterable[str]) -> None:
    known = {*ConnectKeywords.__optional_keys__, "policy", "on_attempt", "on_ending", "on_state"}
    for name in keywords:
        limit = any(name == field.name for field in fields(RetryPolicy))
        hint = f"; it is a field of the policy: policy=RetryPolicy({name}=...)" if limit else ""
        check_keywords("reconnecting", [name], known, hint)


def _shown(last: Ending | HandshakeError) -> str:
    """The sentence; only the cause if the logger ``endwell.endings`` has the sentence."""
    return last.cause.meaning if isinstance(last, Ending) and is_written(last) else str(last)


class _Connections:
    """The iterator of one ``async for``, which holds the only reference to it.

    ``async for`` does not tell its iterator that the loop was left, but it drops the reference. So
    the Close is sent within the ``break``, not in a task that may never run when the program ends
    after it.
    """

    def __init__(self, client: ReconnectLoop) -> None:
        self._client = client

    def __aiter__(self) -> _Connections:
        return self

    def __anext__(self) -> Coroutine[Any, Any, WebSocket]:
        # A function, not a coroutine method: from Python 3.12 on, the traceback of a failed attempt also refers
        # to the frames of the callers. A frame that refers to this object would keep it alive after the break.
        return _next(self._client)

    def __del__(self) -> None:
        self._client.leave()


async def _next(client: ReconnectLoop) -> WebSocket:
    ws = await client.next()
    if ws is None:
        raise StopAsyncIteration
    return ws
