"""Where a client connects to, as far as its URI does not say it."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address

from ..protocol.proxy import ProxyURI, parse_proxy
from ..protocol.uri import WebSocketURI
from ..wire.authority import REG_NAME
from .bind import check_unix_path

__all__ = ["Route"]

#: The arguments that a connected socket replaces, and those that a Unix socket replaces.
_OF_TCP = ("host", "port", "local_addr", "family")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The arguments of :class:`endwell.connect` about the way to the server, with their names.

    Raises ValueError and TypeError, which name the argument.
    """

    unix_path: str | os.PathLike[str] | None = None
    host: str | None = None
    port: int | None = None
    sock: socket.socket | None = None
    local_addr: tuple[str, int] | None = None
    family: int = socket.AF_UNSPEC
    server_hostname: str | None = None
    #: A URL may contain credentials.
    proxy: str | bool | None = field(default=True, repr=False)
    proxy_ssl: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._check_types()
        self._check_hosts()
        self._check_sockets()
        self._check_together()

    def explicit_proxy(self) -> ProxyURI | None:
        """Return the proxy whose URL was given; None if there is none, or if the environment decides."""
        return parse_proxy(self.proxy) if isinstance(self.proxy, str) else None

    def towards(self, uri: WebSocketURI) -> WebSocketURI:
        """Return ``uri`` with the host and the port to connect to."""
        if self.host is None and self.port is None:
            return uri
        host, zone = uri.host, uri.zone
        if self.host is not None:
            host, percent, name = self.host.partition("%")
            zone = name if percent else None
        return replace(uri, host=host.lower(), zone=zone, port=self.port or uri.port)

    def asks_environment(self) -> bool:
        """Whether the environment decides about a proxy."""
        return self.proxy is True and self.unix_path is None and self.sock is None

    def _check_types(self) -> None:
        for name, kinds, what in (
            ("host", str | None, "a str or None"),
            ("port", int | None, "an int or None"),
            ("sock", socket.socket | None, "a socket.socket or None"),
            ("local_addr", tuple | None, "a tuple (host, port) or None"),
            ("family", int, "socket.AF_INET, socket.AF_INET6 or 0"),
            ("server_hostname", str | None, "a str or None"),
            ("proxy", str | bool | None, "True, a URL or None"),
            ("proxy_ssl", ssl.SSLContext | None, "an ssl.SSLContext or None"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and name != "proxy"):
                # The value is not shown: a wrong type may contain the credentials of a proxy.
                raise TypeError(f"{name} must be {what}, not {type(value).__name__}")
        if self.proxy is False:
            raise ValueError("proxy must be True, a URL or None, not False: None connects without a proxy")

    def _check_hosts(self) -> None:
        if self.host is not None:
            _check_host("host", self.host)
        if self.server_hostname is not None:
            _check_host("server_hostname", self.server_hostname)
        if self.port is not None and not 0 < self.port < 2**16:
            raise ValueError(f"port must be a number from 1 to 65535, not {self.port}")
        if self.family not in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
            raise ValueError(f"family must be socket.AF_INET, socket.AF_INET6 or 0, not {self.family!r}")
        if self.local_addr is not None:
            address = self.local_addr
            if list(map(type, address)) != [str, int]:
                raise TypeError(f"local_addr must be a tuple (host, port) or None, not {address!r}")
            _check_host("local_addr", address[0])
            if not 0 <= address[1] < 2**16:
                raise ValueError(f"the port of local_addr must be a number from 0 to 65535, not {address[1]}")

    def _check_sockets(self) -> None:
        if isinstance(self.sock, ssl.SSLSocket):  # the driver would bypass its TLS
            raise TypeError("sock must be a socket without TLS, not an ssl.SSLSocket: use a wss:// URI")
        if self.sock is not None and self.sock.type != socket.SOCK_STREAM:
            raise ValueError("sock must be a stream socket")
        if self.unix_path is not None:
            check_unix_path(self.unix_path)

    def _check_together(self) -> None:
        proxy = self.explicit_proxy()
        for given in ("unix_path", "sock"):
            if getattr(self, given) is None:
                continue
            for name in (*_OF_TCP, *(("sock",) if given == "unix_path" else ())):
                if getattr(self, name):
                    raise ValueError(f"{name} has no effect with {given}")
            if proxy is not None:
                raise ValueError(f"proxy has no effect with {given}")
        if proxy is not None and self.host is not None and "%" in self.host:
            raise ValueError("host has a zone, which a proxy cannot know")
        if self.proxy_ssl is not None and self.proxy is not True and (proxy is None or not proxy.secure):
            raise ValueError("proxy_ssl is given, but proxy is not an https:// URL")


def _check_host(name: str, host: str) -> None:
    """Raise ValueError unless ``host`` is a name in ASCII or an IP address, without brackets."""
    if host and REG_NAME.issuperset(host) and "%" not in host:
        return
    try:
        IPv6Address(host)
    except ValueError:
        raise ValueError(f"{name} must be a name in ASCII or an IP address, not {host!r}") from None
