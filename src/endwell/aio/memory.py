"""Connections within one process, without sockets: for tests of applications.

A connection is a pair of :class:`MemoryTransport`, and each end has a ``TransportDriver``. An event loop that
has a :class:`Memory` has all its connections there: see ``virtual.py``, and ``memory_of()`` in ``loop.py``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["Memory", "MemoryListener", "MemoryTransport"]

#: Bytes that the buffers of a kernel hold between a write and the peer's read.
CAPACITY = 256 * 1024
#: The first port that is chosen for port 0 (RFC 6335 §6), and that of the first client (Linux's default).
DYNAMIC_PORTS = 49152
CLIENT_PORTS = 32768

#: The names and addresses that mean the same host.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: The hosts on which a server listens for every host.
WILDCARDS = frozenset({None, "", "0.0.0.0", "::"})  # noqa: S104  (nothing is bound)


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory; :meth:`Memory.connect` makes both.

    It behaves as asyncio's transport of a TCP socket, the kernel below it included. Received data and the end
    that follows it wait here until the protocol reads, and a write to an end that is closed is answered by a
    reset.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: object, peername: object) -> None:
        super().__init__({"sockname": name, "peername": peername})
        self._loop = loop
        self._peer = self
        self._protocol: Any = None
        #: Bytes that the connection holds between a write and the peer's read.
        self.capacity = CAPACITY
        # Bytes that the peer's protocol has not received, and what follows them: "FIN" or "RST".
        self._sent = bytearray()
        self._end = ""
        self._reading = True
        self._at_eof = self._closing = self._lost = self._writer_paused = self._network_lost = False

    @classmethod
    def pair(
        cls, loop: asyncio.AbstractEventLoop, client: object, server: object
    ) -> tuple[MemoryTransport, MemoryTransport]:
        """Return the client's end and the server's end, which have these addresses."""
        ours, theirs = cls(loop, client, server), cls(loop, server, client)
        ours._peer, theirs._peer = theirs, ours
        return ours, theirs

    def cut(self) -> None:
        """Lose the network: nothing that either end sends arrives any more."""
        self._network_lost = self._peer._network_lost = True

    # -- what the library calls on a socket that it has connected -------------------

    family = socket.AF_INET

    def getpeername(self) -> object:
        """Return the peer's address."""
        return self.get_extra_info("peername")

    def setsockopt(self, *_: object) -> None:
        """Have no effect: the options concern the kernel."""

    # -- asyncio.Transport ----------------------------------------------------------

    def set_protocol(self, protocol: Any) -> None:
        """Deliver to ``protocol`` from now on."""
        self._protocol = protocol
        self._peer._deliver_soon()

    def get_protocol(self) -> Any:
        """Return the protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether this end is closed, or about to be."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether received data is delivered."""
        return self._reading

    def pause_reading(self) -> None:
        """Deliver nothing."""
        self._reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        self._reading = True
        self._peer._deliver_soon()

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes above what the connection holds."""
        return max(0, len(self._sent) - self.capacity)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have no effect: the limit is 0, as ``TransportDriver`` sets it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``."""
        if self._closing or self._end:
            return
        if self._peer._end == "RST" and not self._network_lost:
            self._fail()
            return
        self._sent += data
        if self.get_write_buffer_size() and not self._writer_paused:
            self._writer_paused = True
            self._protocol.pause_writing()
        self._deliver_soon()

    def write_eof(self) -> None:
        """Send a FIN after the data."""
        self._send_end("FIN")

    def close(self) -> None:
        """Close: the peer receives what was written, and then a FIN; a RST if data was not read here."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """Close, and discard what the connection does not hold."""
        del self._sent[self.capacity :]
        self.close()

    def reset(self) -> None:
        """Close with a RST in any case."""
        self._send_end("RST")
        self.close()

    # -- the kernel -----------------------------------------------------------------

    def _send_end(self, end: str) -> None:
        self._end = end
        self._deliver_soon()

    def _fail(self) -> None:
        """Report that a write has met a reset. As with any transport, unread data is lost."""
        self._closing = True
        self._loop.call_soon(
            self._lose, ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        )

    def _lose(self, exc: BaseException | None) -> None:
        if self._lost:
            return
        self._closing = self._lost = True
        if self._end != "RST":
            # RFC 2525 §2.17: unread data is answered with RST.
            self._send_end("RST" if self._peer._sent and not self._network_lost else "FIN")
        if self._protocol is not None:
            self._protocol.connection_lost(exc)

    def _deliver_soon(self) -> None:
        self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Take one step towards the peer's protocol: data, or what follows it."""
        peer = self._peer
        if self._network_lost or peer._protocol is None:
            return
        if peer._lost:
            if self._sent:
                self._sent.clear()
                peer._send_end("RST")
        elif not peer._reading or peer._closing or peer._at_eof:
            pass
        elif self._sent:
            data = bytes(self._sent[: self.capacity])
            del self._sent[: self.capacity]
            peer._protocol.data_received(data)
            if self._writer_paused and not self.get_write_buffer_size() and not self._lost:
                self._writer_paused = False
                self._protocol.resume_writing()
            self._deliver_soon()
        elif self._end == "RST":
            peer._fail()
        elif self._end == "FIN":
            peer._at_eof = True
            if not peer._protocol.eof_received():
                peer.close()


