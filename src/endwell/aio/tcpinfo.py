"""What the kernel knows about a silent peer."""

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

#: Offset of tcpi_last_ack_recv in Linux's ``struct tcp_info``: milliseconds since the last segment that
#: acknowledged data.
_LAST_ACK = 56
#: Error in seconds of the kernel's clock of acknowledgements: it ticks at least 100 times a second, and an
#: acknowledgement comes a moment after the segment that it is for.
ACK_CLOCK_ERROR = 0.02
#: Linux's TCP_USER_TIMEOUT; None on systems without one.
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
#: Its maximum in milliseconds: about 24 days.
_LONGEST = 2**31 - 1
#: Linux's and macOS's TCP_NOTSENT_LOWAT; None elsewhere.
_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
#: Bytes that the kernel accepts beyond what it can send now. Measured on loopback with messages of 1 MiB:
#: from 64 KiB on not slower than without a limit; with 16 KiB a third slower.
MAX_UNSENT = 128 * 1024


def limit_unsent_bytes(sock: _socket.socket) -> None:
    """Limit the unsent data that the kernel accepts (TCP_NOTSENT_LOWAT). Accepted sockets inherit it.

    Otherwise the kernel holds megabytes for a slow peer: seconds or minutes of messages that are out of date
    when they arrive, and ``write_limit`` notices nothing until then. Data in flight is not limited, so the
    throughput does not change.
    """
    if _NOTSENT_LOWAT is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, MAX_UNSENT)


def seconds_since_ack(sock: _socket.socket) -> float | None:
    """Return the seconds since the peer's system last acknowledged data; None if the kernel cannot tell."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK + 4)
    except OSError:
        return None
    return int.from_bytes(info[_LAST_ACK:], sys.byteorder) / 1000


def set_user_timeout(sock: _socket.socket, options: Options) -> None:
    """Have the kernel give up a peer that acknowledges or accepts nothing. Accepted sockets inherit it.

    TCP_USER_TIMEOUT (RFC 5482) backs up keepalive and ``write_timeout`` for the connections that those do
    not cover: the loop is blocked for good, the protocol has no pings, or the socket is closed and only
    the kernel still holds data. It is twice the time of keepalive, because the kernel keeps counting
    while this process is stopped, and keepalive then sends a new ping.
    """
    seconds = (options.ping_interval, options.ping_timeout, options.write_timeout)
    if _USER_TIMEOUT is None or sock.family == socket.AF_UNIX or None in seconds:
        return
    interval, timeout, write = (float(each or 0) for each in seconds)
    limit = ceil((max(2 * (interval + timeout), write) + LATE) * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, min(limit, _LONGEST))


def explain_timeout(exc: OSError, sock: _socket.socket) -> OSError:
    """Return ``exc``, or a WindowClosed if the peer is reachable but its receive window stayed closed.

    TCP_USER_TIMEOUT expires for such a peer too, although it acknowledges each probe.
    """
    if exc.errno != errno.ETIMEDOUT or _USER_TIMEOUT is None:
        return exc
    silence = seconds_since_ack(sock)
    limit = sock.getsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT) / 1000
    if silence is None or silence + ACK_CLOCK_ERROR >= limit:
        return exc
    return WindowClosed(exc.errno, exc.strerror)
