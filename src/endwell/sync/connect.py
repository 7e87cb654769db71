"""The blocking client: ``connect``; and a server beside blocking code: ``serving``."""

from __future__ import annotations

import os
import ssl as tls
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Protocol, TypeVar, Unpack

from ..client.connect import connect as connect_async
from ..options import OptionKeywords, Options
from .background import background
from .bridge import Bridge
from .portal import Crossing
from .websocket import WebSocket

__all__ = ["connect", "serving"]


def connect(
    uri: str,
    *,
    ssl: tls.SSLContext | None = None,
    additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    unix_path: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> WebSocket:
    """A connection, once it is open: for a ``with`` block, or to be closed by hand.

    Parameters and exceptions are those of :class:`endwell.connect`. Leaving the ``with``
    block closes with 1000 and waits for the end.
    """
    crossing = background()
    connecting = connect_async(
        uri,
        ssl=ssl,
        additional_headers=additional_headers,
        unix_path=unix_path,
        options=options,
        **keywords,
    )
    return crossing.run(_open, connecting, crossing)


async def _open(connecting: connect_async, crossing: Crossing) -> WebSocket:
    return WebSocket(Bridge(await connecting, crossing))


class _Server(Protocol):
    def serving(self, *args: Any, **keywords: Any) -> AbstractAsyncContextManager[Any]: ...


S = TypeVar("S", bound=_Server)


@contextmanager
def serving(server: S, *args: Any, **keywords: Any) -> Iterator[S]:
    """``server.serving(...)`` for blocking code: it serves, in the shared loop, while the block runs."""
    crossing = background()
    manager = server.serving(*args, **keywords)
    crossing.run(manager.__aenter__)
    try:
        yield server
    finally:
        crossing.run(manager.__aexit__, None, None, None)
