"""Ports for servers that are started later, or a second time."""

from __future__ import annotations

import socket
import sys

__all__ = ["free_port"]


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nothing listens. No other test gets it before this process ends.

    A socket that is bound to it, and does not listen, stays open. Meanwhile a server that sets SO_REUSEADDR can
    listen there, and the kernel gives the port to no outgoing connection and to no listener that asks for port 0.
    Otherwise a test that runs at the same time could take it.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        if sys.platform == "linux":  # others refuse the server's bind(), too
            sock.detach()
    return port