class MemoryListener:
    """An address on which a server listens. It has the methods that the library calls on a listening socket."""

    family = socket.AF_INET

    def __init__(self, memory: Memory, address: tuple[Any, int] | str) -> None:
        self._memory = memory
        self._address = address
        self._queue: deque[MemoryTransport] = deque()
        self._ready: Callable[[MemoryListener], object] | None = None

    def getsockname(self) -> object:
        """Return the address."""
        return self._address

    def setsockopt(self, *_: object) -> None:
        """Have no effect: the options concern the kernel."""

    def close(self) -> None:
        """Stop listening. Connections that were not accepted are reset."""
        self._memory.forget(self)
        while self._queue:
            self._queue.popleft().reset()

    def acceptor(self, ready: Callable[[Any], object]) -> MemoryListener:
        """Call ``ready(self)`` when :meth:`take` has a result, until :meth:`stop`."""
        self._ready = ready
        self._tell_soon()
        return self

    def take(self) -> tuple[MemoryTransport, object]:
        """Return the next connection and its peer's address. Raises BlockingIOError if there is none."""
        if not self._queue:
            raise BlockingIOError
        transport = self._queue.popleft()
        return transport, transport.getpeername()

    def stop(self) -> None:
        """Accept no more connections for now."""
        self._ready = None

    def forked(self) -> None:
        """Have no effect: there is no descriptor."""

    def put(self, transport: MemoryTransport) -> None:
        """Add a connection."""
        self._queue.append(transport)
        self._tell_soon()

    def _tell_soon(self) -> None:
        self._memory.loop.call_soon(self._tell)

    def _tell(self) -> None:
        if self._queue and self._ready is not None:
            self._ready(self)


class Memory:
    """The network of one event loop: who listens, and on which address.

    A server that listens on a wildcard address is reached by every host. Names are not resolved, so a client
    may use the production name of a server that listens on it.
    """

    def __init__(self, loop: Any) -> None:
        #: A VirtualLoop.
        self.loop = loop
        self._listeners: dict[object, MemoryListener] = {}
        self._clients = 0

    def listen(self, hosts: Iterable[str | None], port: int) -> list[MemoryListener]:
        """Listen on ``port`` of each host; 0: choose one. Raises OSError if it is in use."""
        hosts = list(hosts)
        if port == 0:
            port = DYNAMIC_PORTS
            while any((_canonical(host), port) in self._listeners for host in hosts):
                port += 1
        listeners: list[MemoryListener] = []
        try:
            for host in hosts:
                listener = self._listen((_canonical(host), port), (host or "0.0.0.0", port))  # noqa: S104
                listeners.append(listener)
        except OSError:
            for listener in listeners:
                listener.close()
            raise
        return listeners

    def listen_unix(self, path: str) -> MemoryListener:
        """Listen on a path. No file is made. Raises OSError if it is in use."""
        return self._listen(path, path)

    def connect(self, host: str, port: int, unix_path: Any = None) -> MemoryTransport:
        """Return a connected transport. Raises OSError if no server listens there."""
        keys: Sequence[object] = (
            [(_canonical(host), port), (None, port)] if unix_path is None else [os.fspath(unix_path)]
        )
        for key in keys:
            if (listener := self._listeners.get(key)) is not None:
                break
        else:
            where = unix_path or f"{host}:{port}"
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"no server listens on {where} in memory")
        name: object = "" if unix_path is not None else ("127.0.0.1", CLIENT_PORTS + self._clients)
        self._clients += 1
        client, server = MemoryTransport.pair(self.loop, name, listener.getsockname())
        listener.put(server)
        return client

    def forget(self, listener: MemoryListener) -> None:
        """Remove a listener."""
        self._listeners = {key: each for key, each in self._listeners.items() if each is not listener}

    def _listen(self, key: object, address: tuple[Any, int] | str) -> MemoryListener:
        if key in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {address}")
        listener = self._listeners[key] = MemoryListener(self, address)
        return listener


def _canonical(host: str | None) -> str | None:
    """Return one name for all names of a host; None for a wildcard."""
    if host is None or host in WILDCARDS:
        return None
    return "localhost" if host.lower() in LOOPBACK else host.lower()
