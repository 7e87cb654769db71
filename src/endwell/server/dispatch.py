"""From a request to the handler of its route, and from the handler's outcome to the end of the connection."""
# size: hooks, handlers and limits of time depend on each other.

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from ..aio.bind import format_peer
from ..aio.cancellation import is_cancelled
from ..aio.exchange import Exchange
from ..aio.limiting import over_opening_limit
from ..aio.websocket import WebSocket, begin_close, close_for, observe
from ..codes import CloseCode
from ..ending import Cause
from ..errors import (
    UNAVAILABLE,
    BodyTooLarge,
    ConnectionClosed,
    MisdirectedRequest,
    RequestRefused,
    ServiceUnavailable,
    close_after,
    unavailable,
)
from ..http import Accept, Request, Response, StreamingResponse
from ..http.bearer import MAX_RENEWAL
from ..limit import Limit, check_limits
from ..options import Options
from ..protocol.handshake import wants_websocket
from ..protocol.limiter import forget_buckets
from ..protocol.opening import accept
from ..sync.request import Request as BlockingRequest
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..wire.authority import is_among
from .drain.run import DrainRun
from .mounts import Mounts
from .observers import MAX_LOGGED, Observers
from .pending import Decision, PendingAnswer
from .renewing import Renewing
from .respond import response_from
from .revoke import Deciding, Revocations, Revoked
from .router import Hook, Route, Router, blocks, name_of
from .threads import HandlerThreads
from .tracing import Tracing

__all__ = ["Dispatcher"]

logger = logging.getLogger("endwell.server")


