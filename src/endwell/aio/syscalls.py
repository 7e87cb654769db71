"""The calls on a plain TCP socket that every message pays for.

Compiled, ``_syscalls.pyx`` stands in for these functions (``stream.pxd`` says so): a
method of a socket object costs as much again as the call it makes. A test holds
the two together.
"""

from __future__ import annotations

import socket
import time
from itertools import islice

__all__ = ["error_of", "monotonic", "receive", "send", "send_many"]

#: Buffers handed to one ``sendmsg``; Linux's IOV_MAX is 1024.
IOV = 64

monotonic = time.monotonic


def receive(sock: socket.socket, buffer: bytearray) -> int:
    """Read into ``buffer``: how many bytes came, 0 at the end of file, -1 for nothing now. Raises OSError."""
    try:
        return sock.recv_into(buffer)
    except (BlockingIOError, InterruptedError):
        return -1


def send(sock: socket.socket, data: bytes | bytearray | memoryview) -> int:
    """Write ``data``: how many bytes the system took, -1 if it takes nothing now. Raises OSError."""
    try:
        return sock.send(data)
    except (BlockingIOError, InterruptedError):
        return -1


def send_many(sock: socket.socket, buffers: list[bytes | bytearray | memoryview]) -> int:
    """The same for the first of ``buffers``, in one call."""
    try:
        return sock.sendmsg(islice(buffers, IOV))
    except (BlockingIOError, InterruptedError):
        return -1


def error_of(sock: socket.socket) -> int:
    """The error that is pending on the socket, which forgets it; 0 for none."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
