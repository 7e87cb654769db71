"""The dashboard of a server: its routes, and the answers of all processes together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from ...aio.syscalls import monotonic
from ...aio.websocket import WebSocket
from ...build import __version__
from ...codes import CloseCode
from ...ending import Cause
from ...errors import BadRequest, Forbidden
from ...http import Request, Response
from ...limit import Limit
from ...options import Options
from ...rooms.registry import Registry
from ...rooms.rooms import Rooms
from ..drain.timetable import Phase
from ..files import slash
from ..metering import Metering
from ..process.control import ProcessControl
from ..router import RouteOptions, Router
from ..threads import HandlerThreads
from .access import Access, Authorize
from .actions import ACTIONS, Actions
from .endings import find_endings
from .feed import MAX_ASK, SUBPROTOCOL, Feed
from .files import FILES, confine, read
from .heritage import Heritage, bequest_of
from .knowledge import Knowledge, Process, parse_connection
from .merging import merge_counts, merge_endings, merge_rows, merge_summaries
from .order import AskError
from .totals import Totals
from .workers import Workers

__all__ = ["Dashboard"]

#: Share of the period of a client for which a summary is used again, so that ten clients cost as much as one; and the
#: maximum seconds.
SUMMARY_AGE = 0.9
MAX_SUMMARY_AGE = 2.0
#: Above 50 asks in a second, endwell stops reading from the client.
ASKS = Limit(messages=50, burst=100)


class Dashboard:
    """The dashboard of one server.

    Args:
        path: The path of the page, without a slash at the end.
        process: The server.
        registry: That of the rooms.
        metering: Has the totals.
        control: The control of this process.
        authorize: See :meth:`Server.dashboard`.
        actions: See :meth:`Server.dashboard`.
        threads: Those of the server.
        options: The options of the server.
    """

    def __init__(  # size: what a dashboard shows belongs to many parts of a server
        self,
        path: str,
        process: Process,
        *,
        registry: Callable[[], Registry],
        metering: Metering,
        control: Callable[[], ProcessControl | None],
        authorize: Authorize | None,
        actions: bool,
        threads: HandlerThreads,
        options: Callable[[], Options],
    ) -> None:
        self.path = path
        self._threads = threads
        self._options = options
        self._access = Access(authorize, threads.operator, options)
        self._knowledge = Knowledge(process, f"{path}/feed", registry, metering)
        #: An observer of all connections.
        self.endings = self._knowledge.endings
        self._actions = Actions(actions, self._knowledge, control)
        #: What processes that have ended have left.
        self._heritage = Heritage()
        self._totals = Totals()
        self._workers = Workers(self._knowledge.worker, self._answer_worker, self._bequest, self._inherit)
        self._summary: tuple[float, asyncio.Task[dict[str, Any]]] | None = None

    @asynccontextmanager
    async def connected(self, rooms: Rooms) -> AsyncIterator[None]:
        """Answer, and connect with the dashboards of other processes, while the block runs."""
        self._knowledge.begin()
        async with self._workers.connected(rooms):
            try:
                yield
            finally:
                if self._summary is not None:
                    self._summary[1].cancel()
                    self._summary = None

    # -- routes -------------------------------------------------------------------------

    def add_routes(self, router: Router) -> None:
        """Add the routes of the page and of the feed.

        Raises:
            ValueError: A path is in use.
        """
        for name in FILES:
            router.add("http", f"{self.path}/{name}", partial(self._serve, name))
        if self.path:
            router.add("http", self.path, self._slash, default=True)
        own: Any = {
            "max_size": MAX_ASK,
            "subprotocols": [SUBPROTOCOL],
            "compression": None,  # it would take several ms for a large answer
            "origins": None,  # only pages of the same origin, whatever the server's other routes accept
            "limits": ASKS,
        }
        how = {
            "accept": self._accept,
            "options": RouteOptions(own, self._options()),
            "closes_last": True,  # it shows the drain
        }
        router.add("websocket", f"{self.path}/feed", self._feed, **how)

    async def _serve(self, name: str, request: Request) -> Response:
        await self._check(request)
        response: Response = await self._threads.file(read, name, request)
        return response

    async def _slash(self, request: Request) -> Response:
        await self._check(request)
        return confine(await slash(request))

    async def _check(self, request: Request) -> None:
        if not await self._access.allows(request):
            raise Forbidden("you may not see this page")

    async def _accept(self, request: Request) -> None:
        await self._check(request)
        if SUBPROTOCOL not in request.headers.list_of("Sec-WebSocket-Protocol"):
            raise BadRequest(f"the feed needs the subprotocol {SUBPROTOCOL}")

    async def _feed(self, ws: WebSocket) -> None:
        await Feed(ws, self._access, self.answer).run()

    # -- answers of all processes ---------------------------------------------------------

    async def answer(self, ask: dict[str, Any], who: str) -> dict[str, Any]:
        """Answer a client, with what all processes know.

        Raises:
            AskError: The ask is not valid, or cannot be answered.
        """
        match ask["ask"]:
            case "about":
                return self._about()
            case "summary":
                return await self._shared_summary(ask["every"])
            case "list":
                own = await self._knowledge.list(ask)
                others, missing = await self._workers.ask(ask)
                return merge_rows(ask, [own, *others], missing)
            case "endings":
                own = await self._knowledge.list_endings(ask)
                others, missing = await self._workers.ask(ask)
                return merge_endings(ask, [own, *others, await self._inherited(ask, [own, *others])], missing)
            case "connection":
                return await self._connection(ask)
            case name if name in ACTIONS:
                self._actions.check(ask)
                return await self._act(ask, who)
        raise AskError("there is no such ask")

    def _about(self) -> dict[str, Any]:
        """What does not change while the server runs."""
        return {
            "version": __version__,
            "host": self._knowledge.host,
            "causes": {cause.value: cause.meaning for cause in Cause},
            "codes": {str(int(code)): code.name for code in CloseCode if code.may_send},
            "phases": {phase.name.lower(): phase.value for phase in Phase},
            "actions": self._actions.offered(),
        }

    async def _shared_summary(self, every: float) -> dict[str, Any]:
        now = monotonic()
        oldest = now - min(every * SUMMARY_AGE, MAX_SUMMARY_AGE)
        if self._summary is None or self._summary[0] < oldest:
            self._summary = now, asyncio.create_task(self._merged_summary())
        # The task is shared: the end of one client must not cancel it.
        return await asyncio.shield(self._summary[1])

    async def _merged_summary(self) -> dict[str, Any]:
        own, (others, missing) = await asyncio.gather(
            self._knowledge.summary(), self._workers.ask({"ask": "summary"})
        )
        summary = merge_summaries([own, *others], missing)
        totals = self._totals.update(summary["totals"])
        for name in "disconnections", "lost_publications":
            summary["bus"][name] = totals.pop(name)
        summary["totals"] = totals
        # After the answers: a process that has ended meanwhile counts. One that has answered counts once.
        inherited = await self._heritage.counts({worker["worker"] for worker in summary["workers"]})
        summary["endings"] = merge_counts([summary["endings"], inherited])
        return {"summary": {"at": round(time.time(), 3), **summary}}

    async def _inherited(self, ask: dict[str, Any], answers: list[dict[str, Any]]) -> dict[str, Any]:
        """The endings of processes that have ended, without those that have answered meanwhile."""
        present = {answer.get("worker") for answer in answers}
        return await find_endings([each for each in self._heritage.recent if each[0] not in present], ask)

    async def _connection(self, ask: dict[str, Any]) -> dict[str, Any]:
        worker, _ = parse_connection(ask)
        if worker == self._knowledge.worker:
            answer = self._knowledge.connection(ask)
        else:
            answer = await self._ask_one(ask, worker)
        if answer["row"] is None:
            raise AskError("the connection has ended")
        return {"connection": answer["row"]}

    async def _act(self, ask: dict[str, Any], who: str) -> dict[str, Any]:
        worker = self._knowledge.worker
        if ask["ask"] == "close":
            worker, _ = parse_connection(ask)
        elif ask["ask"] == "drain":
            worker = ask.get("worker", "")
            if not isinstance(worker, str) or not worker:
                raise AskError("worker must be the name of a worker")
        if worker == self._knowledge.worker:
            return await self._actions.act(ask, who)
        return await self._ask_one({**ask, "who": who}, worker)

    async def _ask_one(self, ask: dict[str, Any], worker: str) -> dict[str, Any]:
        answers, _ = await self._workers.ask(ask, worker)
        if not answers:
            # A worker that was stopped or blocked gets the ask when it runs again.
            late = "; a worker that runs again may still do it" if ask["ask"] in ACTIONS else ""
            raise AskError(f"the worker does not answer, or has exited{late}")
        if "error" in answers[0]:
            raise AskError(str(answers[0]["error"]))
        return answers[0]

    async def _answer_worker(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Answer another process, with what this process knows. Raises AskError."""
        match ask["ask"]:
            case "summary":
                return await self._knowledge.summary()
            case "list":
                return await self._knowledge.list(ask)
            case "endings":
                return await self._knowledge.list_endings(ask)
            case "connection":
                return self._knowledge.connection(ask)
            case "sources":
                return {"worker": self._knowledge.worker, "sources": self._heritage.sources()}
            case "heritage":
                return self._heritage.bequest()
            case name if name in ACTIONS:
                return await self._actions.act(ask, str(ask.get("who")))
        raise AskError("there is no such ask")

    async def _bequest(self) -> str | None:
        return await bequest_of(self._knowledge.worker, self.endings)

    def _inherit(self, bequest: dict[str, Any]) -> list[str]:
        self._heritage.add(bequest, self._knowledge.worker)
        return self._heritage.sources()
