"""The authority of a URI, ``host[:port]`` (RFC 3986 §3.2), which is also the value of a Host field."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address

from ..matching import is_host_among

__all__ = ["is_among", "join_authority", "parse_authority", "split_authority"]

#: RFC 3986 §3.2.2: reg-name = *( unreserved / pct-encoded / sub-delims ). An IPv4 address is one, too.
REG_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=")
DIGITS = frozenset("0123456789")


@lru_cache(64)
def parse_authority(text: str) -> tuple[str, int | None]:
    """The host and the port of an authority; the port is None if there is none.

    The host is in lower case, an IPv6 address without brackets. Raises ValueError for a malformed authority,
    and for one with userinfo.
    """
    if text.startswith("["):
        literal, bracket, port = text[1:].partition("]")
        try:
            host = str(IPv6Address(literal))
        except ValueError:  # its text would repeat the address
            host = ""
        # A zone ("%eth0") has a meaning only on the machine of the client.
        if not host or not bracket or "%" in literal:
            raise ValueError("the IPv6 address of the host is malformed")
    else:
        host, colon, port = text.partition(":")
        port = colon + port
        # RFC 9110 §4.2.1: "A recipient that processes such a URI reference [with
        # an empty host] MUST reject it as invalid."
        if not host or not REG_NAME.issuperset(host):
            raise ValueError("the host is malformed")
        host = host.lower()
    return host, _port(port)


def join_authority(host: str, port: int) -> str:
    """``host:port`` for a URI, with an IPv6 address in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_among(authority: str, names: Iterable[str]) -> bool:
    """Whether ``names``, the option ``allowed_hosts``, contain the host of a well-formed ``authority``."""
    return is_host_among(parse_authority(authority)[0], names)


def split_authority(text: str) -> tuple[str, str]:
    """Split the part of a URI after ``scheme://`` into the authority and a target in origin-form.

    RFC 9112 §3.2.1: "If the target URI's path component is empty, the client MUST
    send "/" as the path within the origin-form of request-target."
    """
    authority = text.partition("/")[0].partition("?")[0]
    target = text[len(authority) :]
    return authority, target if target.startswith("/") else f"/{target}"


def _port(text: str) -> int | None:
    """The port in ``:port``. RFC 3986 §3.2.3: port = *DIGIT, so a colon without digits is valid."""
    if text in ("", ":"):
        return None
    if text[0] == ":" and len(text) <= 6 and DIGITS.issuperset(text[1:]) and int(text[1:]) <= 65535:
        return int(text[1:])
    raise ValueError("the port is malformed")
