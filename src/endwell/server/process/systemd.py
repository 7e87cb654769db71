"""What systemd passes to a service, and what it wants to hear: sd_listen_fds(3) and sd_notify(3).

Both are a few environment variables, and no library of systemd's is needed.
"""

from __future__ import annotations

import _socket
import logging
import os
import socket
import time

__all__ = ["VARIABLES", "notify", "reloading", "sockets"]

logger = logging.getLogger("endwell.server")

#: "SD_LISTEN_FDS_START": the sockets are this descriptor and those after it.
FIRST = 3
#: Seconds that a word to systemd may take.
PATIENCE = 1.0
#: What is meant for this process alone, and for none that it starts.
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


def sockets() -> list[_socket.socket]:
    """The listening sockets that were passed to this process, which a .socket unit does; taken once.

    Raises ValueError for one that does not listen, as with ``Accept=yes`` or ``ListenDatagram=``.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    # sd_listen_fds(3): "If the PID does not match, the function returns 0": they were meant for the
    # process that started this one.
    if pid != str(os.getpid()):
        return []
    socks = [_socket.socket(fileno=FIRST + index) for index in range(int(count))]
    for sock in socks:
        # What sd_listen_fds(3) does: they are not for whatever this process starts.
        os.set_inheritable(sock.fileno(), False)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"descriptor {sock.fileno()} of systemd's is no socket that listens for streams")
        if sock.family != socket.AF_UNIX:
            # As our own have it. A connection has it from the socket that accepts it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return socks


def notify(*fields: str) -> None:
    """Tell systemd, if it wants to hear: ``READY=1``, ``STOPPING=1``. Never fails; logs if it cannot."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    # sd_notify(3): a path, or "a Linux abstract namespace socket" if it begins with "@".
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.sendto("\n".join(fields).encode(), address)
    except OSError as error:
        logger.warning("cannot tell systemd %s: %s", fields[0], error)


def reloading() -> None:
    """Tell systemd that a reload has begun; ``READY=1`` ends it."""
    # sd_notify(3): RELOADING=1 must come with MONOTONIC_USEC, "the CLOCK_MONOTONIC timestamp in
    # µs when the notification message was generated", for Type=notify-reload.
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
