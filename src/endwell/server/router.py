"""Which handler a path belongs to: one table for HTTP and WebSocket routes."""

from __future__ import annotations

import inspect
from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

from ..errors import BadRequest, MethodNotAllowed, NotFound, UpgradeRequired
from ..http import NO_PARAMS

__all__ = ["Kind", "Route", "Router", "blocks"]

Kind: TypeAlias = Literal["websocket", "http"]
Handler: TypeAlias = Callable[..., Any]


class _Rank(IntEnum):
    """What a segment of a pattern accepts; where several would do, the lowest is tried first."""

    LITERAL = 0  #: exactly its text
    PARAMETER = 1  #: any one segment that is not empty
    REST = 2  #: everything that is left, even nothing


_Segment: TypeAlias = tuple[_Rank, str]  # the text of a literal, the name of a parameter


@dataclass(frozen=True, slots=True)
class Route:
    """A pattern and the handler of the paths that it accepts.

    The handler is called with the WebSocket or the request, and with the path
    parameters as keyword arguments.
    """

    kind: Kind
    pattern: str
    handler: Handler
    segments: tuple[_Segment, ...]
    #: Whether the handler's task is cancelled when its connection ends.
    cancel_on_end: bool = False
    #: Whether the handler is a plain function, and runs in a thread.
    blocking: bool = False
    #: Whether another route of the same paths takes its place.
    default: bool = False
    #: Whether it answers whatever the option ``allowed_hosts`` says.
    any_host: bool = False

    @property
    def name(self) -> str:
        """The handler's, for people."""
        return getattr(self.handler, "__qualname__", repr(self.handler))

    @property
    def shape(self) -> tuple[_Segment, ...]:
        """Equal for patterns that accept the same paths; sorted, the more specific comes first."""
        return tuple((rank, text if rank is _Rank.LITERAL else "") for rank, text in self.segments)

    def params(self, segments: list[str]) -> dict[str, str] | None:
        """The path parameters if this route accepts the decoded ``segments``, else None."""
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
    """The table of routes.

    A pattern is a path, written decoded: literal segments, ``{name}`` for one
    segment that is not empty, and at its end ``{name:path}`` for the rest, which
    may be empty and may hold slashes. Where several patterns accept a path, a
    literal beats a parameter and a parameter beats the rest, segment by segment
    from the left; the order of registration plays no part. A trailing slash
    counts: ``/x`` does not answer ``/x/``.
    """

    def __init__(self) -> None:
        self._routes: dict[Kind, list[Route]] = {"websocket": [], "http": []}
        # Those without a parameter, by their path: no other is more specific.
        self._literal: dict[Kind, dict[str, Route]] = {"websocket": {}, "http": {}}

    def add(self, kind: Kind, pattern: str, handler: Handler, **how: bool) -> None:
        """Let ``handler`` answer ``pattern``; ``how`` are ``cancel_on_end``, ``default`` and ``any_host`` of the Route.

        Raises ValueError for a malformed or duplicate pattern, for a handler that
        does not accept the path parameters, and for a plain function that is to be
        cancelled.
        """
        blocking = blocks(handler)
        if blocking and how.get("cancel_on_end"):
            raise ValueError(f"route {pattern!r}: a thread cannot be cancelled, so not with cancel_on_end")
        route = Route(kind, pattern, handler, _parse(pattern), blocking=blocking, **how)
        _check_handler(route)
        for other in self._routes[kind]:
            if other.shape == route.shape:
                if route.default:
                    return
                if other.default:
                    self._routes[kind].remove(other)
                    break
                raise ValueError(f"{kind} route {pattern!r} accepts the same paths as {other.pattern!r}")
        insort(self._routes[kind], route, key=lambda each: each.shape)
        if all(rank is _Rank.LITERAL for rank, _ in route.segments):
            self._literal[kind][pattern] = route

    def match(self, path: str, kind: Kind, method: str = "GET") -> tuple[Route, Mapping[str, str]]:
        """The route of ``path``, and its path parameters.

        ``path`` is still percent-encoded: decoded before it is split, ``%2F``
        would become a slash that the client did not mean as one.

        Raises NotFound where no route of this kind has the path; for a plain
        request UpgradeRequired where only a WebSocket route has it, and
        MethodNotAllowed for any method but GET and HEAD; BadRequest for a path
        whose escapes are not UTF-8.
        """
        literal = self._literal[kind].get(path)
        if literal is not None and method in ("GET", "HEAD"):
            return literal, NO_PARAMS
        try:
            root, *segments = [unquote(segment, errors="strict") for segment in path.split("/")]
        except UnicodeDecodeError:
            raise BadRequest("the path's percent-encoding is not UTF-8") from None
        if root:  # RFC 9112 §3.2: "*" and host:port are targets too, but no paths
            raise NotFound("the request's target is not a path")
        found = self._find(kind, segments)
        if found is None and (kind == "websocket" or self._find("websocket", segments) is None):
            raise NotFound("no route has this path")
        if kind == "http" and method not in ("GET", "HEAD"):
            raise MethodNotAllowed("this path answers GET and HEAD only")
        if found is None:
            raise UpgradeRequired("this path is a WebSocket: ask for an upgrade")
        return found

    def _find(self, kind: Kind, segments: list[str]) -> tuple[Route, dict[str, str]] | None:
        for route in self._routes[kind]:
            params = route.params(segments)
            if params is not None:
                return route, params
        return None


