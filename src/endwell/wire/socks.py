"""The messages of SOCKS 4, 4a and 5 (RFC 1928, RFC 1929) that a client needs to connect, as functions over bytes."""

from __future__ import annotations

from collections.abc import Generator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from ..codes import Retry
from ..errors import InvalidHandshake, ProxyError

__all__ = ["Dialogue", "Step", "socks4", "socks5"]


class Step(NamedTuple):
    """What a dialogue needs to go on."""

    #: The bytes to send.
    output: bytes
    #: The number of bytes of the answer.
    missing: int
    #: Whether the output asks for the connection to the server.
    asks: bool = False


#: A dialogue yields its steps, and gets the answers.
Dialogue = Generator[Step, bytes, None]

#: RFC 1928 §6, the replies other than success. The rules of a proxy do not change by themselves.
_REPLIES = {
    1: ("general SOCKS server failure", Retry.LATER),
    2: ("connection not allowed by ruleset", Retry.NEVER),
    3: ("network unreachable", Retry.LATER),
    4: ("host unreachable", Retry.LATER),
    5: ("connection refused", Retry.LATER),
    6: ("TTL expired", Retry.LATER),
    7: ("command not supported", Retry.NEVER),
    8: ("address type not supported", Retry.NEVER),
}
#: The replies of SOCKS 4 other than success, 90.
_REPLIES_4 = {
    91: ("request rejected or failed", Retry.LATER),
    92: ("the proxy cannot reach the identd of this machine", Retry.NEVER),
    93: ("the identd of this machine reports another user", Retry.NEVER),
}
#: The method that stands for a refusal (RFC 1928 §3).
_NO_ACCEPTABLE_METHOD = 0xFF
#: RFC 1928 §6: the sizes of the addresses by their type; that of a name is in its first byte.
_SIZES = {1: 4, 4: 16}
_NAME = 3


def socks5(host: str, port: int, username: str | None, password: str | None) -> Dialogue:
    """Ask a SOCKS5 proxy for a connection to ``host``, a name or an address.

    Raises :exc:`ProxyError` for a refusal, and :exc:`InvalidHandshake` for an answer that is not SOCKS5.
    """
    methods = b"\x00" if username is None else b"\x00\x02"
    answer = yield Step(bytes((5, len(methods))) + methods, 2)
    _check_version(answer, 5, "SOCKS5")
    method = answer[1]
    if method == _NO_ACCEPTABLE_METHOD:
        asked = "requires credentials" if username is None else "accepts none of the offered methods"
        raise ProxyError(f"it {asked} (SOCKS5 method 255)", retry=Retry.NEVER, reply=method)
    if method not in methods:
        raise InvalidHandshake(f"the proxy chose the SOCKS5 method {method}, which was not offered")
    if method == 2:
        assert username is not None
        name, word = username.encode(), (password or "").encode()
        answer = yield Step(b"\x01" + bytes((len(name),)) + name + bytes((len(word),)) + word, 2)
        # RFC 1929 §2: "A STATUS field of X'00' indicates success." The first byte is not checked: some proxies
        # send 5 for the version of this dialogue, which is 1.
        if answer[1]:
            raise ProxyError(
                f"it refused the credentials (SOCKS5 status {answer[1]})", retry=Retry.NEVER, reply=answer[1]
            )
    answer = yield Step(b"\x05\x01\x00" + _address(host) + port.to_bytes(2, "big"), 2, asks=True)
    _check_version(answer, 5, "SOCKS5")
    _check_reply(answer[1], 0, _REPLIES, "SOCKS5")
    # The address at which the proxy is connected, which is not used. Its first byte may be its length.
    _, kind, first = yield Step(b"", 3)
    size = first + 1 if kind == _NAME else _SIZES.get(kind)
    if size is None:
        raise InvalidHandshake(f"the proxy answered with the SOCKS5 address type {kind}")
    yield Step(b"", size - 1 + 2)


def socks4(host: str, port: int, username: str | None) -> Dialogue:
    """Ask a SOCKS4 proxy for a connection to ``host``: an IPv4 address, or with SOCKS4a a name.

    Raises as :func:`socks5` does.
    """
    user = (username or "").encode() + b"\x00"
    address = _literal(host)
    if isinstance(address, IPv6Address):
        raise ProxyError("SOCKS4 has no IPv6 addresses", retry=Retry.NEVER)
    # SOCKS4a: an address 0.0.0.x announces a name at the end.
    where = b"\x00\x00\x00\x01" if address is None else address.packed
    name = host.encode() + b"\x00" if address is None else b""
    answer = yield Step(b"\x04\x01" + port.to_bytes(2, "big") + where + user + name, 2, asks=True)
    _check_version(answer, 0, "SOCKS4")
    _check_reply(answer[1], 90, _REPLIES_4, "SOCKS4")
    yield Step(b"", 6)  # a port and an address without a meaning


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _address(host: str) -> bytes:
    address = _literal(host)
    if address is not None:
        return bytes((1 if address.version == 4 else 4,)) + address.packed
    if len(host) > 255:  # RFC 1928 §5: the length has one byte
        raise ProxyError("the host name has more than 255 characters", retry=Retry.NEVER)
    return bytes((_NAME, len(host))) + host.encode()


def _check_version(answer: bytes, version: int, protocol: str) -> None:
    if answer[0] != version:
        raise InvalidHandshake(f"the proxy's answer is not {protocol}: it begins with {answer!r}")


def _check_reply(reply: int, success: int, known: dict[int, tuple[str, Retry]], protocol: str) -> None:
    if reply != success:
        meaning, retry = known.get(reply, ("unknown reply", Retry.LATER))
        raise ProxyError(f"{meaning} ({protocol} reply {reply})", retry=retry, reply=reply)