class Dispatcher:
    """The application of a :class:`Server`: it answers each exchange as the routes say."""

    def __init__(self, options: Options, router: Router, observers: Observers, max_threads: int) -> None:
        self.options = options
        self.router = router
        self.mounts = Mounts(self)
        self._observers = observers
        self._meter = observers.meter
        self.threads = HandlerThreads(max_threads)
        #: How fast WebSockets may open.
        self.opening_limits: list[Limit] = []
        #: The ``process_request`` hooks.
        self.hooks: list[Hook] = []
        #: The connections that are open or closing.
        self.connections: set[WebSocket] = set()
        #: The revocations, also those that come while a function of the application decides.
        self.revocations = Revocations(self.connections)
        #: The connections whose handler runs, with their routes.
        self.handling: dict[WebSocket, Route] = {}
        #: The tasks of handlers, pages and hooks.
        # A dict, because the table of a set grows by a factor of four, and each idle connection pays for it.
        self.tasks: dict[asyncio.Task[None], None] = {}
        self._forget = self.tasks.pop
        #: The current or finished drain; None before it.
        self.drain_run: DrainRun | None = None
        self._context = Context()
        #: Told of each request for a WebSocket, and of its outcome; None if nothing needs it.
        self.tracing: Tracing | None = None
        #: The class of the WebSockets.
        self.websocket_type: type[WebSocket] = WebSocket
        self._create_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

    def begin(self) -> None:
        """The server starts to listen. Handlers see the context variables of the caller."""
        self.threads.begin()
        self._context = copy_context()
        # Asking for it costs a system call on Python 3.11.
        self._create_task = asyncio.get_running_loop().create_task
        forget_buckets(self._limits())

    def _limits(self) -> Iterator[Limit]:
        """All rate limits."""
        yield from self.opening_limits
        own = [
            *(route.options for route in self.router.websockets()),
            *(mount.options for mount in self.mounts),
        ]
        for options in [self.options, *(each.over(self.options) for each in own if each is not None)]:
            yield from check_limits(options.limits)

    def __call__(self, exchange: Exchange) -> None:
        """Answer the exchange, now or in a task."""
        request = exchange.request
        if self.tracing is not None and request is not None and wants_websocket(request):
            exchange.context = self._context.copy()
            self.tracing.requested(exchange, exchange.context)
        if exchange.refusal is not None:
            self._answer(exchange, exchange.refusal)
            return
        assert request is not None
        if self.drain_run is not None:
            self._answer(exchange, self.drain_run.refuse())
        elif self.options.allowed_hosts is not None and not self._answers_to(request):
            host = f"it is for {(request.headers.get('Host') or '')[:MAX_LOGGED]!r}"
            error = MisdirectedRequest("the host of the request is not allowed here", detail=host)
            self._answer(exchange, error)
        elif self.opening_limits and (refusal := self._over_opening_limit(exchange, request)) is not None:
            self._answer(exchange, refusal)
        elif self.mounts.exist and not self.hooks and self._call_mounted(exchange, request):
            pass
        elif not self.hooks and wants_websocket(request):
            self._respond(exchange, request, None)
        else:
            self._start_answering(exchange, request)

    def _call_mounted(self, exchange: Exchange, request: Request) -> bool:
        """Have a mounted application answer. False if none has the path of the request."""
        upgrade = wants_websocket(request)
        mount = self.mounts.find(request, upgrade)
        if mount is None:
            return False
        if (coroutine := self.mounts.call(mount, exchange, request, upgrade)) is not None:
            self.start(coroutine, exchange.context)
        return True

    def _over_opening_limit(self, exchange: Exchange, request: Request) -> Response | RequestRefused | None:
        """Return the refusal of a WebSocket that opens too soon after others; otherwise None."""
        if not wants_websocket(request):
            return None
        try:
            return over_opening_limit(self.opening_limits, request, exchange.remote_address)
        except Exception as exc:  # of an application's key function
            return self._internal_error(request, exc)

    def _answers_to(self, request: Request) -> bool:
        """Whether ``allowed_hosts`` contains the host of ``request``, or its route accepts any host."""
        host = request.headers.get("Host")  # optional in HTTP/1.0
        if host is not None and is_among(host, self.options.allowed_hosts or ()):
            return True
        try:
            route, _ = self.router.match(request.raw_path, "http", request.method)
        except RequestRefused:
            return False
        return route.any_host and not wants_websocket(request)

    def start(
        self, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> asyncio.Task[None]:
        """Run ``coroutine`` as a task of the server, in a copy of ``context``."""
        # By default that of the call that serves; callbacks of the loop run in other contexts.
        task = (self._context if context is None else context).run(self._create_task, coroutine)
        self.tasks[task] = None
        task.add_done_callback(self._forget, context=self._context)
        return task

    # -- HTTP answers -----------------------------------------------------------

    def _start_answering(self, exchange: Exchange, request: Request) -> None:
        self.start(self._answer_http(PendingAnswer(exchange, request)), exchange.context)
        exchange.wait_for_answer()

    async def _answer_http(self, pending: PendingAnswer) -> None:
        answer: Response | RequestRefused | None
        limit, task = self.options.open_timeout, asyncio.current_task()
        if limit is not None and task is not None:
            # The time begins with the first step of the task. uvloop runs overdue timers before new tasks: after
            # a stall, a hook or handler would be cancelled before it has begun.
            timer = asyncio.get_running_loop().call_later(limit, self._time_out, pending, task)
            task.add_done_callback(lambda _: timer.cancel())
        try:
            with self.revocations.deciding() as deciding:
                answer = await self._page(pending, deciding)
        except RequestRefused as exc:
            answer = exc
        except asyncio.CancelledError as exc:
            # The cause is open_timeout, after which a response was sent; or a stop of the server; or the
            # handler has cancelled itself, or awaited something that was cancelled.
            if not pending.exchange.answered:
                self._respond(pending.exchange, pending.request, self._cancelled(pending.request, exc))
            raise
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            answer = self._internal_error(pending.request, exc, told=pending.exchange.answered)
        if pending.exchange.answered:
            return
        if pending.call is not None:
            pending.limited = False
            if (call := pending.call()) is not None:
                pending.exchange.begin()
                await call
            return
        if isinstance(answer, StreamingResponse):
            await self._stream(pending, answer)
        else:
            self._respond(pending.exchange, pending.request, answer, pending.decision)

    async def _stream(self, pending: PendingAnswer, response: StreamingResponse) -> None:
        try:
            if not isinstance(response.chunks, AsyncIterable):
                chunks = self.threads.iterate(response.chunks)
                response = StreamingResponse(chunks, response.status, response.headers)
            await pending.exchange.respond(response)
        except RequestRefused as exc:  # the body of the request, which the iterable has read
            self._tell_refusal(pending.exchange, exc)
            pending.exchange.abort()
        except asyncio.CancelledError as exc:
            if not self._is_cancelled_by_stop():
                self._log_failure(pending.request, exc)
            raise
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            # The status is sent, so the client only sees that the connection was aborted.
            self._log_failure(pending.request, exc)
            pending.exchange.abort()

    def _time_out(self, pending: PendingAnswer, task: asyncio.Task[None]) -> None:
        limit = self.options.open_timeout
        if not pending.limited or pending.exchange.gone or pending.exchange.answered or limit is None:
            return
        if task.done():
            return
        later = pending.exchange.seconds_left(limit)
        if later > 0:  # the body of the request arrived meanwhile, or arrives now
            loop = asyncio.get_running_loop()
            timer = loop.call_later(later, self._time_out, pending, task)
            task.add_done_callback(lambda _: timer.cancel())
            return
        logger.warning("%s took longer than open_timeout (%s s): the answer is 503", pending.work, limit)
        answer = ServiceUnavailable("the answer took too long").response()
        self._observers.refused(pending.request, answer.status, "the answer took too long")
        # Answer before the cancellation, because a coroutine may suppress it.
        self._answer(pending.exchange, answer)
        task.cancel()

    def _respond(
        self,
        exchange: Exchange,
        request: Request,
        answer: Response | RequestRefused | None,
        decision: Decision | None = None,
    ) -> None:
        if answer is None:
            try:
                self._accept(exchange, request, decision)
            except RequestRefused as exc:
                answer = exc
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                answer = self._internal_error(request, exc)
            else:
                return
        self._answer(exchange, answer)

    def _cancelled(self, request: Request, exc: BaseException) -> Response | RequestRefused:
        if self.drain_run is None or not self._is_cancelled_by_stop():
            return self._internal_error(request, exc)
        return self.drain_run.refuse()

    def _is_cancelled_by_stop(self) -> bool:
        return self.drain_run is not None and self.drain_run.has_cancelled and is_cancelled()

    def _internal_error(
        self, request: Request, exc: BaseException, *, told: bool = False
    ) -> Response | RequestRefused:
        """Log ``exc``, and report the refusal, unless another one was ``told``: a 503 after ``open_timeout``."""
        self._log_failure(request, exc)
        if unavailable(exc) is not None:
            return ServiceUnavailable(UNAVAILABLE, retry_after=5)
        if not told:
            self.failed(request)
        return Response.text("internal error\n", 500)

    def _log_failure(self, request: Request, exc: BaseException) -> None:
        peer = format_peer(request.remote_address)
        if (away := unavailable(exc)) is None:
            extra = {"route": request.route}
            logger.error("answering %r for %s failed", request.raw_path, peer, exc_info=exc, extra=extra)
        else:
            logger.warning("answering %r for %s failed: %s", request.raw_path, peer, away)

    def failed(self, request: Request) -> None:
        """Call the observers for a request that gets 500."""
        self._observers.refused(request, 500, "internal error")

    def refused_by_application(self, status: int) -> None:
        """Count the response of a mounted application to a request for a WebSocket, if it is an error."""
        if status >= 400:
            self._meter.refused(status)

    async def _page(self, pending: PendingAnswer, deciding: Deciding) -> Response | None:
        """Run the hooks and the HTTP handler. Returns the response; None if the request may become a WebSocket."""
        request = pending.request
        if not (upgrade := wants_websocket(request)):
            body = pending.exchange.request_body()
        for hook in self.hooks:
            pending.begin(f"the process_request hook {getattr(hook, '__qualname__', hook)!r}")
            returned = await self._call(self.threads.hook, hook, blocks(hook), request)
            if returned is not None:
                return self._refused_by_code(pending, response_from(returned, hook))
        if self.mounts.exist and (mount := self.mounts.find(request, upgrade)) is not None:
            pending.call = partial(self.mounts.call, mount, pending.exchange, request, upgrade)
            return None
        if upgrade:
            return await self._decide(pending, deciding)
        if request.method in ("GET", "HEAD") and not body.is_over:
            # Some recipients ignore the body of such a request, and read it as the next request (RFC 9110 §9.3.1).
            raise BodyTooLarge("a page accepts no request of this method with a body")
        route, params = self.router.match(request.raw_path, "http", request.method)
        request.params, request.route = params, route.pattern
        pending.begin(f"the page {route.pattern!r} ({route.name})")
        if route.blocking:
            # Read here, so that a slow client does not occupy a thread.
            request = BlockingRequest(request, await body.read(), body)
        returned = await self._call(self.threads.page, route.handler, route.blocking, request, **params)
        return response_from(returned, route.handler)

    async def _decide(self, pending: PendingAnswer, deciding: Deciding) -> Response | None:
        """Call the route's ``accept`` function, if it has one. Returns its Response, if it refuses."""
        request = pending.request
        route, request.params = self.router.match(request.raw_path, "websocket")
        request.route = route.pattern
        function = route.accept
        if function is None:
            return None
        # A request that the handshake refuses does not reach the application.
        accepted = accept(request, self._options_of(route))
        pending.begin(_name_accept(route))
        returned = await self._ask(function, request, deciding)
        if isinstance(returned, Response):
            return self._refused_by_code(pending, response_from(returned, function))
        if returned is not None and returned.state:
            request.state.update(returned.state)
        kept = returned is not None and accepted.add(request, returned)
        pending.decision = accepted, kept, returned
        return None

    async def _ask(self, function: Hook, request: Request, deciding: Deciding) -> Accept | Response | None:
        """Call an ``accept`` function. Raises Revoked if the subject that it accepts was revoked meanwhile."""
        returned = await self._call(self.threads.hook, function, blocks(function), request)
        if not isinstance(returned, Accept | Response | None):
            raise TypeError(
                f"{name_of(function)} returned {type(returned).__name__}, not Accept, Response or None"
            )
        subject = returned.subject if isinstance(returned, Accept) else None
        if subject is not None and deciding.is_revoked(subject):
            raise Revoked("the authorization was revoked")
        return returned

    async def _ask_again(self, function: Hook, request: Request) -> Accept | Response | None:
        """Call an ``accept`` function for a new token of an open connection. Raises as :meth:`_ask` does."""
        with self.revocations.deciding() as deciding:
            return await self._ask(function, request, deciding)

    def _renewing(self, route: Route, request: Request, options: Options) -> Renewing | None:
        """What takes new tokens of a connection; None if its client has none, or if nothing decides about them."""
        if route.accept is None or request.bearer is None:
            return None
        if options.max_size is not None and options.max_size < MAX_RENEWAL:
            return None  # a new token could be a message above the limit
        decide = partial(self._ask_again, route.accept)
        limit = self.options.open_timeout
        return Renewing(request.bearer, _name_accept(route), decide, self._start_renewal, limit)

    def _start_renewal(self, run: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None] | None:
        return self.start(run()) if self.drain_run is None else None

    def _refused_by_code(self, pending: PendingAnswer, response: Response) -> Response:
        """Report the response of a hook, if it is an error and will be sent."""
        if response.status >= 400 and not pending.exchange.answered:
            request, reason = pending.request, f"answered by {pending.work}"
            self._observers.log_refusal(request, request.remote_address, response.status, reason)
            self._observers.refused(request, response.status, reason)
        return response

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

    def refuse(self, exchange: Exchange, refusal: RequestRefused) -> None:
        """Answer with the response of ``refusal``, log it and call the observers."""
        self._answer(exchange, refusal)

    def _answer(self, exchange: Exchange, answer: Response | RequestRefused) -> None:
        refusal = answer if isinstance(answer, RequestRefused) else None
        response = answer.response() if isinstance(answer, RequestRefused) else answer
        if refusal is not None:
            self._tell_refusal(exchange, refusal)
        exchange.answer(response, refusal)

    def _tell_refusal(self, exchange: Exchange, refusal: RequestRefused) -> None:
        request = exchange.request
        detail = f" ({refusal.detail})" if refusal.detail else ""
        self._observers.log_refusal(request, exchange.remote_address, refusal.status, f"{refusal}{detail}")
        self._observers.refused(request, refusal.status, str(refusal))

    # -- WebSockets -------------------------------------------------------------

    def _accept(self, exchange: Exchange, request: Request, decision: Decision | None = None) -> None:
        route, params = self.router.match(request.raw_path, "websocket")
        request.route = route.pattern
        if decision is None and route.accept is not None:
            self._start_answering(exchange, request)
            return
        options = self._options_of(route)
        accepted, kept, said = decision or (accept(request, options), False, None)
        if exchange.gone:
            return
        if self.drain_run is not None:
            raise self.drain_run.refuse()
        if route.blocking:
            self.threads.reserve()
        request.params = params
        renewing = self._renewing(route, request, options) if accepted.bearer else None
        ws = exchange.switch(accepted, options, kept, renewing)
        if renewing is not None:
            renewing.attach(ws)
        if said is not None and (said.until is not None or said.subject is not None):
            ws.authorize(until=said.until, subject=said.subject)
        self._meter.opened(ws, route.pattern)
        handler_ws = self.threads.blocking(ws) if route.blocking else ws
        handler = route.handler
        context, observers = exchange.context, self._observers
        if observers.of_endings:
            observe(ws, observers.of_endings)
        if route.blocking and observers.open_callbacks:
            handler = partial(self._open_and_handle, handler)
        elif observers.open_callbacks or observers.close_callbacks:
            context = self._announce(ws, handler_ws, context)
        self.start(self._handle(ws, handler_ws, route, handler, params), context)

    def observe(self, ws: WebSocket, context: Context | None) -> None:
        """Count an open connection of a mounted application, and call the callbacks for it."""
        self._meter.opened(ws, ws.request.route)
        if self._observers.of_endings:
            observe(ws, self._observers.of_endings)
        self._announce(ws, ws, context)

    def _announce(
        self, ws: WebSocket, handler_ws: WebSocket | BlockingWebSocket, context: Context | None
    ) -> Context:
        """Call the ``on_open`` callbacks for an open connection, and register the ``on_close`` callbacks.

        Returns the context of the connection, which has what the callbacks have set.
        """
        observers = self._observers
        if context is None:
            # A copy, so that no other connection sees what on_open callbacks set.
            context = self._context.copy() if observers.open_callbacks else self._context
        if observers.open_callbacks:
            context.run(observers.opened, ws)
        if observers.close_callbacks:
            context.run(self._observe_close, handler_ws)
        return context

    def _options_of(self, route: Route) -> Options:
        return self.options if route.options is None else route.options.over(self.options)

    def _observe_close(self, ws: WebSocket | BlockingWebSocket) -> None:
        ws.on_close(lambda ending: self._observers.ended(ws, ending))

    def _open_and_handle(
        self, handler: Callable[..., object], ws: BlockingWebSocket, **params: str
    ) -> object:
        """Call the ``on_open`` callbacks and the handler, in the handler's thread."""
        self._observers.opened(ws)
        # Registered here, so that on_close callbacks run after those of on_open.
        if self._observers.close_callbacks:
            self._observe_close(ws)
        return handler(ws, **params)

    async def _handle(
        self,
        ws: WebSocket,
        handler_ws: WebSocket | BlockingWebSocket,
        route: Route,
        handler: Callable[..., Any],
        params: Mapping[str, str],
    ) -> None:
        """Run the handler, then close the connection with the cause that follows from the handler's outcome."""
        self.handling[ws] = route
        context: Context | None = None
        try:
            try:
                if isinstance(handler_ws, BlockingWebSocket):
                    context = copy_context()
                    await self.threads.handle(
                        handler, handler_ws, params, partial(self._returned, ws), context
                    )
                elif route.cancel_on_end:
                    async with ws.alive():
                        if (coroutine := handler(ws, **params)) is not None:
                            await coroutine
                # A wrapper that is not a coroutine function may return None instead of a coroutine. There is no
                # function for both branches, because its frame would take 200 bytes of each connection.
                elif (coroutine := handler(ws, **params)) is not None:
                    await coroutine
            finally:
                if not route.blocking:
                    self._returned(ws)
        except asyncio.CancelledError as exc:
            if not is_cancelled():
                # The handler awaited something that was cancelled.
                await self._failed(ws, route, exc)
                return
            await close_for(ws, Cause.CANCELLED, CloseCode.GOING_AWAY)
            raise
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if not _is_end_of(exc, ws):
                await self._failed(ws, route, exc, context)
        else:
            if self.drain_run is not None:
                self.drain_run.close(ws)
            begin_close(ws, Cause.HANDLER_RETURNED, CloseCode.NORMAL_CLOSURE)
            await ws.wait_closed()

    def _returned(self, ws: WebSocket) -> None:
        if self.drain_run is not None:
            self.drain_run.returned(ws)
        if self.tracing is not None:
            self.tracing.returned(ws)
        del self.handling[ws]

    async def _failed(
        self, ws: WebSocket, route: Route, exc: BaseException, context: Context | None = None
    ) -> None:
        # The traceback is logged; the peer only gets a code.
        if context is None:
            self._log_handler(ws, route, exc)
        else:
            context.run(self._log_handler, ws, route, exc)  # that of the handler's thread
        await close_for(ws, Cause.HANDLER_ERROR, *close_after(exc))

    def _log_handler(self, ws: WebSocket, route: Route, exc: BaseException) -> None:
        peer = format_peer(ws.request.remote_address)
        if (away := unavailable(exc)) is None:
            name, path = route.name, ws.request.path
            extra = {"route": route.pattern, "cause": Cause.HANDLER_ERROR.value}
            logger.error("handler %s of %r for %s failed", name, path, peer, exc_info=exc, extra=extra)
        else:
            logger.warning("handler %s of %r for %s failed: %s", route.name, ws.request.path, peer, away)


def _name_accept(route: Route) -> str:
    assert route.accept is not None
    return f"the accept function of {route.pattern!r} ({name_of(route.accept)})"


def _is_end_of(exc: BaseException, ws: WebSocket) -> bool:
    """Whether ``exc`` is the ConnectionClosed of ``ws``, or a group of only such exceptions (from a TaskGroup)."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_end_of(each, ws) for each in exc.exceptions)
    return isinstance(exc, ConnectionClosed) and exc.ending is ws.ending
