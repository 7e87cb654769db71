"""The server: routes, handlers, running and stopping."""
# size: the face of a server stands in one place, and half of it is what its methods promise

from __future__ import annotations

import _socket
import asyncio
import inspect
import logging
import os
import ssl as tls
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar, Unpack

from ..aio.bind import bind, format_address
from ..aio.broadcast import BroadcastReport, Slow
from ..aio.callbacks import check_callback, check_returned
from ..aio.draining import DrainEvent
from ..aio.listen import Listener, Opening
from ..aio.websocket import WebSocket, begin_close, close_for
from ..codes import CloseCode
from ..ending import Cause, Ending
from ..errors import ConnectionClosed, MisdirectedRequest, RequestRefused, ServiceUnavailable
from ..http import Request, Response
from ..options import OptionKeywords, Options, check_keywords
from ..protocol.handshake import wants_websocket
from ..protocol.opening import accept
from ..sync.portal import Portal
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..wire.authority import is_among
from ..wire.codec import Buffer
from .broadcast import broadcast_from_anywhere
from .drain import DrainReport, DrainRun, tell
from .files import browser_module, slash, static
from .lifespan import start, stop
from .refusals import MAX_LOGGED, Refusals
from .respond import complete, response_from
from .router import Route, Router, blocks
from .run import Listen, run
from .sessions import Sessions
from .threads import HandlerThreads
from .timetable import Drain, DrainKeywords

__all__ = ["Server"]

logger = logging.getLogger("endwell.server")

#: Seconds that ``on_stop`` callbacks have at least, whatever the deadline.
STOP_TIME = 0.5

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = Callable[[Request], Response | Awaitable[Response | None] | None]


