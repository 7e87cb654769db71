"""What ``recv()`` and ``send()`` return: awaitables without a coroutine or a Future.

A task that waits for a message waits on the :class:`Slot` of the connection. When a message arrives, the
task is resumed immediately, inside the read callback, instead of one loop turn later. A message that
has arrived already is returned without suspending the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from types import CoroutineType, TracebackType
from typing import Any, NoReturn, cast
from weakref import ref

from ..ending import Ending
from ..errors import ConcurrencyError, ConnectionClosed
from ..protocol.inbox import Inbox
from ..protocol.receiver import Receiver
from .driver import Driver
from .syscalls import thread_ident

__all__ = ["DONE", "Done", "Receive", "Slot"]


class _NoLoop:
    def get_debug(self) -> bool:
        return False


#: A completed Future, which is passed to the wake-up callback of a task.
_DONE_FUTURE: asyncio.Future[None] = asyncio.Future(loop=cast("asyncio.AbstractEventLoop", _NoLoop()))
_DONE_FUTURE.set_result(None)


def _coroutine_type(_awaitable: object) -> type:
    return CoroutineType


def _name(awaitable: object, attribute: str, method: str) -> str:
    """Return the coroutine attribute ``attribute`` of what the WebSocket's ``method`` returns."""
    if attribute == "__name__":
        return method
    if attribute == "__qualname__":
        return f"WebSocket.{method}"
    raise AttributeError(f"{type(awaitable).__name__!r} object has no attribute {attribute!r}")


class Slot(Receiver):
    """The receiver of the asyncio face: what the one task that receives waits on, like a Future.

    ``busy`` belongs to the waiting task until that task is resumed. A task that is refused, or cancelled
    before it began to wait, does not change the slot.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, inbox: Inbox) -> None:
        self._init_receiver(inbox)
        # asyncio.Task checks this attribute of the object that a coroutine yields to it.
        self._asyncio_future_blocking = False
        #: Whether a task waits, or was woken and has not been resumed yet.
        self.busy = False
        #: Whether the connection has ended.
        self.over = False
        #: Called by the task to check the loop. A weak reference, which all slots of a loop share, is faster
        #: to call than a method.
        self.get_loop = ref(loop)
        #: The thread of the loop.
        self.thread = thread_ident()
        self._loop = loop
        # Whether a task was woken, or cancelled, and has not been resumed yet.
        self._woken = False
        self._cancelling = False
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None

    def deliver(self, inline: bool) -> None:
        """Wake the task if it waits and there is a message."""
        if self._callback is not None and self.inbox.messages:
            self.wake(inline)

    def is_waiting(self) -> bool:
        """Whether a task waits."""
        return self._callback is not None

    def take(self) -> Slot:
        """Occupy the slot, for a task to wait on. Raise :exc:`ConcurrencyError` if another task waits."""
        if self.busy:
            raise ConcurrencyError("another task is already receiving from this connection")
        self.busy = True
        self._asyncio_future_blocking = True
        return self

    def release(self) -> None:
        """Free the slot, unless a task holds it: that slot stays busy until the task is resumed."""
        if self._callback is None and not self._woken:
            self.busy = False

    def wake(self, inline: bool) -> None:
        """Resume the waiting task: now if ``inline`` (not allowed in a task), otherwise in the next turn."""
        callback, context = self._callback, self._context
        if callback is None or context is None:
            return
        self._callback = self._context = None
        if inline:
            self.busy = False
            # Not self: asyncio's Task reads the result of a Future without a call.
            context.run(callback, _DONE_FUTURE)
        else:
            self._woken = True
            self._loop.call_soon(self._resume, callback, context=context)

    def _resume(self, callback: Callable[[Any], object]) -> None:
        self._woken = self.busy = False
        callback(_DONE_FUTURE)

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Set the wake-up callback of the task, which calls this."""
        if context is None:
            context = copy_context()
        if self._cancelling:
            # The cancelled task still refers to this slot, and cancel() does not know which task is
            # cancelled. So this task waits only after the cancelled one was resumed: one turn later.
            self._woken = True
            self._loop.call_soon(self._resume, fn, context=context)
        else:
            self._callback = fn
            self._context = context

    def remove_done_callback(self, fn: Callable[[Any], object]) -> int:
        """Remove the wake-up callback."""
        if self._callback != fn:
            return 0
        self._callback = self._context = None
        self.busy = False
        return 1

    def cancel(self, msg: object = None) -> bool:
        """Cancel the wait with ``msg``, in the next turn of the loop as a Future does."""
        callback, context = self._callback, self._context
        if callback is None or context is None:
            return False
        self._callback = self._context = None
        self.busy = False
        self._cancelling = True
        self._loop.call_soon(self._deliver_cancel, callback, msg, context=context)
        return True

    def _deliver_cancel(self, callback: Callable[[Any], object], msg: object) -> None:
        self._cancelling = False
        cancelled = self._loop.create_future()
        cancelled.cancel(msg)
        callback(cancelled)

    def done(self) -> bool:
        """Whether the wait is over."""
        return self._callback is None

    def guard(self, name: str) -> None:
        """Raise :exc:`ConcurrencyError` outside of the event loop; ``name`` is the called method."""
        # asyncio's check of the thread, which costs more than the comparison that the caller has done.
        if asyncio._get_running_loop() is not self._loop:
            raise ConcurrencyError(
                f"{name}() of an asyncio WebSocket was called in a thread that is not its event loop's: "
                "call it by asyncio.run_coroutine_threadsafe() or loop.call_soon_threadsafe(), or use endwell.sync"
            )
        # A loop may be run in several threads, one after the other.
        self.thread = thread_ident()


