"""What the kernel knows of a peer that we ourselves hear nothing of."""

from __future__ import annotations

import _socket
import errno
import socket
import sys
from math import ceil

from ..options import Options
from ..protocol.closing import WindowClosed
from ..protocol.deadline import LATE

__all__ = [
    "ACK_CLOCK_ERROR",
    "explain_timeout",
    "limit_unsent_bytes",
    "seconds_since_ack",
    "set_user_timeout",
]

#: Where Linux's ``struct tcp_info`` has tcpi_last_ack_recv: the milliseconds since the last
#: segment that acknowledged anything.
_LAST_ACK = 56
#: Seconds by which the kernel's clock of acknowledgements may be off: it ticks 100 times
#: a second at the least, and an acknowledgement comes a moment after what it is for.
ACK_CLOCK_ERROR = 0.02
#: Linux's TCP_USER_TIMEOUT; None on systems without one.
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
#: The largest that it takes, in milliseconds: some 24 days.
_LONGEST = 2**31 - 1
#: Linux's and macOS's TCP_NOTSENT_LOWAT; None elsewhere.
_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
#: Bytes that the kernel takes beyond what it can send now. Measured on loopback, messages of 1 MiB: no slower than without
#: a limit, from 64 KiB on; 16 KiB are a third slower.
MAX_UNSENT = 128 * 1024


def limit_unsent_bytes(sock: _socket.socket) -> None:
    """Have the kernel take little that it cannot send yet; of a listening socket it is inherited.

    Otherwise it holds megabytes for a slow peer, which are seconds or minutes of messages that are out of date
    when they arrive, and ``write_limit`` notices nothing until then. What is on its way, unacknowledged, is not
    limited, so the throughput is what it was.
    """
    if _NOTSENT_LOWAT is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, MAX_UNSENT)


def seconds_since_ack(sock: _socket.socket) -> float | None:
    """Seconds since the peer's system last confirmed to have got something; None if nobody knows."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK + 4)
    except OSError:
        return None
    return int.from_bytes(info[_LAST_ACK:], sys.byteorder) / 1000


def set_user_timeout(sock: _socket.socket, options: Options) -> None:
    """Have the kernel give up a peer that acknowledges or takes nothing; of a listening socket it is inherited.

    RFC 5482. It stands behind keepalive and ``write_timeout``, for the connections that those
    do not see: because our loop is blocked for good, the protocol has no pings, or the socket is
    closed and only the kernel still holds what was sent. Twice the time of keepalive, because
    the kernel goes on counting when we are stopped, and keepalive then asks anew.
    """
    seconds = (options.ping_interval, options.ping_timeout, options.write_timeout)
    if _USER_TIMEOUT is None or sock.family == socket.AF_UNIX or None in seconds:
        return
    interval, timeout, write = (float(each or 0) for each in seconds)
    limit = ceil((max(2 * (interval + timeout), write) + LATE) * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, min(limit, _LONGEST))


def explain_timeout(exc: OSError, sock: _socket.socket) -> OSError:
    """``exc``, or what it is called if the kernel gave up a peer that is there, but takes nothing.

    For a peer whose window stays closed TCP_USER_TIMEOUT strikes too, though it acknowledges each probe.
    """
    if exc.errno != errno.ETIMEDOUT or _USER_TIMEOUT is None:
        return exc
    silence = seconds_since_ack(sock)
    limit = sock.getsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT) / 1000
    if silence is None or silence + ACK_CLOCK_ERROR >= limit:
        return exc
    return WindowClosed(exc.errno, exc.strerror)