class Server:
    """A WebSocket and HTTP server for one or more addresses.

    ``options`` holds for every connection; each of its fields can also be given as
    a keyword. Raises TypeError for an unknown one.

    Handlers are coroutine functions, or plain functions, which may block: those run in
    threads, at most ``max_threads`` for WebSockets at a time. One more connection for
    them is refused with 503; all others go on.
    """

    def __init__(
        self, options: Options | None = None, *, max_threads: int = 1000, **keywords: Unpack[OptionKeywords]
    ) -> None:
        if not isinstance(options, Options | None):
            raise TypeError(f"options must be an Options or None, not {options!r}")
        check_keywords("Server", keywords, {*OptionKeywords.__optional_keys__, "options", "max_threads"})
        self.options = (options or Options()).replace(**keywords)
        #: The connections that are open or closing.
        self.connections: set[WebSocket] = set()
        self.draining = DrainEvent()  #: As that of its WebSockets.
        #: What the server listens on: ``(host, port, ...)`` as the socket module gives it, or the path of a Unix socket.
        self.addresses: list[Any] = []
        #: The current connection of each user, device or tab, for handlers that say who they serve.
        self.sessions = Sessions()
        self._router = Router()
        self._hooks: list[Hook] = []
        self._watchers: list[Callable[[Any, Ending], object]] = []
        # No set, whose table grows fourfold: idle connections pay for it.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._forget = self._tasks.pop
        self._context = Context()
        self._threads = HandlerThreads(max_threads)
        # Whose handler runs, and where it is registered.
        self._handling: dict[WebSocket, Route] = {}
        self._drain_watchers: list[Callable[[Drain], object]] = []
        self._starters: list[Callable[[], object]] = []
        self._stoppers: list[Callable[[], object]] = []
        self._serves = False
        self._listener: Listener | None = None
        self._portal: Portal | None = None
        self._refusals = Refusals()
        #: The drain that is under way, or over.
        self._drain_run: DrainRun | None = None

    # -- routes ---------------------------------------------------------------

    def websocket(self, path: str, *, cancel_on_end: bool = False) -> Callable[[Function], Function]:
        """Decorate the ``handler(ws, **params)``, plain or async, of a path's connections.

        A plain function runs in a thread and gets the blocking :class:`endwell.sync.WebSocket`.
        A handler that returns closes with 1000; one that raises closes with 1011, and
        the exception is logged once. A handler is not cancelled when its connection
        ends, so that the code at its end always runs; ``cancel_on_end`` asks for it, of
        a coroutine function.

        Raises ValueError for a pattern that is malformed, taken, or whose parameters
        the handler does not accept.
        """

        def register(handler: Function) -> Function:
            self._router.add("websocket", path, handler, cancel_on_end=cancel_on_end)
            return handler

        return register

    def get(self, path: str, *, any_host: bool = False) -> Callable[[Function], Function]:
        """Decorate the ``handler(request, **params)``, plain or async, of a path's GET and HEAD requests.

        It returns a :class:`Response`, ``str``, ``bytes``, or a dict or list for
        JSON, within ``open_timeout`` of the request: after that the answer is 503, a WARNING is
        logged, and a coroutine function is cancelled. A plain function runs in a thread.

        With ``any_host`` the option ``allowed_hosts`` does not apply: for a health check of a load
        balancer, which asks for the address of the machine. Hooks of :meth:`process_request` are called
        first for every page, this one too: one that asks for credentials has to let its path pass.
        """

        def register(handler: Function) -> Function:
            self._router.add("http", path, handler, any_host=any_host)
            return handler

        return register

    def static(self, path: str, folder: str | os.PathLike[str], *, follow_links: bool = False) -> None:
        """Serve the files of ``folder`` below ``path``; a directory is answered with its ``index.html``.

        Names that begin with a dot are not served. Links are followed as long as they stay in the
        folder; with ``follow_links`` also those that lead out of it. Browsers ask each time whether
        a file has changed (``Cache-Control: no-cache``); one range of a file is sent if it is asked for.
        At most 16 MiB are sent: for more than that use a proxy. Files are read in threads of their own.

        Raises OSError if there is no such folder, and ValueError for a path that is taken.
        """
        path = path.rstrip("/")
        self._router.add(
            "http", f"{path}/{{path:path}}", static(folder, self._threads.file, follow_links=follow_links)
        )
        if path:
            self._router.add("http", path, slash, default=True)

    def browser_module(self, path: str = "/endwell.js") -> None:
        """Serve ``endwell.js``, the WebSocket for pages, at ``path``.

        It is an ES module: ``import { ReconnectingWebSocket } from "/endwell.js"``.
        """
        self._router.add("http", path, browser_module(self._threads.file))

    def process_request(self, hook: Function) -> Function:
        """Decorate a ``hook(request)``, plain or async, that sees every request first, health checks too.

        It returns None to let the request pass, or a :class:`Response` that answers
        it: 401, 403, a redirect. Hooks are called one after the other, in the order of
        their registration; the first Response is the answer, and no later hook is called.
        Answer soon: a browser opens no second connection to this server while one
        handshake hangs. A plain function runs in a thread.

        Raises TypeError for what cannot be called.
        """
        if not callable(hook):
            raise TypeError(f"process_request takes a function, not {hook!r}")
        self._hooks.append(hook)
        return hook

    def on_start(self, callback: Function) -> Function:
        """Have ``callback()``, plain or async, called before the server listens, in the event loop.

        For pools and background tasks; under ``run(workers=...)`` it is called in each worker. Callbacks
        run in the order of registration. One that raises ends the start with that exception. What it
        sets in context variables, handlers see. SIGTERM cancels it.
        """
        self._starters.append(callback)
        return callback

    def on_stop(self, callback: Function) -> Function:
        """Have ``callback()``, plain or async, called when the server has stopped and no handler runs any more.

        Last registered, first called; only if every ``on_start`` callback returned. They have what is left
        of the drain's deadline, at least half a second; one that takes longer is cancelled. Exceptions are logged.
        """
        self._stoppers.insert(0, callback)
        return callback

    def on_close(self, callback: Callable[[Any, Ending], object]) -> Callable[[Any, Ending], object]:
        """Have ``callback(ws, ending)`` called once for each connection that ends.

        Of a plain handler it gets the blocking WebSocket, and may block too.

        Raises TypeError for a coroutine function: there is nobody to await it.
        """
        check_callback(callback)
        self._watchers.append(callback)
        return callback

    def on_refused(
        self, callback: Callable[[Request | None, int, str], object]
    ) -> Callable[[Request | None, int, str], object]:
        """Have ``callback(request, status, reason)`` called for each request that is refused.

        That is one that gets an HTTP error instead of its WebSocket or its page: no such route,
        another origin, a limit, a :class:`Response` from 400 on of a ``process_request`` hook, a
        hook or a page that fails or takes too long. ``request`` is None if it could not be
        parsed; ``reason`` is never the peer's text. Called in the event loop, so it must not block.
        A line at INFO says the same, and what was compared.

        Raises TypeError for a coroutine function: there is nobody to await it.
        """
        self._refusals.add(callback)
        return callback

    def on_drain(self, callback: Function) -> Function:
        """Have ``callback(drain)``, plain or async, called once when the server begins to drain.

        Before the first connection is closed; its :class:`Drain` tells how long there is.
        """
        self._drain_watchers.append(callback)
        return callback

    def broadcast(
        self,
        connections: Iterable[WebSocket | BlockingWebSocket],
        message: str | Buffer,
        *,
        slow: Slow = "skip",
    ) -> BroadcastReport:
        """Send ``message`` on all of ``connections``, such as :attr:`connections`; waits for nobody.

        A text message (``str``) or a binary one is framed once for all, and compressed
        once for those that compress alike (without context takeover). It comes after
        what was sent before it, and the connections may be any mixture, of any server.

        A connection is slow while more than its ``write_limit`` bytes wait for the peer,
        or a ``send()`` does. What happens to those is ``slow``:

        - ``"skip"``: they miss this message, for streams in which the next one makes up for it;
        - ``"close"``: they end with SLOW_PEER, so that whoever is connected has missed nothing;
        - ``"queue"``: they get it late, and only ``write_timeout`` and keepalive bound the
          queue, so it is for rare messages and for peers that are trusted.

        The report counts the messages ``sent``, the connections already ``gone``, and names
        the ``slow`` ones, and the ``unsupported``: hixie-75 and -76 have no binary messages.
        No callback runs before it is returned.

        WebSockets of plain handlers are taken as well, and in a thread, such as that of a plain
        handler, the call waits for the event loop.

        Raises TypeError or ValueError for what is no message, no iterable of WebSockets, or no
        policy, and :exc:`ConcurrencyError` in another event loop; then nothing was sent.
        """
        return broadcast_from_anywhere(connections, message, slow, self._portal)

    # -- running --------------------------------------------------------------

    def run(  # size: where it listens, and how it runs: all of it keywords
        self,
        host: str | Iterable[str] | None = "127.0.0.1",
        port: int = 8080,
        *,
        ssl: tls.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        unix_mode: int | None = None,
        drain: Drain | None = None,
        workers: int | None = None,
    ) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP, then :meth:`drain` as ``drain`` says; blocks.

        A second SIGINT or SIGTERM stops at once. After a drain of the application's own it returns, too.
        Where it listens is logged, or printed if the program has not set up logging. On a terminal
        a line shows how far the drain is. uvloop is used where it is installed.
        Where systemd passes sockets, those are used instead of ``host``, ``port`` and
        ``unix_path``; it is told READY and STOPPING. ``unix_path`` and ``unix_mode`` are those of
        :meth:`serving`.

        With ``workers``, so many processes serve: this program, started again for each. This
        one supervises them: it replaces those that crash, and SIGHUP restarts them without
        a gap. Raises ValueError where the program is no file and no module, or outside of the
        main thread; SystemExit if a worker ends before it listens. See ``docs/howto/deploy.md``.

        Raises SystemExit with one line if it cannot listen (OSError outside of the main thread), and
        RuntimeError in a thread whose event loop runs: there :meth:`serving` is meant. ``sys.exit()`` in a
        task of the application has the server drain, and is raised then.
        """
        run(self, partial(bind, host, port, unix_path, unix_mode), ssl, drain or Drain(), workers)

    def serving(
        self,
        host: str | Iterable[str] | None = "127.0.0.1",
        port: int = 0,
        *,
        ssl: tls.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        unix_mode: int | None = None,
        grace: float = 10.0,
    ) -> AbstractAsyncContextManager[Server]:
        """Serve while the block runs, in this event loop, without touching its signals.

        Port 0 lets the system choose; :attr:`port` tells. With ``unix_path`` it listens on that
        Unix socket instead; a name that begins with a null byte is an abstract one. The file that a
        dead process left behind is replaced. ``unix_mode`` is the permission bits of the file, such as
        ``0o660``; None leaves them to the umask.

        Leaving the block drains the server with ``grace`` seconds as its deadline, unless
        :meth:`drain` has been called.

        Raises TypeError or ValueError for an argument that is wrong, OSError if it cannot listen, with EADDRINUSE also if
        another process listens on ``unix_path``, and RuntimeError while it serves already, from the first ``on_start``
        callback to the last ``on_stop`` callback.
        """
        return self._serve_on(partial(bind, host, port, unix_path, unix_mode), ssl, grace)

    @asynccontextmanager
    async def _serve_on(
        self,
        listen: Listen,
        ssl: tls.SSLContext | None,
        grace: float = 0,
        yields: Callable[[int], bool] | None = None,
    ) -> AsyncIterator[Server]:
        """:meth:`serving`, on the sockets that ``listen()`` returns.

        Where other processes have them too, ``should_defer(connections)``, called with their number,
        says whether to leave the next newcomer to those.
        """
        if not isinstance(ssl, tls.SSLContext | None):
            raise TypeError(f"ssl must be an ssl.SSLContext or None, not {ssl!r}")
        try:
            plan = Drain(deadline=grace, listen=False)
        except (TypeError, ValueError) as error:
            raise type(error)(f"grace is the deadline of the drain: {error}") from None
        if self._serves:
            raise RuntimeError(
                "this Server serves already, and can do so once at a time; to listen on several addresses give a list of "
                "hosts, and for another port or TLS beside it use another Server"
            )
        # Before anything is awaited: callbacks of on_start and on_stop belong to it.
        self._serves = True
        try:
            self._drain_run = None
            await start(self._starters)
            try:
                async with self._listening(listen, ssl, plan, yields):
                    yield self
            finally:
                await stop(
                    self._stoppers, STOP_TIME if self._drain_run is None else self._drain_run.left(STOP_TIME)
                )
        finally:
            self._serves = False

    @asynccontextmanager
    async def _listening(
        self, listen: Listen, ssl: tls.SSLContext | None, plan: Drain, yields: Callable[[int], bool] | None
    ) -> AsyncIterator[None]:
        self.draining = DrainEvent()
        fair = yields and (lambda openings: yields(openings + len(self.connections)))
        listener = Listener(listen(), self.options, ssl, self._serve, self.draining, fair)
        self._listener = listener
        self._portal = Portal.of(listener.loop)
        self._threads.begin()
        self._context = copy_context()
        self.addresses = [_address_of(sock) for sock in listener.socks]
        try:
            yield
        finally:
            try:
                await self.drain(plan)
            finally:
                self._threads.dismiss()
                self._listener = self._portal = None
                listener.close()
                for opening in list(listener.openings):
                    opening.abort()
                for stream in list(listener.lingering):
                    stream.abort()
                self.addresses = []
                await self.sessions.aclose()

    async def drain(self, drain: Drain | None = None, **keywords: Unpack[DrainKeywords]) -> DrainReport:
        """Stop so that nobody is hurt, and return how that went; the report is logged too.

        Newcomers are refused and handlers told (:attr:`WebSocket.draining`,
        :meth:`on_drain`) at once. Connections are closed over a window of time, each as
        soon as its handler waits for a message and none is there, so that what came was
        answered. Who stays busy for 1/5 of the deadline is closed all the same, handlers are
        cancelled at 4/5 of it, and what is left is cut before it. ``drain``, or its
        fields as keywords, says the rest. A second call waits for the first.

        Cancelled, it goes to the end at once. A handler must not wait for it, which would
        be waiting for itself. Raises ValueError while nothing is served.
        """
        if not isinstance(drain, Drain | None):
            raise TypeError(f"drain must be a Drain or None, not {drain!r}")
        check_keywords("drain", keywords, {*DrainKeywords.__optional_keys__, "drain"})
        plan = (drain or Drain()).replace(**keywords)
        if self._listener is None:
            raise ValueError("drain() while the server does not serve")
        if self._drain_run is not None:
            return await self._drain_run.finished()
        if not plan.listen:
            self._listener.close()
        self.draining.set()
        self._threads.draining.set()
        for callback in self._drain_watchers:
            if rest := tell(callback, plan):
                self._start(rest)
        self._drain_run = DrainRun(
            plan, self.connections, self._tasks, self._threads, self._listener.openings, self._handling
        )
        return await self._drain_run.run()

    async def _hand_over(self, seconds: float) -> None:
        """Stop listening where others go on; wait so long for what was accepted to get through its handshake."""
        if self._listener is not None:
            self._listener.close()
            await self._listener.settled(seconds)

    @property
    def port(self) -> int:
        """The first TCP port that the server listens on. Raises ValueError if there is none."""
        for address in self.addresses:
            if isinstance(address, tuple):
                port: int = address[1]
                return port
        raise ValueError(
            f"the server has no port: it listens on {', '.join(map(format_address, self.addresses))}"
            if self.addresses
            else "the server has no port: it does not listen"
        )

    # -- one connection -------------------------------------------------------

    def _serve(self, opening: Opening, head: Request | RequestRefused) -> None:
        if isinstance(head, RequestRefused):
            self._answer(opening, opening.request, head)
        elif self._drain_run is not None:
            self._answer(opening, head, self._drain_run.refuse())
        elif not self._answers_to(head):
            host = f"it is for {(head.headers.get('Host') or '')[:MAX_LOGGED]!r}"
            error = MisdirectedRequest("this server does not answer to the host of the request", detail=host)
            self._answer(opening, head, error)
        elif not self._hooks and wants_websocket(head):
            self._respond(opening, head, None)
        else:
            self._begin_to_ask(opening, head)

    def _answers_to(self, request: Request) -> bool:
        """Whether the host that ``request`` is for is one of ours."""
        names = self.options.allowed_hosts
        host = request.headers.get("Host")  # which a head of HTTP/1.0 may lack
        if names is None or (host is not None and is_among(host, names)):
            return True
        try:
            route, _ = self._router.match(request.raw_path, "http", request.method)
        except RequestRefused:
            return False
        return route.any_host and not wants_websocket(request)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # In the context of the call that serves, which no callback of the loop has.
        task = self._context.run(asyncio.get_running_loop().create_task, coroutine)
        self._tasks[task] = None
        task.add_done_callback(self._forget, context=self._context)
        return task

    def _begin_to_ask(self, opening: Opening, request: Request) -> None:
        asked = _Asked(opening, request)
        task = self._start(self._ask(asked))
        opening.wait_for_answer()
        limit = self.options.open_timeout
        if limit is not None:
            timer = asyncio.get_running_loop().call_later(limit, self._too_slow, asked, task)
            task.add_done_callback(lambda _: timer.cancel())

    async def _ask(self, asked: _Asked) -> None:
        answer: Response | RequestRefused | None
        try:
            answer = await self._page(asked)
        except RequestRefused as exc:
            answer = exc
        except asyncio.CancelledError as exc:
            # By open_timeout, which has answered; by a stop; or it awaited something that was cancelled.
            if not asked.opening.answered:
                self._respond(asked.opening, asked.request, self._cancelled(asked.request, exc))
            raise
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            answer = self._broken(asked.request, exc)
        if not asked.opening.answered:
            self._respond(asked.opening, asked.request, answer)

    def _too_slow(self, asked: _Asked, task: asyncio.Task[None]) -> None:
        if task.done() or asked.opening.gone:
            return
        limit = self.options.open_timeout
        logger.warning("%s took longer than open_timeout (%s s): the answer is 503", asked.work, limit)
        answer = ServiceUnavailable("the answer took too long").response()
        self._refusals.tell(asked.request, answer.status, "the answer took too long")
        # First, because a coroutine may swallow its cancellation.
        self._answer(asked.opening, asked.request, answer)
        task.cancel()

    def _respond(self, opening: Opening, request: Request, answer: Response | RequestRefused | None) -> None:
        if answer is None:
            try:
                self._converse(opening, request)
            except RequestRefused as exc:
                answer = exc
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                answer = self._broken(request, exc)
            else:
                return
        self._answer(opening, request, answer)

    def _cancelled(self, request: Request, exc: BaseException) -> Response | RequestRefused:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            return self._broken(request, exc)
        if self._drain_run is None:
            return ServiceUnavailable("the server is stopping")
        return self._drain_run.refuse()

    def _broken(self, request: Request, exc: BaseException) -> Response:
        logger.error("answering %r for %s failed", request.raw_path, _peer(request), exc_info=exc)
        self._refusals.tell(request, 500, "internal error")
        return Response.text("internal error\n", 500)

    async def _page(self, asked: _Asked) -> Response | None:
        """The HTTP answer to the request; None if it may become a WebSocket."""
        request = asked.request
        for hook in self._hooks:
            asked.begin(f"the process_request hook {getattr(hook, '__qualname__', hook)!r}")
            returned = await self._call(self._threads.hook, hook, blocks(hook), request)
            if returned is not None:
                response = response_from(returned, hook)
                if response.status >= 400:
                    reason = f"answered by {asked.work}"
                    self._refusals.log(request, request.remote_address, response.status, reason)
                    self._refusals.tell(request, response.status, reason)
                return response
        if wants_websocket(request):
            return None
        route, params = self._router.match(request.raw_path, "http", request.method)
        request.params = params
        asked.begin(f"the page {route.pattern!r} ({route.name})")
        returned = await self._call(self._threads.page, route.handler, route.blocking, request, **params)
        return response_from(returned, route.handler)

    async def _call(
        self,
        in_thread: Callable[..., Awaitable[Any]],
        function: Callable[..., Any],
        blocking: bool,
        request: Request,
        **params: str,
    ) -> Any:
        if blocking:
            returned = await in_thread(function, request, **params)
        else:
            returned = function(request, **params)
        return await returned if inspect.isawaitable(returned) else returned

    def _answer(self, opening: Opening, request: Request | None, answer: Response | RequestRefused) -> None:
        broken = answer if isinstance(answer, RequestRefused) else None
        response = answer.response() if isinstance(answer, RequestRefused) else answer
        if broken is not None:
            detail = f" ({broken.detail})" if broken.detail else ""
            self._refusals.log(request, opening.remote_address, broken.status, f"{broken}{detail}")
            self._refusals.tell(request, broken.status, str(broken))
        opening.answer(complete(response, request, time.time()), broken)

    def _converse(self, opening: Opening, request: Request) -> None:
        route, params = self._router.match(request.raw_path, "websocket")
        accepted = accept(request, self.options)
        if opening.gone:
            return
        if self._drain_run is not None:
            raise self._drain_run.refuse()
        if route.blocking:
            self._threads.reserve()
        request.params = params
        ws = opening.accept(request, accepted, self.connections)
        held = self._threads.blocking(ws) if route.blocking else ws
        if self._watchers:
            self._context.run(held.on_close, lambda ending: self._ended(held, ending))
        self._start(self._handle(ws, held, route, params))

    def _ended(self, ws: WebSocket | BlockingWebSocket, ending: Ending) -> None:
        for watcher in self._watchers:
            try:
                check_returned(watcher(ws, ending), watcher)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("on_close callback %r failed", watcher)

    async def _handle(
        self, ws: WebSocket, held: WebSocket | BlockingWebSocket, route: Route, params: Mapping[str, str]
    ) -> None:
        """Run the handler; however it leaves, the connection is closed for that cause."""
        self._handling[ws] = route
        try:
            try:
                if isinstance(held, BlockingWebSocket):
                    await self._threads.handle(route.handler, held, params, partial(self._returned, ws))
                elif route.cancel_on_end:
                    async with ws.alive():
                        await _run(route, ws, params)
                else:
                    await _run(route, ws, params)
            finally:
                if not route.blocking:
                    self._returned(ws)
        except asyncio.CancelledError:
            await close_for(ws, Cause.CANCELLED, CloseCode.GOING_AWAY)
            raise
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if not _tells_the_end(exc, ws):
                await self._failed(ws, route, exc)
        else:
            if self._drain_run is not None:
                self._drain_run.close(ws)
            begin_close(ws, Cause.HANDLER_RETURNED, CloseCode.NORMAL_CLOSURE)
            await ws.wait_closed()

    def _returned(self, ws: WebSocket) -> None:
        if self._drain_run is not None:
            self._drain_run.returned(ws)
        del self._handling[ws]

    async def _failed(self, ws: WebSocket, route: Route, exc: BaseException) -> None:
        # The traceback stays here: a peer is told that, not why.
        request = ws.request
        logger.error("handler %s of %r for %s failed", route.name, request.path, _peer(request), exc_info=exc)
        await close_for(ws, Cause.HANDLER_ERROR, CloseCode.INTERNAL_ERROR)


async def _run(route: Route, ws: WebSocket, params: Mapping[str, str]) -> None:
    # Of a wrapper that is no coroutine function, it may be None instead of a coroutine.
    if (coroutine := route.handler(ws, **params)) is not None:
        await coroutine


def _tells_the_end(exc: BaseException, ws: WebSocket) -> bool:
    """Whether it says that ``ws`` has ended, and nothing else; task groups put it into a group."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_tells_the_end(each, ws) for each in exc.exceptions)
    return isinstance(exc, ConnectionClosed) and exc.ending is ws.ending


def _peer(request: Request) -> str:
    address = request.remote_address
    # The name of a Unix socket is the peer's to choose.
    return format_address(address) if isinstance(address, tuple) else repr(address)


class _Asked:
    """A request that a hook or a page is to answer."""

    __slots__ = ("opening", "request", "work")

    def __init__(self, opening: Opening, request: Request) -> None:
        self.opening = opening
        self.request = request
        #: What is at work on the answer, for the log.
        self.work = ""

    def begin(self, work: str) -> None:
        """``work`` is at work, in the current task."""
        self.work = work
        if (task := asyncio.current_task()) is not None:
            task.set_name(work)  # for the log, should it go on after the server has stopped


def _address_of(sock: _socket.socket) -> Any:
    address = sock.getsockname()
    # Of an abstract Unix socket it is bytes: text again, as it was given, and as connect() takes it.
    return os.fsdecode(address) if isinstance(address, bytes) else address
