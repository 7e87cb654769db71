"""What can be served: ASGI 3, ASGI 2 and WSGI applications."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Application", "as_asgi"]

#: An ASGI 3 application.
Application = Callable[[Any, Callable[[], Any], Callable[[Any], Any]], Awaitable[object]]


def as_asgi(app: Any) -> tuple[Application, str]:
    """Return ``app`` as an ASGI 3 application, and the version of ASGI that it speaks; ``"wsgi"`` for WSGI.

    Raises:
        TypeError: ``app`` is none of the three.
        ImportError: ``app`` is a WSGI application, and a2wsgi is not installed.
    """
    if not callable(app):
        raise TypeError(f"an application must be callable, not {app!r}")
    if _takes(app, 3):
        return app, "3.0"
    if _takes(app, 2) and not _is_async(app):
        return _wsgi(app), "wsgi"
    if _takes(app, 1):
        return _double(app), "2.0"
    raise TypeError(
        f"{app!r} is neither an ASGI application, app(scope, receive, send), nor a WSGI application, "
        "app(environ, start_response)"
    )


def _takes(app: Any, count: int) -> bool:
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return count == 3  # of a function in C, for example
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _is_async(app: Any) -> bool:
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004


def _double(app: Callable[[Any], Any]) -> Application:
    """ASGI 2: ``app(scope)`` returns ``instance(receive, send)``."""

    async def application(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> object:
        returned: object = await app(scope)(receive, send)
        return returned

    return application


def _wsgi(app: Any) -> Application:
    try:
        from a2wsgi import WSGIMiddleware  # type: ignore[import-not-found]
    except ImportError:
        raise ImportError(
            f"{getattr(app, '__qualname__', repr(app))} is a WSGI application, and a2wsgi is not installed: pip install a2wsgi"
        ) from None
    middleware: Application = WSGIMiddleware(app)
    return middleware
