"""The proxy that the environment variables or the system choose for a URI."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network

from ..codes import Retry
from ..errors import ProxyError
from ..matching import parse_host
from ..protocol.proxy import ProxyURI, parse_proxy
from ..protocol.uri import WebSocketURI, ascii_host

__all__ = ["environment_proxy"]

#: Whose proxy is used, for wss and for ws; the first that there is. Precedent: websockets. RFC 6455 §4.1
#: (proxy usage): "it is RECOMMENDED that implementations use a SOCKS5 proxy", and if there is none, "the proxy
#: for HTTPS connections over the proxy for HTTP connections".
_WSS = ("wss", "socks", "https")
_WS = ("ws", "socks", "https", "http")


def environment_proxy(uri: WebSocketURI) -> ProxyURI | None:
    """Return the proxy for ``uri``; None for a direct connection.

    Raises :exc:`ProxyError` if the URL of the proxy is malformed.
    """
    # A proxy cannot reach this machine's loopback addresses, and its own are not meant. Precedent: browsers and
    # Go; websockets asks a proxy. The zone of an address has a meaning on this machine only.
    if uri.zone is not None or _is_loopback(uri.host):
        return None
    proxies = _variables()
    if proxies:
        if _is_excepted(uri.host, uri.port, _variable("no") or ""):
            return None
    elif sys.platform in ("darwin", "win32"):
        proxies = _of_system(uri)
    for name in _WSS if uri.secure else _WS:
        if url := proxies.get(name):
            return _parsed(name, url)
    return None


def _variables() -> dict[str, str]:
    return {name: url for name in ("wss", *_WS) if (url := _variable(name))}


def _variable(name: str) -> str | None:
    """The value of ``name_proxy``, else of ``NAME_PROXY``. An empty one in lower case hides the other."""
    value = os.environ.get(f"{name}_proxy")
    if value is not None:
        return value or None
    # httpoxy (CVE-2016-1000110): in a CGI program, HTTP_PROXY is the field "Proxy" of the client's request.
    if name == "http" and "REQUEST_METHOD" in os.environ:
        return None
    return os.environ.get(f"{name.upper()}_PROXY") or None


def _of_system(uri: WebSocketURI) -> Mapping[str, str]:
    from urllib.request import getproxies, proxy_bypass

    return {} if proxy_bypass(f"{uri.host}:{uri.port}") else getproxies()


def _parsed(name: str, url: str) -> ProxyURI:
    scheme = "http"
    if name == "socks":
        # macOS gives "http://" for its SOCKS proxy.
        scheme, url = "socks5h", url.removeprefix("http://")
    try:
        return parse_proxy(url, f"the {name} proxy of the environment", scheme)
    except ValueError as error:
        raise ProxyError(str(error), retry=Retry.NEVER) from None


def _is_loopback(host: str) -> bool:
    host = host.rstrip(".")
    address = parse_host(host)
    if address is None:
        # RFC 6761 §6.3: names below "localhost" are resolved to a loopback address.
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    """Whether NO_PROXY, a list of names, addresses and networks, contains ``host``."""
    return any(
        entry == "*" or _matches(host.rstrip("."), port, entry)
        for entry in exceptions.lower().replace(",", " ").split()
    )


def _matches(host: str, port: int, entry: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        name, colon, number = entry.rpartition(":")
        if colon:
            if number != str(port):
                return False
            entry = name
        name = entry.removeprefix("*").strip(".")
        with suppress(ValueError):  # an entry that is no name
            name = ascii_host(name)
        return host == name or (bool(name) and host.endswith(f".{name}"))
    name, bracket, number = entry.removeprefix("[").partition("]")
    if not bracket and entry.count(":") == 1:
        name, _, number = entry.partition(":")
    try:
        return address in ip_network(name, strict=False) and number.lstrip(":") in ("", str(port))
    except ValueError:
        return False  # an entry that is no address
