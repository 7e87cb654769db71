"""Proxies of a client, without I/O: their URLs, and the dialogue that makes a tunnel to the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..errors import ProxyError
from ..http.headers import Headers
from ..http.request import Request
from ..http.response import Response
from ..options import Options
from ..wire.authority import join_authority, parse_authority
from ..wire.head import ResponseReader
from ..wire.socks import Dialogue, socks4, socks5
from ..wire.trace import trace_request, trace_response
from .handshake import USER_AGENT
from .uri import ascii_host, basic, split_uri

__all__ = ["ProxyURI", "Tunnel", "parse_proxy", "tunnel_through"]

#: The schemes of proxies, with their default ports: those of HTTP, and the one that IANA assigns to SOCKS.
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
#: RFC 1929 §2: the length of each has one byte.
_MAX_CREDENTIAL = 255


@dataclass(frozen=True, slots=True)
class ProxyURI:
    """The parsed URL of a proxy. ``str()`` and ``repr()`` contain no credentials."""

    scheme: str
    #: A name in ASCII, an IPv4 address, or an IPv6 address without brackets.
    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{join_authority(self.host, self.port)}"

    @property
    def secure(self) -> bool:
        """Whether the connection to the proxy has TLS."""
        return self.scheme == "https"

    @property
    def resolves(self) -> bool:
        """Whether the proxy looks up the name of the server. If not, this machine does."""
        return self.scheme not in ("socks4", "socks5")


def parse_proxy(url: str, name: str = "proxy", scheme: str = "http") -> ProxyURI:
    """Parse the URL of a proxy; without ``://`` it has ``scheme``. ``name`` is for the errors.

    Raises ValueError, and TypeError if ``url`` is not a str. The text of the exception never quotes ``url``.
    """
    if isinstance(url, str) and "://" not in url:
        url = f"{scheme}://{url}"
    scheme, authority, target, username, password = split_uri(url, name)
    if scheme not in _PORTS:
        raise ValueError(f"{name} must begin with one of {', '.join(f'{each}://' for each in _PORTS)}")
    if target != "/":
        raise ValueError(f"{name} has a path or a query")
    try:
        host, port = parse_authority(ascii_host(authority))
    except ValueError as error:
        raise ValueError(f"{name} is malformed: {error}") from None
    if port == 0:
        raise ValueError(f"{name} has port 0")
    if scheme.startswith("socks4") and password:
        raise ValueError(f"{name} has a password, but SOCKS4 has none")
    if scheme.startswith("socks5") and username is not None:
        sizes = len(username.encode()), len((password or "").encode())
        if not all(1 <= size <= _MAX_CREDENTIAL for size in sizes):
            raise ValueError(f"{name} needs a user name and a password of 1 to 255 bytes each, for SOCKS5")
    return ProxyURI(scheme, host, port or _PORTS[scheme], username, password)


class Tunnel(Protocol):
    """The dialogue with a proxy, up to the first byte of the server."""

    #: Whether the proxy has been asked for the server: what it refuses from then on may be the address.
    asked: bool
    #: Whether the proxy has connected.
    done: bool

    def output(self) -> bytes:
        """Return the bytes to send now, once."""

    def receive(self, data: bytes) -> int:
        """Take the bytes of the proxy from ``data``, and return their number. The others are the server's.

        Raises :exc:`ProxyError` for a refusal, and :exc:`InvalidHandshake` for what is not the protocol.
        """

    def eof(self) -> None:
        """The proxy has ended TCP. Raises :exc:`ProxyError` if that ends a refusal."""

    def refusal(self) -> ProxyError | None:
        """A refusal of which not all has arrived; otherwise None."""


def tunnel_through(proxy: ProxyURI, host: str, port: int, options: Options) -> Tunnel:
    """Return the dialogue that connects ``proxy`` to ``host``; an address unless ``proxy.resolves``."""
    if not proxy.scheme.startswith("socks"):
        return _HttpTunnel(proxy, host, port, options)
    if proxy.scheme.startswith("socks4"):
        return _SocksTunnel(socks4(host, port, proxy.username))
    return _SocksTunnel(socks5(host, port, proxy.username, proxy.password))


class _HttpTunnel:
    """The method CONNECT (RFC 9110 §9.3.6)."""

    def __init__(self, proxy: ProxyURI, host: str, port: int, options: Options) -> None:
        self.asked, self.done = True, False
        # "CONNECT uses a special form of request target, unique to this method, consisting of only the host and
        # port number of the tunnel destination". The Host is the same (§7.2).
        authority = join_authority(host, port)
        headers = Headers({"Host": authority, "User-Agent": USER_AGENT})
        if proxy.username is not None:
            headers.add("Proxy-Authorization", basic(proxy.username, proxy.password))
        request = Request("CONNECT", authority, headers)
        trace_request(request)
        self._output = request.serialize()
        self._reader = ResponseReader(options, of_connect=True)

    def output(self) -> bytes:
        output, self._output = self._output, b""
        return output

    def receive(self, data: bytes) -> int:
        response = self._reader.receive(data)
        if response is None:
            return len(data)
        if not 200 <= response.status <= 299:
            raise _refusal(response)
        trace_response(response)
        self.done = True
        return len(data) - len(self._reader.rest)

    def eof(self) -> None:
        refusal = self.refusal()
        if refusal is not None:
            raise refusal

    def refusal(self) -> ProxyError | None:
        response = self._reader.partial()
        return None if response is None else _refusal(response)


def _refusal(response: Response) -> ProxyError:
    trace_response(response)
    return ProxyError(
        f"HTTP {response.status} {response.reason}".rstrip(), response=response, reply=response.status
    )


class _SocksTunnel:
    """SOCKS 4, 4a or 5."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.done = False
        self._dialogue = dialogue
        self._answer = b""
        self._output, self._missing, self.asked = next(dialogue)

    def output(self) -> bytes:
        output, self._output = self._output, b""
        return output

    def receive(self, data: bytes) -> int:
        taken = 0
        while not self.done and taken < len(data):
            part = data[taken : taken + self._missing]
            taken += len(part)
            self._answer += part
            self._missing -= len(part)
            if not self._missing:
                answer, self._answer = self._answer, b""
                try:
                    more, self._missing, asks = self._dialogue.send(answer)
                    self._output += more
                    self.asked = self.asked or asks
                except StopIteration:
                    self.done = True
        return taken

    def eof(self) -> None:
        pass  # an answer of SOCKS is never completed by the end of TCP

    def refusal(self) -> None:
        """None: it is known from one byte."""
