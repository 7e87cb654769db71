"""The routing table, which maps a path to its HTTP or WebSocket handler."""

from __future__ import annotations

import inspect
from bisect import insort
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Literal, TypeAlias, TypedDict
from urllib.parse import unquote

from ..errors import BadRequest, MethodNotAllowed, NotFound, UpgradeRequired
from ..http import NO_PARAMS, Request, Response
from ..limit import Limit
from ..matching import Origins
from ..options import Deflate, Options, RecorderOption

__all__ = [
    "AcceptFunction",
    "Hook",
    "Kind",
    "Route",
    "RouteKeywords",
    "RouteOptions",
    "Router",
    "blocks",
    "check_methods",
    "name_of",
]

Kind: TypeAlias = Literal["websocket", "http"]
Handler: TypeAlias = Callable[..., Any]


Hook = Callable[[Request], Response | Awaitable[Response | None] | None]

#: The ``accept`` function of a WebSocket route.
AcceptFunction: TypeAlias = Callable[[Request], Any]


class RouteKeywords(TypedDict, total=False):
    """The options that a WebSocket route may have of its own."""

    max_size: int | None
    subprotocols: Sequence[str]
    compression: Deflate | None
    origins: Origins | None
    limits: Limit | Sequence[Limit]
    recorder: RecorderOption


class RouteOptions:
    """The options of a route's WebSockets: its own ones, and for the rest those of the server, which may change.

    Raises TypeError or ValueError for an invalid option.
    """

    __slots__ = ("_own", "_result", "_server")

    def __init__(self, own: RouteKeywords, server: Options) -> None:
        self._own = own
        self._server = server
        self._result = server.replace(**own)

    def over(self, server: Options) -> Options:
        """The options of the route if ``server`` are those of the server."""
        if server is not self._server:
            self._server, self._result = server, server.replace(**self._own)
        return self._result


class _Rank(IntEnum):
    """What a segment of a pattern matches. A lower rank is tried first."""

    LITERAL = 0  #: exactly its text
    PARAMETER = 1  #: any one segment that is not empty
    REST = 2  #: the rest of the path, which may be empty


_Segment: TypeAlias = tuple[_Rank, str]  # the text of a literal, the name of a parameter


@dataclass(frozen=True, slots=True)
class Route:
    """A pattern, and the handler of the paths that it matches.

    The handler is called with the WebSocket or the request, and with the path parameters as keyword
    arguments.
    """

    kind: Kind
    pattern: str
    handler: Handler
    segments: tuple[_Segment, ...]
    #: The methods of an HTTP route.
    methods: tuple[str, ...] = ()
    #: Whether the handler's task is cancelled when its connection ends.
    cancel_on_end: bool = False
    #: Whether the handler is a plain function, which runs in a thread.
    blocking: bool = False
    #: Whether another route that matches the same paths replaces this one.
    default: bool = False
    #: Whether the option ``allowed_hosts`` does not apply to this route.
    any_host: bool = False
    #: The options of the route's WebSockets; None for those of the server.
    options: RouteOptions | None = None
    #: The function that decides whether a WebSocket is accepted; None if all are.
    accept: Handler | None = None
    #: Whether a drain closes the WebSockets of the route after those of the other routes.
    closes_last: bool = False

    @property
    def name(self) -> str:
        """The name of the handler, for log lines."""
        return name_of(self.handler)

    @property
    def shape(self) -> tuple[_Segment, ...]:
        """The sort key. Patterns that match the same paths have equal keys; a more specific one sorts first."""
        return tuple((rank, text if rank is _Rank.LITERAL else "") for rank, text in self.segments)

    def params(self, segments: list[str]) -> dict[str, str] | None:
        """The path parameters if this route matches the decoded ``segments``, else None."""
        last = len(self.segments) - 1
        takes_rest = self.segments[last][0] is _Rank.REST
        if len(segments) <= last or (len(segments) - 1 > last and not takes_rest):
            return None
        params: dict[str, str] = {}
        for index, (rank, text) in enumerate(self.segments):
            if rank is _Rank.REST:
                params[text] = "/".join(segments[index:])
            elif rank is _Rank.LITERAL:
                if segments[index] != text:
                    return None
            elif segments[index]:
                params[text] = segments[index]
            else:
                return None
        return params


