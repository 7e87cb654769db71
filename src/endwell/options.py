"""Every limit and timeout in one place: unit, default, what happens at it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf
from sys import maxsize
from typing import Any, TypedDict, Unpack

from .matching import Origins, check_hosts, check_origins, check_strings, check_subprotocols

__all__ = ["LEGACY", "Deflate", "OptionKeywords", "Options", "check_keywords"]

#: The protocols before RFC 6455 (which is version "13") that can be spoken: ``docs/howto/legacy.md``.
LEGACY = ("hybi-08", "hybi-07", "hybi-03", "hixie-76", "hixie-75")
_NAMES = ", ".join(f'"{name}"' for name in LEGACY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """Settings of permessage-deflate (RFC 7692).

    The window bits (8 to 15) are 2**bits octets of memory for each direction of each
    connection. Each side holds its own compressor to them without asking; a peer that cannot
    be asked to is not refused. Without context takeover a connection holds no compressor
    between messages, at the price of the ratio.
    """

    #: Largest window of the server's compressor. None: 12 for a server's own, and a client does
    #: not ask for one, because some servers refuse a request that does.
    server_max_window_bits: int | None = None
    #: Largest window of the client's compressor; a server asks for it if the client offers that.
    client_max_window_bits: int = 12
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    #: Messages below this many bytes go out uncompressed.
    min_size: int = 32
    #: zlib's level (1 to 9) and memory level (1 to 9). Precedent: websockets uses a window
    #: of 12 bits and memory level 5, after measuring; level 6 is zlib's own default. Measured
    #: again (docs/explanation/performance.md): 15 bits and level 8 make JSON 6 % shorter, for five
    #: times the memory; level 3 makes it 10 % longer, for a fifth less of processor time.
    level: int = 6
    mem_level: int = 5

    def __post_init__(self) -> None:
        bounds = {
            "server_max_window_bits": (8, 15),
            "client_max_window_bits": (8, 15),
            "level": (1, 9),
            "mem_level": (1, 9),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is None and name == "server_max_window_bits":
                continue
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be between {low} and {high}, not {value!r}")


def _check_legacy(versions: Sequence[str]) -> Sequence[str]:
    for version in (checked := check_strings("legacy", versions)):
        if version not in LEGACY:
            known = ", ".join(map(repr, LEGACY))
            raise ValueError(f"legacy must be True or some of {known}, not {version!r}")
    return checked


#: What checks an option that is a sequence, and gives it as a tuple, which cannot change afterwards.
_SEQUENCES: Mapping[str, Callable[[Any], Any]] = {
    "subprotocols": check_subprotocols,
    "origins": check_origins,
    "allowed_hosts": check_hosts,
    "legacy": _check_legacy,
}


def _option(default: Any, unit: str, consequence: str, *, zero: bool = False, none: bool = True) -> Any:
    """A field whose documentation travels with it: ``docs/howto/limits.md`` is made from these."""
    return field(
        default=default, metadata={"unit": unit, "consequence": consequence, "zero": zero, "none": none}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a connection behaves. Frozen, so that one object can serve many connections.

    A timeout or size of None switches it off, where that is allowed. Every field
    can be given as a keyword to ``Server(...)`` and ``connect(...)``.
    """

    # -- time, in seconds -----------------------------------------------------
    open_timeout: float | None = _option(
        10.0,
        "s",
        "the opening handshake, absolute from the TCP connection on, for a client from its call on, with the name, "
        "all addresses and redirects; then the connection is cut; a client raises HandshakeFailed. Hooks and pages "
        "of a server have as long again, from the end of the request on; then the answer is 503, and a WARNING names the route",
    )
    close_timeout: float = _option(
        10.0, "s", "the closing handshake, and then the end of TCP; then the connection is cut", none=False
    )
    answer_timeout: float = _option(
        1.0,
        "s",
        "how long the answer to the peer's Close waits for the handler to come back from the messages that came "
        "before the Close; 0: it does not wait",
        zero=True,
        none=False,
    )
    linger_timeout: float = _option(
        1.0,
        "s",
        "how long the end of TCP is waited for after the last Close; then the ending is told. A client cuts the "
        "connection then; a server reads and discards until `close_timeout`",
        none=False,
    )
    ping_interval: float | None = _option(
        20.0, "s", "so often a ping is sent, whatever else flows; None: no keepalive"
    )
    ping_timeout: float | None = _option(
        20.0,
        "s",
        "so long after a ping, and `ping_interval` more after anything else, a peer that has said nothing "
        "since is given up: KEEPALIVE_TIMEOUT",
    )
    write_timeout: float | None = _option(
        30.0, "s", "a peer that takes no data for so long ends the connection: WRITE_TIMEOUT"
    )
    idle_timeout: float | None = _option(
        None, "s", "no message either way for so long: Close 1001, IDLE_TIMEOUT"
    )
    max_lifetime: float | None = _option(
        None, "s", "open for so long, or up to a tenth less, at random: Close 1012, LIFETIME_REACHED"
    )

    # -- memory ---------------------------------------------------------------
    max_size: int | None = _option(
        2**20, "bytes", "a message above it, after decompression, ends the connection with 1009"
    )
    max_queue: int = _option(
        16, "messages", "received and not yet taken; at it, reading from the socket pauses", none=False
    )
    write_limit: int = _option(
        2**16, "bytes", "not yet taken by the system; above it, send() waits", zero=True, none=False
    )
    max_line: int = _option(8192, "bytes", "one line of an HTTP head; above it 431", none=False)
    max_headers: int = _option(128, "fields", "header fields of an HTTP head; above it 431", none=False)
    max_head: int = _option(32768, "bytes", "a whole HTTP head; above it 431", none=False)
    max_refusal: int = _option(
        65536, "bytes", "of the body of a refused handshake that the client keeps", zero=True, none=False
    )

    # -- a server's connections, whether WebSocket or HTTP -----------------------
    max_connections: int | None = _option(
        None, "connections", "a server's connections at once; to one more the answer is 503"
    )
    max_connections_per_address: int | None = _option(
        None,
        "connections",
        "the same for one address, or one /64 of IPv6; not for a server behind a proxy, "
        "where all come from the same",
    )

    # -- what is negotiated ---------------------------------------------------
    compression: Deflate | None = _option(
        Deflate(), "", "permessage-deflate settings; None: not offered, not accepted"
    )
    subprotocols: Sequence[str] = _option(
        (), "", "offered by a client, supported by a server; both in order of preference"
    )
    origins: Origins | None = _option(
        None,
        "",
        'origins of pages that a server accepts, such as "https://example.com", "https://*.example.com" (all '
        "below it) or a re.Pattern that matches the whole Origin; or one function `allowed(origin) -> bool`, "
        'which must not block. None means the scheme and Host of the request, ["*"] means any; a request '
        "without Origin is not from a page and passes",
    )
    allowed_hosts: Sequence[str] | None = _option(
        None,
        "",
        'hosts that a server answers to, such as "example.com", "*.example.com" (those below it), "[::1]" or '
        '"10.0.0.0/8", with any port; to another Host the answer is 421. None: to all, so that a page whose '
        "name is made to point at a server on a private network is of the server's own origin (DNS rebinding)",
    )
    version: str = _option("13", "", f'the protocol that a client speaks: "13" (RFC 6455), {_NAMES}')
    legacy: bool | Sequence[str] = _option(
        (), "", f"old protocols that a server speaks beside 13: {_NAMES}; or True for all"
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            if not option.metadata["unit"]:
                continue
            value = getattr(self, option.name)
            if value is None:
                if not option.metadata["none"]:
                    raise ValueError(f"{option.name} must not be None")
                continue
            # Only time has fractions; and None, not infinity, switches an option off.
            number = int | float if option.metadata["unit"] == "s" else int
            if isinstance(value, bool) or not isinstance(value, number):
                raise TypeError(f"{option.name} must be a number of {option.metadata['unit']}, not {value!r}")
            if not (0 < value < inf or (value == 0 and option.metadata["zero"])):
                raise ValueError(f"{option.name} must be positive and finite, not {value!r}")
            if number is int and value > maxsize:
                raise ValueError(f"{option.name} must be at most sys.maxsize, not {value!r}")
        if isinstance(self.legacy, bool):
            object.__setattr__(self, "legacy", LEGACY if self.legacy else ())
        for name, check in _SEQUENCES.items():
            value = getattr(self, name)
            if value is not None or name not in ("origins", "allowed_hosts"):
                object.__setattr__(self, name, check(value))
        if self.compression is not None and not isinstance(self.compression, Deflate):
            raise TypeError(f"compression must be a Deflate or None, not {self.compression!r}")
        if self.version not in ("13", *LEGACY):
            known = ", ".join(map(repr, ("13", *LEGACY)))
            raise ValueError(f"version must be one of {known}, not {self.version!r}")

    @property
    def spoken(self) -> Sequence[str]:
        """:attr:`legacy`, spelled out."""
        assert not isinstance(self.legacy, bool)
        return self.legacy

    def replace(self, **changes: Unpack[OptionKeywords]) -> Options:
        """A copy with ``changes``. Raises TypeError for a name that is no option, with the nearest one."""
        check_keywords("Options.replace", changes, OptionKeywords.__optional_keys__)
        return replace(self, **changes) if changes else self


class OptionKeywords(TypedDict, total=False):
    """The fields of :class:`Options` as keywords (a test keeps the two equal)."""

    open_timeout: float | None
    close_timeout: float
    answer_timeout: float
    linger_timeout: float
    ping_interval: float | None
    ping_timeout: float | None
    write_timeout: float | None
    idle_timeout: float | None
    max_lifetime: float | None
    max_size: int | None
    max_queue: int
    write_limit: int
    max_line: int
    max_headers: int
    max_head: int
    max_refusal: int
    max_connections: int | None
    max_connections_per_address: int | None
    compression: Deflate | None
    subprotocols: Sequence[str]
    origins: Origins | None
    allowed_hosts: Sequence[str] | None
    version: str
    legacy: bool | Sequence[str]


#: Names of the same in websockets and aiohttp, which are near to another name here.
_ELSEWHERE = {
    "extra_headers": "additional_headers",
    "headers": "additional_headers",
    "heartbeat": "ping_interval",
    "ssl_context": "ssl",
    "timeout": "open_timeout",
}


def check_keywords(called: str, keywords: Iterable[str], known: Collection[str], hint: str = "") -> None:
    """Raise TypeError for one of the ``keywords`` of a call that is none of ``known``; it names the nearest of those.

    Without it the error would name a class that the application has not called.
    """
    for keyword in keywords:
        if keyword not in known:
            from difflib import get_close_matches  # only an error needs it

            elsewhere = _ELSEWHERE.get(keyword)
            near = [elsewhere] if elsewhere in known else get_close_matches(keyword, sorted(known), 1)
            hint = hint or (f"; did you mean {near[0]!r}?" if near else "")
            raise TypeError(f"{called}() got an unexpected keyword argument {keyword!r}{hint}")


def option_table() -> list[Mapping[str, str]]:
    """One row for each option: name, unit, default, consequence. The docs are made from it."""
    return [
        {
            "name": option.name,
            "unit": option.metadata["unit"],
            "default": str(option.default),
            "consequence": option.metadata["consequence"],
        }
        for option in fields(Options)
    ]
