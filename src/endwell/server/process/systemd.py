"""Socket activation and notifications of systemd: sd_listen_fds(3) and sd_notify(3).

Both use environment variables and sockets, so systemd's library is not needed.
"""

from __future__ import annotations

import _socket
import logging
import os
import socket
import time

__all__ = ["VARIABLES", "notify", "reloading", "sockets"]

logger = logging.getLogger("endwell.server")

#: The first passed descriptor: "SD_LISTEN_FDS_START".
FIRST = 3
#: Maximum seconds for sending a notification.
SEND_TIMEOUT = 1.0
#: Environment variables for this process only, which its child processes do not inherit.
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


def sockets() -> list[_socket.socket]:
    """Return the listening sockets that a .socket unit passed to this process; a second call returns none.

    Raises:
        ValueError: A socket does not listen, as with ``Accept=yes`` or ``ListenDatagram=``.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    # sd_listen_fds(3): "If the PID does not match, the function returns 0". The sockets are then for the
    # process that started this one.
    if pid != str(os.getpid()):
        return []
    socks = [_socket.socket(fileno=FIRST + index) for index in range(int(count))]
    for sock in socks:
        # As sd_listen_fds(3) does: child processes do not inherit the sockets.
        os.set_inheritable(sock.fileno(), False)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"descriptor {sock.fileno()} from systemd is not a listening stream socket")
        if sock.family != socket.AF_UNIX:
            # As on the sockets that endwell opens. A connection inherits it from the listening socket.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return socks


def notify(*fields: str) -> None:
    """Send ``fields``, such as ``READY=1``, to systemd if NOTIFY_SOCKET is set; logs a failure."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    # sd_notify(3): a path, or "a Linux abstract namespace socket" if it begins with "@".
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SEND_TIMEOUT)
            sock.sendto("\n".join(fields).encode(), address)
    except OSError as error:
        logger.warning("cannot notify systemd of %s: %s", fields[0], error)


def reloading() -> None:
    """Notify systemd that a reload has begun; ``READY=1`` ends it."""
    # sd_notify(3): RELOADING=1 must come with MONOTONIC_USEC, "the CLOCK_MONOTONIC timestamp in
    # µs when the notification message was generated", for Type=notify-reload.
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
