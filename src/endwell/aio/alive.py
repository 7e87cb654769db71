"""A block of code that is cancelled when a connection ends."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from ..ending import Ending
from ..errors import ConnectionClosed

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["Alive"]


class Alive:
    """See :meth:`WebSocket.alive`. Precedent: ``asyncio.timeout``."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._fired = False

    async def __aenter__(self) -> WebSocket:
        if self._ws.ending is not None:
            raise ConnectionClosed.of(self._ws.ending)
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._ws.on_close(self._end)
        return self._ws

    def _end(self, ending: Ending) -> None:
        # In a separate turn of the loop. This task may have noticed the end itself, in a send(), and a task
        # that cancels itself would be interrupted somewhere after the body.
        self._ws._stream.loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._fired = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        assert task is not None
        ending = self._ws.ending
        if ending is None:
            callbacks = self._ws._callbacks
            assert callbacks is not None
            callbacks[:] = [each for each in callbacks if each[0] != self._end]
            return
        # False if another cancellation of the task came too.
        ours = self._fired and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError
        if exc is None or ours:
            raise ConnectionClosed.of(ending) from exc
        if self._fired and kind is asyncio.CancelledError and not exc.args:
            # If this cancellation came first in one turn of the loop, asyncio raises it. The message of the
            # other one, by which a cancel scope of anyio recognizes its own, is left in the task.
            message = getattr(task, "_cancel_message", None)
            if message is not None:
                raise asyncio.CancelledError(message) from exc
