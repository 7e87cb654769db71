"""Connecting TCP to a server with several addresses (RFC 8305, "Happy Eyeballs")."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest

from ..codes import Retry
from ..errors import ProxyError
from ..options import Options
from ..protocol.deadline import LATE
from ..protocol.proxy import ProxyURI, Tunnel, tunnel_through
from ..wire.authority import join_authority
from .bind import format_address
from .reactor import reactor_of
from .resolve import Address, resolve
from .tunnel import Link, dig, dig_over_transport

__all__ = ["Reach"]

#: Seconds until the next address is tried in parallel. RFC 8305 §5: "a default of 250 milliseconds is
#: recommended".
ATTEMPT_DELAY = 0.25
#: Seconds until a Unix socket whose queue is full is tried again.
QUEUE_DELAY = 0.01


class Reach:
    """One attempt to connect to a server.

    :attr:`phase` says what has not happened yet, for the message of a time-out. ``watches``: whether the loop
    has ``add_reader``.
    """

    def __init__(
        self, family: int = 0, local_addr: tuple[str, int] | None = None, watches: bool = True
    ) -> None:
        self.phase = "nothing was tried"
        #: Whether TCP is connected.
        self.connected = False
        #: Whether the TLS handshake with the server has begun.
        self.shaking = False
        self._tunnel: Tunnel | None = None
        self._family = family
        self._local_addr = local_addr
        self._watches = watches

    async def tcp(self, host: str, port: int) -> socket.socket:
        """Connect to the first address of ``host`` that accepts.

        Raises OSError, which names every address that was tried.
        """
        addresses = await self._resolve(host, port)
        local: list[Address] = []
        if self._local_addr is not None:
            local = await self._resolve(*self._local_addr)
        race = _Race(interleaved(addresses), dict(reversed(local)))
        self.phase = f"no connection to {', '.join(format_address(address) for _, address in addresses)}"
        sock = await race.run()
        self.connected = True
        return sock

    async def through(
        self,
        proxy: ProxyURI,
        host: str,
        port: int,
        options: Options,
        tls: ssl.SSLContext | None,
    ) -> Link:
        """Connect to ``proxy``, and have it connect to ``host``. ``tls`` is for a proxy with TLS.

        If the name is resolved here, the proxy is asked for one address after the other, until it can connect.

        Raises OSError, EOFError if the proxy ends TCP, and what a :class:`Tunnel` raises.
        """
        refused: list[tuple[str, ProxyError]] = []
        for target in await self._targets(proxy, host, port):
            tunnel = self._tunnel = tunnel_through(proxy, target, port, options)
            try:
                return await self._dig(proxy, tunnel, options, tls)
            except ProxyError as error:
                if not tunnel.asked:
                    raise  # because of the credentials
                refused.append((join_authority(target, port), error))
        raise _refusal_of_all(refused)

    async def _targets(self, proxy: ProxyURI, host: str, port: int) -> list[str]:
        """What ``proxy`` is asked for: the name, or the addresses if it does not resolve names."""
        if proxy.resolves or ":" in host:
            return [host]
        addresses = await self._resolve(
            host, port, socket.AF_INET if proxy.scheme == "socks4" else self._family
        )
        return [str(address[0]) for _, address in interleaved(addresses)]

    async def _dig(
        self, proxy: ProxyURI, tunnel: Tunnel, options: Options, tls: ssl.SSLContext | None
    ) -> Link:
        sock = await self.tcp(proxy.host, proxy.port)
        try:
            if tls is None:
                self._asking(proxy)
                return await dig(sock, tunnel, self._watches)
            self.phase = f"the TLS handshake with the proxy {proxy} was not complete"
            if not self._watches:
                told, seconds = partial(self._asking, proxy), options.linger_timeout + LATE
                return await dig_over_transport(sock, tunnel, tls, proxy.host, told, seconds)
            wrap = partial(tls.wrap_bio, server_hostname=proxy.host)
            return await dig(sock, tunnel, self._watches, wrap, partial(self._asking, proxy))
        except BaseException:
            sock.close()
            raise

    def refusal(self) -> ProxyError | None:
        """After a failure: the refusal of the proxy of which not all has arrived; None if there is none."""
        return None if self._tunnel is None or self._tunnel.done else self._tunnel.refusal()

    def _asking(self, proxy: ProxyURI) -> None:
        self.phase = f"the proxy {proxy} did not answer"

    async def _resolve(self, host: str, port: int, of_family: int | None = None) -> list[Address]:
        self.phase = f"the name {host!r} was not resolved"
        try:
            return await resolve(host, port, self._family if of_family is None else of_family)
        except socket.gaierror as error:
            raise socket.gaierror(error.errno, f"cannot resolve {host!r}: {error.strerror}") from None

    async def unix(self, path: str) -> socket.socket:
        """Connect to the Unix socket at ``path``. Raises OSError."""
        self.phase = f"no connection to {path!r}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            while True:
                try:
                    sock.connect(path)
                except BlockingIOError:
                    # connect(2): "EAGAIN: For nonblocking UNIX domain sockets, the socket is nonblocking,
                    # and the connection cannot be completed immediately." No event announces when it can.
                    await asyncio.sleep(QUEUE_DELAY)
                else:
                    return sock
        except OSError as error:
            sock.close()
            raise _of(error, f"cannot connect to {path!r}: {error.strerror or error}") from None
        except BaseException:
            sock.close()
            raise


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Alternate the address families, beginning with that of the first address (RFC 8305 §4)."""
    if not addresses:
        return []
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [each for each in chain.from_iterable(zip_longest(first, others)) if each is not None]


