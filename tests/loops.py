"""An event loop that stands for one of another system."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

__all__ = ["Proactor"]


class Proactor(asyncio.SelectorEventLoop):
    """As Windows' default loop: it cannot watch a socket, but reads, accepts and connects for its caller."""

    def add_reader(self, *_: Any) -> NoReturn:
        raise NotImplementedError

    remove_reader = add_writer = remove_writer = add_reader

    # sock_recv(), sock_accept() and sock_connect() of the base class end with the public methods.

    def _sock_read_done(self, fd: int, fut: Any, handle: Any = None) -> None:
        if handle is None or not handle.cancelled():
            self._remove_reader(fd)

    def _sock_write_done(self, fd: int, fut: Any, handle: Any = None) -> None:
        if handle is None or not handle.cancelled():
            self._remove_writer(fd)
