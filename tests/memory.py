"""The raw peer's socket in memory, and the loop on which it works: for tests on a virtual clock."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from endwell.aio.memory import MemoryListener, MemoryTransport
from endwell.aio.virtual import VirtualLoop

__all__ = ["MemorySocket", "SocketLoop", "new_socket"]


class SocketLoop(VirtualLoop):
    """A loop whose ``sock_`` methods take a :class:`MemorySocket`."""

    async def sock_connect(self, sock: Any, address: Any) -> None:
        sock.attach(self._endwell_memory.connect(*address))

    async def sock_accept(self, sock: Any) -> Any:
        return await sock.accept()

    async def sock_sendall(self, sock: Any, data: Any) -> None:
        await sock.sendall(data)

    async def sock_recv(self, sock: Any, size: int) -> Any:
        return await sock.recv(size)


class MemorySocket(asyncio.Protocol):
    """One end of a connection in memory, or a listener, with the methods of a socket that raw peers call.

    It has no descriptor, so what only a kernel does raises an exception.
    """

    family = socket.AF_INET

    def __init__(self) -> None:
        self._listener: MemoryListener | None = None
        self._transport: MemoryTransport | None = None
        self._address: Any = None
        self._changed = asyncio.Event()
        self._received = bytearray()
        self._at_end = self._lingers = False
        self._paused = False
        self._error: BaseException | None = None
        #: The size of the receive buffer; None: the default.
        self._buffer: int | None = None

    # -- the protocol of the transport ------------------------------------------------

    def attach(self, transport: MemoryTransport) -> MemorySocket:
        self._transport = transport
        if self._buffer is not None:
            transport._peer.capacity = self._buffer
        transport.pause_reading()  # as a kernel, which holds what is not read
        transport.set_protocol(self)
        return self

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._news()

    def eof_received(self) -> bool:
        self._at_end = True
        self._news()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self._error, self._at_end = exc, True
        self._news()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._changed.set()

    def _news(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()
        self._changed.set()

    # -- the calls of the loop --------------------------------------------------------

    async def recv(self, size: int) -> bytes:
        assert self._transport is not None
        while not self._received and not self._at_end:
            self._changed.clear()
            self._transport.resume_reading()
            await self._changed.wait()
        data = bytes(self._received[:size])
        del self._received[:size]
        if not data and self._error is not None:
            raise self._error
        return data

    async def sendall(self, data: Any) -> None:
        self.send(data)
        while self._paused and self._error is None:
            self._changed.clear()
            await self._changed.wait()

    async def accept(self) -> tuple[MemorySocket, object]:
        assert self._listener is not None
        while True:
            try:
                transport, address = self._listener.take()
            except BlockingIOError:
                self._changed.clear()
                self._listener.acceptor(lambda _: self._changed.set())
                await self._changed.wait()
            else:
                sock = MemorySocket()
                sock._buffer = self._buffer
                return sock.attach(transport), address

    # -- the socket -------------------------------------------------------------------

    def send(self, data: Any) -> int:
        assert self._transport is not None
        if self._error is not None or self._transport.is_closing():
            raise self._error or BrokenPipeError
        self._transport.write(data)
        return len(data)

    def bind(self, address: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        (self._listener,) = loop._endwell_memory.listen([address[0]], address[1])

    def listen(self) -> None:
        pass

    def getsockname(self) -> Any:
        if self._listener is not None:
            return self._listener.getsockname()
        return None if self._transport is None else self._transport.get_extra_info("sockname")

    def setblocking(self, _: bool) -> None:
        pass

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF):
            self._buffer = value
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._lingers = struct.unpack("ii", value) == (1, 0)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        assert self._transport is not None
        self._transport.write_eof()

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._transport is not None and self._lingers:
            self._transport.reset()
        elif self._transport is not None:
            self._transport.close()

    def __enter__(self) -> MemorySocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- for RawPeer --------------------------------------------------------------------

    def unsent(self) -> int:
        """The number of bytes that the other end's kernel would not have acknowledged."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def tcp_state(self) -> str:
        """The name of the state in which a kernel's TCP would be."""
        assert self._transport is not None
        sent, received = self._transport._end, self._transport._peer._end
        if "RST" in (sent, received) or (sent and received):
            return "CLOSE"
        return "CLOSE_WAIT" if received else "FIN_WAIT2" if sent else "ESTABLISHED"

    def cut(self) -> None:
        """Lose the network."""
        assert self._transport is not None
        self._transport.cut()


def new_socket() -> Any:
    """A socket for a raw peer: in memory on a loop whose connections are."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return socket.socket()
    return MemorySocket() if isinstance(loop, VirtualLoop) else socket.socket()