class _Race:
    """Parallel connection attempts: the first that succeeds wins, and the others are closed."""

    def __init__(
        self, addresses: Sequence[Address], local: Mapping[int, tuple[object, ...]] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        # The local address to bind to, by address family; empty: the system chooses.
        self._local = local or {}
        self._waiting = deque(addresses)
        self._connecting: set[socket.socket] = set()
        # On a loop that cannot watch a socket: its own calls.
        self._calls: dict[socket.socket, asyncio.Task[None]] | None = None
        if not reactor_of(self._loop).has_readers:
            self._calls = {}
        self._errors: list[OSError] = []
        self._timer: asyncio.TimerHandle | None = None
        self._won: asyncio.Future[socket.socket] = self._loop.create_future()

    async def run(self) -> socket.socket:
        """Return the connected socket. Raises OSError if every attempt fails."""
        try:
            self._next()
            sock = await self._won
            # macOS: EINVAL if the peer has reset the connection since then. The socket is closed below.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connecting.remove(sock)
            return sock
        finally:
            self._unset_timer()
            for loser in self._connecting:
                if self._calls is None:
                    self._loop.remove_writer(loser.fileno())
                else:
                    self._calls.pop(loser).cancel()
                loser.close()

    def _next(self) -> None:
        """Start the next attempt. The one after it starts when this one fails, or after ``ATTEMPT_DELAY``."""
        self._unset_timer()
        if self._won.done():
            return
        if not self._waiting:
            if not self._connecting:
                self._won.set_exception(_combined(self._errors))
            return
        family, address = self._waiting.popleft()
        self._timer = self._loop.call_later(ATTEMPT_DELAY, self._next)
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # no file descriptor is left, or the family is not supported
            self._failed(address, error.errno)
            return
        if self._local and (number := self._bind(sock, family)):
            sock.close()
            self._failed(address, number)
            return
        self._connecting.add(sock)
        sock.setblocking(False)
        if self._calls is not None:
            self._calls[sock] = task = self._loop.create_task(self._loop.sock_connect(sock, address))
            task.add_done_callback(partial(self._called, sock, address))
            return
        number = sock.connect_ex(address)
        if number in (errno.EINPROGRESS, errno.EINTR):
            try:
                self._loop.add_writer(sock.fileno(), self._connected, sock, address)
            except OSError as error:  # epoll_ctl(2): ENOSPC at the limit of max_user_watches
                self._judge(sock, address, error.errno or errno.EIO)
        else:
            self._judge(sock, address, number)

    def _bind(self, sock: socket.socket, family: int) -> int | None:
        """Bind to the local address. Return the number of the error; None for success."""
        local = self._local.get(family)
        if local is None:
            return errno.EAFNOSUPPORT
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(local)
        except OSError as error:
            return error.errno or errno.EIO
        return None

    def _connected(self, sock: socket.socket, address: tuple[object, ...]) -> None:
        self._loop.remove_writer(sock.fileno())
        self._judge(sock, address, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _called(self, sock: socket.socket, address: tuple[object, ...], task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        failure = task.exception()
        number = 0 if failure is None else getattr(failure, "errno", None) or errno.EIO
        self._judge(sock, address, number)

    def _judge(self, sock: socket.socket, address: tuple[object, ...], number: int) -> None:
        if self._won.done():
            return  # closed with the other losers
        if number:
            self._connecting.remove(sock)
            sock.close()
            self._failed(address, number)
        else:
            self._won.set_result(sock)

    def _failed(self, address: tuple[object, ...], number: int | None) -> None:
        why = os.strerror(number) if number else "unknown error"
        self._errors.append(OSError(number or errno.EIO, f"{format_address(address)}: {why}"))
        self._next()

    def _unset_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _refusal_of_all(refused: list[tuple[str, ProxyError]]) -> ProxyError:
    """Return one refusal that names every address, if there are several. It can pass if one of them can."""
    first = refused[0][1]
    if len(refused) == 1:
        return first
    text = ", ".join(f"{address}: {error}" for address, error in refused)
    lasting = all(error.retry is Retry.NEVER for _, error in refused)
    return ProxyError(text, retry=Retry.NEVER if lasting else Retry.LATER, reply=first.reply)


def _combined(errors: list[OSError]) -> OSError:
    """Return one error that names every address. It has the class of the first one, the preferred address."""
    if not errors:
        return OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return _of(errors[0], "cannot connect to " + ", ".join(str(error.strerror) for error in errors))


def _of(error: OSError, text: str) -> OSError:
    """Return an error of the same class and number with another text."""
    return OSError(error.errno, text) if error.errno else OSError(text)
