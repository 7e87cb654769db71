"""The options `origins`, `allowed_hosts` and `subprotocols`: which values are valid, and what they match."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

from .http import TOKEN

__all__ = [
    "Origins",
    "check_hosts",
    "check_origins",
    "check_strings",
    "check_subprotocols",
    "is_host_among",
    "is_origin_among",
    "normal_origin",
    "parse_host",
]

#: The values of ``origins`` other than None.
Origins: TypeAlias = Sequence[str | re.Pattern[str]] | Callable[[str], bool]

#: RFC 6454 §6.2: scheme, "://", host, and the port unless it is the default port. In lower case.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\*\.)?([a-z0-9._~-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
#: Other values. Browsers send "null" for a sandboxed page and "file://" for a local file.
_SPECIAL = frozenset(("*", "null", "file://"))
_RIGHT_ORIGINS = (
    'such as "https://example.com", "http://localhost:8080", "https://*.example.com" (all subdomains), '
    '"null" or "*" (any), or a re.Pattern that matches the whole Origin'
)
_LABELS = re.compile(r"[a-z0-9._~-]*[a-z0-9_-]", re.ASCII)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
#: A WebSocket is opened by an HTTP request, so ws and wss name the same origin as http and https.
_SAME_SCHEMES = {"ws": "http", "wss": "https"}

#: A name, "*." before a name (its subdomains), or an IPv6 address in brackets.
_HOST = re.compile(r"(\*\.)?[\w-][\w.-]*|\[[0-9a-fA-F:.]+\]", re.ASCII)
_RIGHT_HOSTS = 'such as "example.com", "*.example.com", "[::1]" or "10.0.0.0/8"'


# --- origins -----------------------------------------------------------------


def check_origins(origins: Origins) -> Origins:
    """Check the option `origins`. The result is a tuple, or the callable.

    Raises TypeError for any other type, and ValueError for a string that cannot equal an origin.
    """
    if not isinstance(origins, Collection) and callable(origins):
        called = getattr(origins, "__call__", None)  # noqa: B004 - an object with __call__
        if inspect.iscoroutinefunction(origins) or inspect.iscoroutinefunction(called):
            raise TypeError(
                "origins must be a plain function: the result of a coroutine function is always true, so every "
                "origin would be allowed"
            )
        return origins
    if isinstance(origins, re.Pattern):
        raise TypeError(f"origins must be a sequence: write [{origins!r}]")
    checked = check_strings("origins", origins, re.Pattern)
    for origin in checked:
        if isinstance(origin, re.Pattern):
            if isinstance(origin.pattern, bytes):
                raise TypeError(f"origins must have patterns for str, not {origin!r}")
        elif origin not in _SPECIAL and not _is_origin(origin.lower()):
            raise ValueError(
                f"origins must be a scheme, a host and an optional port, {_RIGHT_ORIGINS}; not {origin!r}"
            )
    _refuse_repeats(
        "origins", checked, [normal_origin(each) if isinstance(each, str) else each for each in checked]
    )
    return checked


def _is_origin(text: str) -> bool:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return False
    wildcard, host, port = match.groups()
    if host.startswith("["):
        # RFC 6454 §6.2 leaves the form open; browsers send the shortest one (RFC 5952).
        try:
            host_matches = not wildcard and f"[{IPv6Address(host[1:-1])}]" == host
        except ValueError:
            return False
    else:
        host_matches = ".." not in host and not host.startswith(".")
    # No browser sends leading zeros.
    return host_matches and (port is None or (port[1] != "0" and int(port[1:]) <= 65535))


def normal_origin(origin: str) -> str:
    """An origin in the form in which origins are compared.

    RFC 6454 §4: scheme and host are in lower case, and the default port is left out. An origin has no path,
    so no part of it is case-sensitive.
    """
    scheme, colon, rest = origin.lower().partition("://")
    scheme = _SAME_SCHEMES.get(scheme, scheme)
    return f"{scheme}{colon}{rest.removesuffix(_DEFAULT_PORTS.get(scheme, ' '))}"


def is_origin_among(origin: str, allowed: Origins) -> bool:
    """Whether the option `origins` allows an origin. Raises TypeError if a callable returns no bool."""
    if callable(allowed):
        answer = allowed(origin)
        # Only a bool counts: an object that is always true, such as an unawaited coroutine, would pass.
        if not isinstance(answer, bool):
            raise TypeError(f"origins: {allowed!r} must return True or False, not {type(answer).__name__}")
        return answer
    plain = normal_origin(origin)
    return any(_matches_origin(each, origin, plain) for each in allowed)


def _matches_origin(allowed: str | re.Pattern[str], origin: str, plain: str) -> bool:
    if isinstance(allowed, re.Pattern):
        return allowed.fullmatch(origin) is not None
    if allowed == "*":
        return True
    allowed = normal_origin(allowed)
    scheme, wildcard, below = allowed.partition("://*")
    if not wildcard:
        return plain == allowed
    if not (plain.startswith(f"{scheme}://") and plain.endswith(below)):
        return False
    # The text that "*" matches must be host labels, because a client can send any Origin.
    return _LABELS.fullmatch(plain[len(scheme) + 3 : -len(below)]) is not None


# --- hosts -------------------------------------------------------------------


def check_hosts(hosts: Sequence[str]) -> Sequence[str]:
    """Check the option `allowed_hosts`, and return it as a tuple.

    Raises TypeError, and ValueError for a string that cannot equal a host.
    """
    checked = check_strings("allowed_hosts", hosts)
    for host in checked:
        try:
            valid = network(host) is not None or (_HOST.fullmatch(host) is not None and _is_address(host))
        except ValueError as exc:
            raise ValueError(
                f"allowed_hosts must be names without scheme and port, or networks, {_RIGHT_HOSTS}; {exc}"
            ) from None
        if not valid:
            raise ValueError(
                f"allowed_hosts must be names without scheme and port, or networks, {_RIGHT_HOSTS}; not {host!r}"
            )
    _refuse_repeats("allowed_hosts", checked, [host.lower() for host in checked])
    return checked


def _is_address(host: str) -> bool:
    """Whether a text in brackets is an IPv6 address; True for any other text."""
    return not host.startswith("[") or bool(IPv6Address(host[1:-1]).compressed)


@lru_cache(256)
def network(text: str) -> IPv4Network | IPv6Network | None:
    """The network that a text names in CIDR notation, with or without brackets; None for a host name.

    Raises ValueError for a network that is malformed or has host bits set.
    """
    return ip_network(text.replace("[", "").replace("]", "")) if "/" in text else None


def is_host_among(host: str, names: Iterable[str]) -> bool:
    """Whether a host equals one of `names`, is a subdomain of a `*.` name, or is in one of the networks.

    `host` is in lower case; an IPv6 address has no brackets.
    """
    return any(_is_host(host, name.lower()) for name in names)


def _is_host(host: str, name: str) -> bool:
    if "/" in name:
        try:
            # An IPv4 address is never in an IPv6 network, and the reverse.
            return ip_address(host) in (network(name) or ())
        except ValueError:  # the host is a name
            return False
    if name.startswith("*."):
        return host.endswith(name[1:])
    return host == (str(IPv6Address(name[1:-1])) if name.startswith("[") else name)


# --- proxies ---------------------------------------------------------------


def check_proxies(proxies: Sequence[str], name: str = "proxy_headers") -> Sequence[str]:
    """Check the option `proxy_headers` or another one like it, and return it as a tuple.

    Raises TypeError and ValueError.
    """
    checked = check_strings(name, proxies)
    for text in checked:
        if text == "unix":
            continue
        try:
            ip_network(text)
        except ValueError as exc:
            raise ValueError(
                f'{name} must be addresses or networks, such as ["10.0.0.0/8", "::1"], or "unix"; {exc}'
            ) from None
    return checked


@lru_cache(64)
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)


def is_address_among(address: object, proxies: Sequence[str]) -> bool:
    """Whether an address of the socket module is one of the networks, or, with `"unix"`, a Unix socket."""
    if not isinstance(address, tuple):
        return "unix" in proxies
    host = parse_host(address[0])
    return host is not None and any(host in _network(text) for text in proxies if text != "unix")


def parse_host(text: str) -> IPv4Address | IPv6Address | None:
    """The address that ``text`` is, without a zone; None if it is none.

    That of an IPv4 client of a socket for both families is its IPv4 address.
    """
    try:
        host = ip_address(text)
    except ValueError:
        return None
    return (host.ipv4_mapped or IPv6Address(host.packed)) if isinstance(host, IPv6Address) else host


# --- subprotocols, and checks that all three options share ---------------------


def check_subprotocols(names: Sequence[str]) -> Sequence[str]:
    """Check the option `subprotocols`, and return it as a tuple. Raises TypeError and ValueError."""
    checked = check_strings("subprotocols", names)
    for name in checked:
        # RFC 6455 §4.1, item 10: "The elements that comprise this value MUST be non-empty strings with
        # characters in the range U+0021 to U+007E not including separator characters".
        if not (name and TOKEN.issuperset(name)):
            raise ValueError(
                f'subprotocols must be tokens without repeats, such as ["chat", "v2.chat"]; not {name!r}'
            )
    return checked


def check_strings(name: str, values: object, other: type | None = None) -> tuple[Any, ...]:
    """Return a collection of strings as a tuple.

    Raises TypeError for an element of another type than str or `other`, and ValueError for a repeated one.
    """
    if isinstance(values, str):
        raise TypeError(f"{name} must be a sequence of strings, not one string: write [{values!r}]")
    if not isinstance(values, Collection) or isinstance(values, bytes | bytearray | memoryview):
        raise TypeError(f"{name} must be a sequence of strings, not {values!r}")
    for value in values:
        if not isinstance(value, str) and not (other is not None and isinstance(value, other)):
            raise TypeError(f"{name} must be a sequence of strings, but contains {value!r}")
    checked = tuple(values)
    _refuse_repeats(name, checked, checked)
    return checked


def _refuse_repeats(name: str, values: Sequence[object], compared: Sequence[object]) -> None:
    for index, value in enumerate(compared):
        if value in compared[:index]:
            raise ValueError(f"{name} must be without repeats, but contains {values[index]!r} twice")