class Router:
    """The routing table.

    A pattern is a path without percent-encoding. It consists of literal segments and ``{name}`` for one
    segment that is not empty. It may end in ``{name:path}`` for the rest of the path, which may be empty
    and may contain slashes. If several patterns match a path, segments are compared from the left: a
    literal takes precedence over a parameter, and a parameter over the rest. The order of registration is
    irrelevant. A trailing slash is significant: ``/x`` does not match ``/x/``.
    """

    def __init__(self) -> None:
        self._routes: dict[Kind, list[Route]] = {"websocket": [], "http": []}
        # Routes without a parameter, by path, or by method and path. No other route can be more specific.
        self._literal_websockets: dict[str, Route] = {}
        self._literal_pages: dict[tuple[str, str], Route] = {}

    def add(self, kind: Kind, pattern: str, handler: Handler, **how: Any) -> None:
        """Add a route. ``how`` may contain the optional fields of :class:`Route`.

        The default ``methods`` of an HTTP route are GET and HEAD.

        Raises:
            ValueError: The pattern is malformed or a duplicate, the handler does not accept the path
                parameters, or ``cancel_on_end`` is given for a plain function.
        """
        blocking = blocks(handler)
        if blocking and how.get("cancel_on_end"):
            raise ValueError(
                f"route {pattern!r}: cancel_on_end needs a coroutine function, because a thread cannot be cancelled"
            )
        if kind == "http":
            how.setdefault("methods", ("GET", "HEAD"))
        route = Route(kind, pattern, handler, _parse(pattern), blocking=blocking, **how)
        _check_handler(route)
        for other in self._routes[kind]:
            same_methods = kind == "websocket" or not set(other.methods).isdisjoint(route.methods)
            if other.shape == route.shape and same_methods:
                if route.default:
                    return
                if other.default:
                    self._routes[kind].remove(other)
                    break
                raise ValueError(f"{kind} route {pattern!r} matches the same paths as {other.pattern!r}")
        insort(self._routes[kind], route, key=lambda each: each.shape)
        if all(rank is _Rank.LITERAL for rank, _ in route.segments):
            if kind == "websocket":
                self._literal_websockets[pattern] = route
            for method in route.methods:
                self._literal_pages[method, pattern] = route

    def match(self, path: str, kind: Kind, method: str = "GET") -> tuple[Route, Mapping[str, str]]:
        """Return the route of ``path``, and its path parameters.

        ``path`` is still percent-encoded. It is split before it is decoded, because ``%2F`` is not a
        separator.

        Raises:
            NotFound: No route of this kind matches the path.
            UpgradeRequired: The request is a plain one, and only a WebSocket route matches.
            MethodNotAllowed: No route of the path has the method of a plain request.
            BadRequest: The percent-encoding is not UTF-8.
        """
        websocket = kind == "websocket"
        literal = self._literal_websockets.get(path) if websocket else self._literal_pages.get((method, path))
        if literal is not None:
            return literal, NO_PARAMS
        try:
            root, *segments = [unquote(segment, errors="strict") for segment in path.split("/")]
        except UnicodeDecodeError:
            raise BadRequest("the path's percent-encoding is not UTF-8") from None
        if root:  # RFC 9112 §3.2: the targets "*" and host:port are valid, but not paths
            raise NotFound("the request's target is not a path")
        others: list[str] = []
        for route in self._routes[kind]:
            params = route.params(segments)
            if params is None:
                continue
            if websocket or method in route.methods:
                return route, params
            others += route.methods
        if others:
            # RFC 9110 §15.5.6: "The origin server MUST generate an Allow header field in a 405 response
            # containing a list of the target resource's currently supported methods."
            raise MethodNotAllowed("this path does not answer this method", allow=dict.fromkeys(others))
        if websocket or all(route.params(segments) is None for route in self._routes["websocket"]):
            raise NotFound("no route has this path")
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed("this path answers GET and HEAD only")
        raise UpgradeRequired("this path is a WebSocket endpoint: send an Upgrade")

    def websockets(self) -> Sequence[Route]:
        """The routes of WebSockets."""
        return self._routes["websocket"]

    def has_any(self, kind: Kind) -> bool:
        """Whether there is a route of this kind."""
        return bool(self._routes[kind])

    def has(self, segments: list[str], kind: Kind) -> bool:
        """Whether a route of this kind has the path with the decoded ``segments``, for whatever method."""
        routes = self._routes[kind]
        return bool(routes) and any(route.params(segments[1:]) is not None for route in routes)


