"""What ``recv()`` and ``send()`` return: awaitables without a coroutine or a Future.

A task that waits for a message waits on the connection's one :class:`Slot`. When a
message is there, the task goes on at once, inside the read callback, instead of a
loop turn later. A message that is there already never suspends anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, NoReturn, cast
from weakref import ref

from ..ending import Ending
from ..errors import ConcurrencyError, ConnectionClosed
from .idle import Idle
from .stream import Stream

__all__ = ["DONE", "Done", "Receive", "Slot"]


class _NoLoop:
    def get_debug(self) -> bool:
        return False


#: What has come to be for whoever is woken: a Future that is done, and which nobody waits on.
_COME: asyncio.Future[None] = asyncio.Future(loop=cast("asyncio.AbstractEventLoop", _NoLoop()))
_COME.set_result(None)


class Slot:
    """The place of the one task that waits for a message: what a Future is to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # What asyncio.Task looks for in whatever a coroutine yields to it.
        self._asyncio_future_blocking = False
        self.busy = False
        #: Called by a receiver that is about to wait.
        self.idle: Idle | None = None
        #: Whether the connection is.
        self.over = False
        #: Called by the task: the loop that it must be of. A reference, which all slots
        #: of a loop share, is called faster than a method.
        self.get_loop = ref(loop)
        self._loop = loop
        self._cancelled = False
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None

    def waits(self) -> bool:
        """Whether a task is to be woken."""
        return self._callback is not None

    def wake(self, inline: bool) -> None:
        """Let the waiting task go on: now if ``inline``, which no task may call for, or in the next turn."""
        callback, context = self._callback, self._context
        if callback is None or context is None:
            return
        self._callback = self._context = None
        if inline:
            # Not self: asyncio's Task asks a Future for its result without a call.
            context.run(callback, _COME)
        else:
            self._loop.call_soon(callback, self, context=context)

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Called by the task, with its wake-up."""
        self._callback = fn
        self._context = copy_context() if context is None else context

    def remove_done_callback(self, fn: Callable[[Any], object]) -> int:
        """Take a wake-up back."""
        if self._callback != fn:
            return 0
        self._callback = self._context = None
        return 1

    def cancel(self, msg: object = None) -> bool:
        """Cancel the wait, in the next turn of the loop as a Future does."""
        if self._callback is None:
            return False
        self._cancelled = True
        self.wake(False)
        return True

    def done(self) -> bool:
        """Whether the wait is over."""
        return self._callback is None

    def result(self) -> None:
        """Called by the task's wake-up."""
        if self._cancelled:
            self._cancelled = False
            raise asyncio.CancelledError


class Receive:
    """The next message, to be awaited any number of times, by one task at a time.

    ``at_end`` is what happens when there are no more: RAISE, STOP (the iteration) or NONE.
    """

    RAISE, STOP, NONE = 0, 1, 2

    def __init__(self, stream: Stream, slot: Slot, at_end: int) -> None:
        self._stream = stream
        self._core = stream.core
        self._inbox = stream.core.inbox
        self._slot = slot
        self._at_end = at_end
        self._waiting = False

    def __await__(self) -> Receive:
        return self

    def __iter__(self) -> Receive:
        return self

    def __next__(self) -> Slot:
        value = self.step()
        if value is not self._slot:
            raise StopIteration(value)
        return self._slot

    def step(self) -> Slot | str | bytes | None:
        """The message, None for the end, or the slot to wait on. Raises what awaiting this raises."""
        slot = self._slot
        if self._waiting and not slot.waits():
            self._waiting = slot.busy = False
        if self._inbox.messages:
            held_back = not self._core.reads()
            message = self._inbox.popleft()
            if held_back:
                self._stream.settle()
            return message
        if slot.idle is not None and not slot.busy and not slot.over:
            slot.idle()
        if slot.over:
            if self._at_end == Receive.RAISE:
                raise ConnectionClosed.of(cast(Ending, self._core.ending))
            if self._at_end == Receive.STOP:
                raise StopAsyncIteration
            return None
        if slot.busy:
            raise ConcurrencyError("another task is already receiving from this connection")
        if self._core.coming and self._core.want():
            self._stream.settle()  # the rest of the message was left to the kernel
        slot.busy = self._waiting = True
        slot._asyncio_future_blocking = True
        return slot

    def send(self, value: None) -> Slot:
        """A coroutine's method, for whoever drives this as one."""
        return self.__next__()

    def throw(
        self,
        kind: BaseException | type[BaseException],
        value: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> NoReturn:
        """A coroutine's method: the task is cancelled."""
        self.close()
        raise kind if value is None else value

    def close(self) -> None:
        """A coroutine's method: nobody waits any more."""
        if self._waiting:
            self._waiting = self._slot.busy = False


class Done:
    """Something that is done: awaiting it never suspends."""

    def __await__(self) -> Done:
        return self

    def __iter__(self) -> Done:
        return self

    def __next__(self) -> None:
        raise StopIteration

    def send(self, value: None) -> None:
        """A coroutine's method."""
        raise StopIteration

    def throw(
        self,
        kind: BaseException | type[BaseException],
        value: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> NoReturn:
        """A coroutine's method."""
        raise kind if value is None else value

    def close(self) -> None:
        """A coroutine's method."""


#: For everybody: it has no state.
DONE = cast("Coroutine[Any, Any, None]", Done())

# So that asyncio.create_task(ws.recv()) works as with a coroutine.
Coroutine.register(Receive)
Coroutine.register(Done)