def blocks(function: Callable[..., Any]) -> bool:
    """Whether it is a plain function, so that calling it may block.

    A plain function that wraps a coroutine function, and says so (``functools.wraps``), is none: it
    returns the coroutine, which has to be awaited.
    """
    called: Any = function
    while called is not None:
        of_an_object = getattr(called, "__call__", None)  # noqa: B004 - of what is no function itself
        if inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(of_an_object):
            return False
        called = called.func if isinstance(called, partial) else getattr(called, "__wrapped__", None)
    return True


def _parse(pattern: str) -> tuple[_Segment, ...]:
    if not pattern.startswith("/"):
        raise ValueError(f"route {pattern!r} does not start with '/'")
    if any(char in pattern for char in "?#%"):
        raise ValueError(f"route {pattern!r} is not a decoded path: it contains '?', '#' or '%'")
    segments = [_parse_segment(pattern, text) for text in pattern[1:].split("/")]
    if any(rank is _Rank.REST for rank, _ in segments[:-1]):
        raise ValueError(f"route {pattern!r} goes on after the rest of the path")
    names = [text for rank, text in segments if rank is not _Rank.LITERAL]
    if len(set(names)) < len(names):
        raise ValueError(f"route {pattern!r} names a parameter twice")
    return tuple(segments)


def _parse_segment(pattern: str, text: str) -> _Segment:
    if "{" not in text and "}" not in text:
        return _Rank.LITERAL, text
    name, colon, suffix = text[1:-1].partition(":")
    if text[0] + text[-1] != "{}" or not name.isidentifier() or (colon and suffix != "path"):
        raise ValueError(f"route {pattern!r}: {text!r} is neither a literal, {{name}} nor {{name:path}}")
    return (_Rank.REST if colon else _Rank.PARAMETER), name


def _check_handler(route: Route) -> None:
    """Found out when the route is added, not when the first client comes."""
    signature = inspect.signature(route.handler)
    params = {text: "" for rank, text in route.segments if rank is not _Rank.LITERAL}
    try:
        signature.bind(None, **params)
    except TypeError as error:
        name = getattr(route.handler, "__qualname__", repr(route.handler))
        wanted = ", ".join([route.kind if route.kind == "websocket" else "request", *params])
        raise ValueError(
            f"route {route.pattern!r} calls {name}({wanted}), but {name}{signature}: {error}"
        ) from None