#: The methods that a route may have. RFC 9110 §9.3.6 and §9.3.8: CONNECT and TRACE are for proxies.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def check_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """The methods of a route, in upper case; GET includes HEAD. Raises TypeError or ValueError."""
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise TypeError(f"methods must be a list of strings, not {methods!r}")
    names: list[str] = []
    for name in methods:
        if not isinstance(name, str):
            raise TypeError(f"methods must be a list of strings, not {name!r} in one")
        if name.upper() not in METHODS:
            raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
        names += ["GET", "HEAD"] if name.upper() == "GET" else [name.upper()]
    if not names:
        raise ValueError("methods must not be empty")
    return tuple(dict.fromkeys(names))


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function, for log lines and errors. That of a partial is the one that it calls."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", repr(function))


def blocks(function: Callable[..., Any]) -> bool:
    """Whether ``function`` is a plain function, so that a call may block.

    A plain function that wraps a coroutine function with ``functools.wraps`` does not count, because it
    returns a coroutine.
    """
    called: Any = function
    while called is not None:
        call_method = getattr(called, "__call__", None)  # noqa: B004 - for objects that are not functions
        if any(map(_is_async, (called, call_method))):
            return False
        called = called.func if isinstance(called, partial) else getattr(called, "__wrapped__", None)
    return True


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _parse(pattern: str) -> tuple[_Segment, ...]:
    if not pattern.startswith("/"):
        raise ValueError(f"route {pattern!r} does not start with '/'")
    if any(char in pattern for char in "?#%"):
        raise ValueError(
            f"route {pattern!r} contains '?', '#' or '%': write the path without percent-encoding"
        )
    segments = [_parse_segment(pattern, text) for text in pattern[1:].split("/")]
    if any(rank is _Rank.REST for rank, _ in segments[:-1]):
        raise ValueError(f"route {pattern!r} has segments after {{name:path}}")
    names = [text for rank, text in segments if rank is not _Rank.LITERAL]
    if len(set(names)) < len(names):
        raise ValueError(f"route {pattern!r} has two parameters of the same name")
    return tuple(segments)


def _parse_segment(pattern: str, text: str) -> _Segment:
    if "{" not in text and "}" not in text:
        return _Rank.LITERAL, text
    name, colon, suffix = text[1:-1].partition(":")
    if text[0] + text[-1] != "{}" or not name.isidentifier() or (colon and suffix != "path"):
        raise ValueError(f"route {pattern!r}: {text!r} must be a literal, {{name}} or {{name:path}}")
    return (_Rank.REST if colon else _Rank.PARAMETER), name


def _check_handler(route: Route) -> None:
    """Check the handler's signature when the route is added, not at the first request."""
    signature = inspect.signature(route.handler)
    params = {text: "" for rank, text in route.segments if rank is not _Rank.LITERAL}
    try:
        signature.bind(None, **params)
    except TypeError as error:
        name = name_of(route.handler)
        wanted = ", ".join([route.kind if route.kind == "websocket" else "request", *params])
        raise ValueError(
            f"route {route.pattern!r} calls {name}({wanted}), but {name}{signature}: {error}"
        ) from None
