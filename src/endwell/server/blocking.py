"""The methods of a server that wait, for threads."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ..errors import ConcurrencyError
from ..sync.portal import Portal

__all__ = ["BlockingServer"]


class Waits(Protocol):
    """The methods that :class:`BlockingServer` calls."""

    async def revoke(self, subject: str) -> int: ...

    async def shed(self, fraction: float = 0.25, over: float = 60.0) -> int: ...


class BlockingServer:
    """The methods of :class:`Server` that wait, for threads. ``server.blocking`` returns it."""

    def __init__(self, server: Waits, find_portal: Callable[[], Portal | None]) -> None:
        self._server, self._find_portal = server, find_portal

    def revoke(self, subject: str) -> int:
        """See :meth:`Server.revoke`."""
        return self._run(self._server.revoke, subject)

    def shed(self, fraction: float = 0.25, over: float = 60.0) -> int:
        """See :meth:`Server.shed`. It waits until the connections have ended."""
        return self._run(self._server.shed, fraction, over)

    def _run(self, function: Callable[..., Coroutine[Any, Any, int]], *args: object) -> int:
        if (portal := self._find_portal()) is None:
            raise ConcurrencyError(
                f"{function.__name__}() was called in a thread while its server does not serve"
            )
        return portal.run(function, *args)
