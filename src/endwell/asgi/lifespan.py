"""The lifespan of an ASGI application: its startup and its shutdown."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal

from ..errors import StartupFailed
from .application import Application

__all__ = ["Lifespan", "LifespanMode"]

logger = logging.getLogger("endwell.server")

#: Maximum seconds between the answer of an application to its shutdown and its return.
CLEANUP_TIME = 1.0

LifespanMode = Literal["auto", "on", "off"]


class Lifespan:
    """Sends the events of the lifespan protocol to an application.

    ``"on"`` requires that the application supports it. With ``"auto"``, an application that raises before it has
    answered the startup is served all the same.
    """

    def __init__(self, application: Application, mode: LifespanMode, version: str) -> None:
        if mode not in ("auto", "on", "off"):
            raise ValueError(f'lifespan must be "auto", "on" or "off", not {mode!r}')
        self._application = application
        self._mode = mode
        self._version = version
        self._task: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        # The event that the application has to answer, and its answer.
        self._asked = ""
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        #: What the application has put there; each request gets a copy.
        self.state: dict[str, Any] = {}

    async def startup(self) -> None:
        """Wait until the application has started. Raises StartupFailed if it could not."""
        self.state = {}
        if self._mode == "off":
            return
        self._events = asyncio.Queue()
        self._task = asyncio.create_task(self._run(), name="lifespan")
        answer = await self._tell("lifespan.startup")
        if answer is None:
            error = _error_of(self._task)
            if self._mode == "auto":
                # The specification: "If an exception is raised when calling the application callable with a
                # lifespan.startup message or a scope of type lifespan, the server must continue".
                # At INFO, because the error may be one of a startup that has failed.
                what = "returned" if error is None else f"raised {error!r}"
                logger.info("the application has no lifespan: it %s at its startup", what)
                logger.debug("the application does not support the lifespan protocol", exc_info=error)
                return
            raise StartupFailed("the application does not support the lifespan protocol") from error
        if answer["type"] == "lifespan.startup.failed":
            message = answer.get("message") or ""
            raise StartupFailed(f"the application could not start{message and ': '}{message}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # After the request to shut down, shutdown() logs it.
        if self._asked == "lifespan.startup" and (error := _error_of(task)) is not None:
            logger.error("Exception in the lifespan of the ASGI application", exc_info=error)

    async def shutdown(self) -> None:
        """Wait until the application has shut down."""
        if self._task is None or self._task.done():
            return
        answer = await self._tell("lifespan.shutdown")
        if answer is None:
            if (error := _error_of(self._task)) is not None:
                logger.error("Exception in ASGI application at its shutdown", exc_info=error)
        elif answer["type"] == "lifespan.shutdown.failed":
            logger.error("the application could not shut down: %s", answer.get("message") or "")
        # For what the application does after its answer.
        await asyncio.wait([self._task], timeout=CLEANUP_TIME)

    def abandon(self) -> None:
        """Cancel the application's task, if it still runs."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _tell(self, kind: str) -> dict[str, Any] | None:
        """Send an event; return the answer, None if the application returns or raises first."""
        task = self._task
        assert task is not None
        self._asked = kind
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": kind})
        await asyncio.wait([task, answer], return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": self._version, "spec_version": "2.0"},
            "state": self.state,
        }
        await self._application(scope, self._events.get, self._send)

    async def _send(self, event: dict[str, Any]) -> None:
        kind, answer, asked = event["type"], self._answer, self._asked
        if kind not in (f"{asked}.complete", f"{asked}.failed") or answer is None or answer.done():
            raise RuntimeError(f"Unexpected ASGI message '{kind}' after '{asked}'.")
        answer.set_result(event)


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return None if not task.done() or task.cancelled() else task.exception()
