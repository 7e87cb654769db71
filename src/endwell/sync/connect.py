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
from .portal import Portal
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
    portal = background()
    connecting = connect_async(
        uri,
        ssl=ssl,
        additional_headers=additional_headers,
        unix_path=unix_path,
        options=options,
        **keywords,
    )
    return portal.run(_open, connecting, portal)


async def _open(connecting: connect_async, portal: Portal) -> WebSocket:
    return WebSocket(Bridge(await connecting, portal))


class _Server(Protocol):
    def serving(self, *args: Any, **keywords: Any) -> AbstractAsyncContextManager[Any]: ...


S = TypeVar("S", bound=_Server)


@contextmanager
def serving(server: S, *args: Any, **keywords: Any) -> Iterator[S]:
    """``server.serving(...)`` for blocking code: it serves, in the shared loop, while the block runs."""
    portal = background()
    manager = server.serving(*args, **keywords)
    portal.run(manager.__aenter__)
    try:
        yield server
    finally:
        portal.run(manager.__aexit__, None, None, None)
