"""The choice of the driver for a socket."""

from __future__ import annotations

import ssl
from typing import Any

from ..protocol.connection import Connection
from .driver import Driver
from .reactor import Reactor
from .tcp import TcpDriver
from .tls import TlsDriver
from .transport import TlsTransportDriver, TransportDriver
from .tunnel import Link
from .tunneled import TlsInTlsDriver, TunneledDriver

__all__ = ["driver_of"]


class TunneledTransportDriver(TlsTransportDriver):
    """A connection without TLS of its own (``ws://``), in a TLS session with a proxy that the transport has."""

    def tls_object(self) -> ssl.SSLObject | None:
        """Return None: the server did not take part in the session."""
        return None


def driver_of(  # size: what a driver is made of
    reactor: Reactor,
    sock: Any,
    core: Connection,
    remote_address: object,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    link: Link | None = None,
) -> Driver:
    """Return the driver of a connected socket; ``tls`` is the context of a TLS connection.

    ``link`` has the TLS session with a proxy, if there is one.

    The reactor's drivers are the default, because they know more: see their capabilities. Where the loop
    has no ``add_reader``, the socket gets a transport. In memory, ``sock`` is a transport already, and TLS is
    left out.

    Raises OSError if there is no file descriptor left, and what ``tls`` raises for ``server_hostname``.
    """
    if not reactor.has_readers:
        if reactor.memory is not None:
            return TransportDriver.over(reactor, sock, core)
        if link is not None and link.transport is not None:
            over = TunneledTransportDriver if tls is None else TlsTransportDriver
            tunneled = over(reactor, core, remote_address)
            tunneled.take_over(link.transport, link.received)
            return tunneled
        kind = TransportDriver if tls is None else TlsTransportDriver
        driver = kind(reactor, core, remote_address)
        driver.start(sock, tls, server_hostname)
        return driver
    if link is not None and (session := link.session) is not None:
        if tls is None:
            return TunneledDriver(reactor, sock, core, remote_address, *session)
        return TlsInTlsDriver(
            reactor, sock, core, remote_address, tls, server_hostname, *session, link.received
        )
    if tls is None:
        return TcpDriver(reactor, sock, core, remote_address)
    return TlsDriver(reactor, sock, core, remote_address, tls, server_hostname)
