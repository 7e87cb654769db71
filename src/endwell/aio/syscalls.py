"""The system calls on a TCP socket that each message needs.

The compiled build uses ``_syscalls.pyx`` instead (see ``tcp.pxd``): a method of a socket object costs
as much again as the system call. A test compares the two modules.
"""

from __future__ import annotations

import _socket
import os
import socket
import time
from _thread import get_ident

__all__ = [
    "IOV",
    "error_of",
    "monotonic",
    "part",
    "receive",
    "receive_bytes",
    "receive_past",
    "send",
    "send_many",
    "set_clock",
    "thread_ident",
]

#: Maximum number of buffers in one ``writev``. Linux's IOV_MAX is 1024.
IOV = 64

thread_ident = get_ident

# The thread whose clock is virtual, and the time of that clock.
_virtual_thread = 0
_virtual_time = 0.0


def monotonic() -> float:
    """Return the time in seconds; in the thread of :func:`set_clock`, the time given there."""
    if _virtual_thread and get_ident() == _virtual_thread:
        return _virtual_time
    return time.monotonic()


def set_clock(now: float | None) -> None:
    """Have the clock of this thread stand still at ``now``; None: run again.

    Raises RuntimeError if another thread has a virtual clock.
    """
    global _virtual_thread, _virtual_time
    if _virtual_thread not in (0, get_ident()):
        raise RuntimeError("another thread has a virtual clock")
    _virtual_thread, _virtual_time = (0, 0.0) if now is None else (get_ident(), now)


def receive(fd: int, buffer: bytearray) -> int:
    """Read into ``buffer``. Return the number of bytes, 0 at the end of file, -1 if nothing is available.

    Raises OSError.
    """
    try:
        return os.readv(fd, [buffer])
    except (BlockingIOError, InterruptedError):
        return -1


def receive_bytes(fd: int, buffer: bytearray, size: int) -> bytes | None:
    """Read at most ``size`` bytes. Return them, b"" at the end of file, None if nothing is available.

    The compiled form uses ``buffer``, so that it allocates what has arrived only. Raises OSError.
    """
    try:
        return os.read(fd, min(size, len(buffer)))
    except (BlockingIOError, InterruptedError):
        return None


def receive_past(fd: int, room: bytearray, at: int, size: int, buffer: bytearray) -> int:
    """Read the first ``size`` bytes into ``room`` at ``at``, its end, and the following ones into ``buffer``.

    Returns as :func:`receive` does. Raises OSError.
    """
    try:
        data = os.read(fd, size + len(buffer))
    except (BlockingIOError, InterruptedError):
        return -1
    room[at:] = data[:size]
    buffer[: max(0, len(data) - size)] = data[size:]
    return len(data)


def send(fd: int, data: bytes | bytearray | memoryview, size: int) -> int:
    """Write the first ``size`` bytes. Return the number of bytes that the kernel accepted, -1 for none now.

    Raises OSError.
    """
    try:
        with memoryview(data) as view:
            return os.write(fd, view[:size])
    except (BlockingIOError, InterruptedError):
        return -1


def send_many(fd: int, buffers: list[bytes | memoryview]) -> int:
    """Like :func:`send`, for the first ``IOV`` buffers in one call."""
    try:
        return os.writev(fd, buffers[:IOV])
    except (BlockingIOError, InterruptedError):
        return -1


def error_of(sock: _socket.socket) -> int:
    """Return and clear the pending error of the socket (SO_ERROR); 0 for none."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def part(data: bytearray, size: int) -> memoryview:
    """Return the first ``size`` bytes of ``data`` for one call that takes a bytes-like object.

    The compiled form costs less than a memoryview, and less than a copy.
    """
    return memoryview(data)[:size]
