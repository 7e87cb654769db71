"""What the kernel knows of a peer that we ourselves do not listen to."""

from __future__ import annotations

import _socket
import socket
import sys

__all__ = ["silence_of"]

#: Where Linux's ``struct tcp_info`` has tcpi_last_ack_recv: the milliseconds since the last
#: segment that acknowledged anything.
_LAST_ACK = 56


def silence_of(sock: _socket.socket) -> float | None:
    """Seconds since the peer's system last confirmed to have got something; None if nobody knows."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK + 4)
    except OSError:
        return None
    return int.from_bytes(info[_LAST_ACK:], sys.byteorder) / 1000
