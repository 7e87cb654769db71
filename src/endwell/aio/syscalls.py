"""The calls on a plain TCP socket that every message pays for.

Compiled, ``_syscalls.pyx`` stands in for these functions (``stream.pxd`` says so): a
method of a socket object costs as much again as the call it makes. A test holds
the two together.
"""

from __future__ import annotations

import _socket
import os
import socket
import time
from _thread import get_ident

__all__ = ["error_of", "monotonic", "receive", "receive_past", "send", "send_many", "thread_ident"]

#: Buffers handed to one ``writev``; Linux's IOV_MAX is 1024.
IOV = 64

monotonic = time.monotonic
thread_ident = get_ident


def receive(fd: int, buffer: bytearray) -> int:
    """Read into ``buffer``: how many bytes came, 0 at the end of file, -1 for nothing now. Raises OSError."""
    try:
        return os.readv(fd, [buffer])
    except (BlockingIOError, InterruptedError):
        return -1


def receive_past(fd: int, room: bytearray, at: int, size: int, buffer: bytearray) -> int:
    """The same, but the first ``size`` bytes go into ``room`` at ``at``, its end, and what follows into ``buffer``."""
    try:
        data = os.read(fd, size + len(buffer))
    except (BlockingIOError, InterruptedError):
        return -1
    room[at:] = data[:size]
    buffer[: max(0, len(data) - size)] = data[size:]
    return len(data)


def send(fd: int, data: bytes | bytearray | memoryview, size: int) -> int:
    """Write the first ``size`` bytes: how many the system took, -1 if it takes nothing now. Raises OSError."""
    try:
        with memoryview(data) as view:
            return os.write(fd, view[:size])
    except (BlockingIOError, InterruptedError):
        return -1


def send_many(fd: int, buffers: list[bytes | memoryview]) -> int:
    """The same for the first of ``buffers``, in one call."""
    try:
        return os.writev(fd, buffers[:IOV])
    except (BlockingIOError, InterruptedError):
        return -1


def error_of(sock: _socket.socket) -> int:
    """The error that is pending on the socket, which forgets it; 0 for none."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
