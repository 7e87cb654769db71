"""``serving``: a server for blocking code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from .background import background

__all__ = ["serving"]


class _Server(Protocol):
    def serving(self, *args: Any, **keywords: Any) -> AbstractAsyncContextManager[Any]: ...


S = TypeVar("S", bound=_Server)


@contextmanager
def serving(server: S, *args: Any, **keywords: Any) -> Iterator[S]:
    """Run ``server.serving(...)`` for blocking code, in the library's event loop, while the block runs.

    Leaving the block stops the server gracefully, as :meth:`endwell.Server.serving` does.

    Args:
        server: The :class:`endwell.Server`.
        *args: The positional arguments of :meth:`endwell.Server.serving`.
        **keywords: The keyword arguments of :meth:`endwell.Server.serving`, such as ``port``.

    Raises:
        OSError: If the server cannot listen on the address.
        RuntimeError: If the server serves already, or threads are monkey-patched by gevent or eventlet.
        NotImplementedError: On Windows.

    Example:
        ```python
        import endwell
        from endwell.sync import serving

        server = endwell.Server()

        @server.get("/")
        def index(request):
            return "hello"

        with serving(server, port=0):
            print(server.port)
        ```
    """
    portal = background()
    manager = server.serving(*args, **keywords)
    portal.run(manager.__aenter__)
    try:
        yield server
    finally:
        portal.run(manager.__aexit__, None, None, None)