class Receive:
    """The awaitable of a receiving method. It may be awaited repeatedly, by one task at a time.

    ``at_end`` says what happens after the last message: RAISE ConnectionClosed, STOP the iteration or return
    NONE. All calls of a method share one object, so the state of a wait is in the slot.
    """

    RAISE, STOP, NONE = 0, 1, 2

    # anyio 4.13 checks inspect.iscoroutine() when it starts a task, and inspect.getcoroutinestate() before it
    # cancels the task.
    __class__ = property(_coroutine_type)
    cr_running, cr_suspended, cr_frame = False, True, None

    def __init__(self, stream: Driver, slot: Slot, at_end: int) -> None:
        self._stream = stream
        self._core = stream.core
        self._slot = slot
        self._at_end = at_end

    def __getattr__(self, name: str) -> str:
        return _name(self, name, ("recv", "__anext__", "read")[self._at_end])

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
        """Return the message, None for the end, or the slot to wait on. Raises what awaiting this raises."""
        slot = self._slot
        if slot.thread != thread_ident():
            slot.guard(self.__name__)
        if slot.inbox.messages:
            held_back = not self._core.wants_read()
            message = slot.inbox.popleft()
            if held_back:
                self._stream.settle()
            return message
        if slot.quiescence is not None and not slot.busy and not slot.over:
            slot.quiescence()
        if slot.over:
            if self._at_end == Receive.RAISE:
                raise ConnectionClosed.of(cast(Ending, self._core.ending))
            if self._at_end == Receive.STOP:
                raise StopAsyncIteration
            return None
        if self._core.partial_size and self._core.want_message():
            self._stream.settle()  # the rest of the message is still in the kernel's buffer
        return slot.take()

    def send(self, value: None) -> Slot:
        """Resume, as a coroutine's ``send`` does."""
        return self.__next__()

    def throw(
        self,
        kind: BaseException | type[BaseException],
        value: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> NoReturn:
        """Cancel the wait, as a coroutine's ``throw`` does."""
        self._slot.release()
        raise kind if value is None else value

    def close(self) -> None:
        """End the wait, as a coroutine's ``close`` does."""
        self._slot.release()


class Done:
    """A completed awaitable: awaiting it never suspends the task."""

    __class__ = property(_coroutine_type)
    cr_running, cr_suspended, cr_frame = False, True, None

    def __getattr__(self, name: str) -> str:
        return _name(self, name, "send")

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


#: One object for all connections, because it has no state.
DONE = cast("Coroutine[Any, Any, None]", Done())

# So that asyncio.create_task(ws.recv()) works as with a coroutine.
Coroutine.register(Receive)
Coroutine.register(Done)
