"""Coroutines that wait for a change of state."""

from __future__ import annotations

import asyncio

__all__ = ["Waiters"]


class Waiters:
    """The coroutines that wait for the next change of a state. Each looks at the state again when it is woken.

    Unlike an asyncio.Event, it has no state of its own. Unlike an asyncio.Condition, it has no lock.
    """

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        # A dict, because it keeps the order.
        self._futures: dict[asyncio.Future[None], None] = {}

    async def wait(self) -> None:
        """Wait until :meth:`wake` is called."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures[future] = None
        try:
            await future
        finally:
            self._futures.pop(future, None)

    def wake(self) -> None:
        """Wake all that wait."""
        if not self._futures:
            return
        futures, self._futures = self._futures, {}
        for future in futures:
            if not future.done():
                future.set_result(None)
