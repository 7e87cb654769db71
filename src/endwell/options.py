"""Every limit and timeout, with its unit, its default and what happens when it is reached."""

# size: one table of all options, with their documentation.

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf
from sys import maxsize
from typing import Any, TypeAlias, TypedDict, Unpack

from .ending import Ending
from .limit import Limit, check_limits
from .matching import (
    Origins,
    check_hosts,
    check_origins,
    check_proxies,
    check_strings,
    check_subprotocols,
)

__all__ = ["LEGACY", "Deflate", "OptionKeywords", "Options", "RecorderOption", "check_keywords"]

#: The values of the option ``recorder``.
RecorderOption: TypeAlias = bool | str | os.PathLike[str] | Callable[[Ending], object]

#: The supported protocols that are older than RFC 6455 (which is version "13"): ``docs/howto/legacy.md``.
LEGACY = ("hybi-08", "hybi-07", "hybi-03", "hixie-76", "hixie-75")
_NAMES = ", ".join(f'"{name}"' for name in LEGACY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """Settings of permessage-deflate (RFC 7692).

    A window of `n` bits (8 to 15) costs 2**n bytes of memory for each direction of each connection.
    Each side always limits its own compressor to the configured window. A peer that cannot limit its
    compressor is accepted all the same.

    With "no context takeover", a connection keeps no compressor between messages. That saves memory and
    makes messages longer.

    Raises:
        ValueError: A window or a level is outside its range.

    Example:
        ```python
        import asyncio

        from endwell import Deflate, Server, connect


        compression = Deflate(min_size=256, level=3)
        server = Server(compression=compression)


        @server.websocket("/")
        async def echo(ws):
            async for message in ws:
                await ws.send(message)


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/", compression=compression) as ws:
                    await ws.send("a" * 1000)
                    print(len(await ws.recv()))


        asyncio.run(main())
        ```
    """

    #: Largest window of the server's compressor, in bits, 8 to 15. Default: None. With None, a server uses
    #: 12 bits, and a client does not ask for a limit, because some servers refuse a request that does.
    server_max_window_bits: int | None = None
    #: Largest window of the client's compressor, in bits, 8 to 15. Default: 12. A server asks for it if the
    #: client's offer allows that.
    client_max_window_bits: int = 12
    #: Whether the server starts each message with an empty window. Default: False.
    server_no_context_takeover: bool = False
    #: Whether the client starts each message with an empty window. Default: False.
    client_no_context_takeover: bool = False
    #: Messages shorter than this number of bytes are sent uncompressed. Default: 32.
    min_size: int = 32
    #: zlib's compression level, 1 to 9. Default: 6, which is zlib's own default. Measured
    #: (docs/explanation/performance.md): level 3 makes JSON 10 % longer and takes a fifth less processor
    #: time.
    level: int = 6
    #: zlib's memory level, 1 to 9. Default: 5. Precedent: `websockets` uses a window of 12 bits and memory
    #: level 5, after measuring. Measured again (docs/explanation/performance.md): 15 bits and memory level 8
    #: make JSON 6 % shorter and take five times the memory.
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


def _check_recorder(value: Any) -> Any:
    """Return the option ``recorder``, with a path as an absolute str. Raises TypeError and ValueError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        if not isinstance(path, str):
            raise TypeError(f"recorder must be a str, not {path!r}")
        if not path or "\0" in path:
            raise ValueError(f"recorder must be the path of a directory, not {path!r}")
        # The process may change its directory later. Precedent: logging.FileHandler.
        return os.path.abspath(path)
    if not callable(value) or inspect.iscoroutinefunction(value):
        raise TypeError(f"recorder must be a bool, a path or a plain function, not {value!r}")
    return value


#: For each option that is a sequence: the function that checks it and returns it as an immutable tuple.
_SEQUENCES: Mapping[str, Callable[[Any], Any]] = {
    "subprotocols": check_subprotocols,
    "origins": check_origins,
    "allowed_hosts": check_hosts,
    "legacy": _check_legacy,
    "proxy_headers": check_proxies,
    "limits": check_limits,
}


def _option(
    default: Any, unit: str, consequence: str, *, zero: bool = False, none: bool = True, used_by: str = "both"
) -> Any:
    """A field that carries its documentation; ``docs/reference/options.md`` is generated from it.

    ``used_by`` is "server", "client" or "both".
    """
    says = {"unit": unit, "consequence": consequence, "zero": zero, "none": none, "used_by": used_by}
    return field(default=default, metadata=says)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The limits, timeouts and negotiated features of a connection.

    Each field is also a keyword of `Server(...)` and `connect(...)`. An `Options` object is frozen, so
    several connections can share it. None switches a timeout or a limit off, where None is allowed.
    The page "Options" lists each field with its unit, its default, whether a server or a client uses it, and
    what happens when it is reached. The side that does not use a field ignores it.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is out of range, or None is not allowed for this field.

    Example:
        ```python
        from endwell import Options

        options = Options(max_size=2**16, idle_timeout=60)
        slower = options.replace(close_timeout=30)
        print(slower.max_size, slower.close_timeout)
        ```
    """

    # -- time, in seconds -----------------------------------------------------
    open_timeout: float | None = _option(
        10.0,
        "s",
        "time for the opening handshake. A server counts from the TCP connection, and aborts the connection at the "
        "deadline. A client counts from the call of `connect()`, including name resolution, all addresses and "
        "redirects, and raises HandshakeError. A server's hooks and pages get `open_timeout` once more, counted from "
        "the end of the request; at that deadline the answer is 503 and a WARNING names the route",
    )
    body_timeout: float | None = _option(
        30.0,
        "s",
        "time for the whole body of an HTTP request, from when the handler asks for it; at the deadline the answer is "
        "408",
        used_by="server",
    )
    keep_alive_timeout: float | None = _option(
        5.0,
        "s",
        "how long a server waits for another HTTP request after a response; then it closes the connection. None: each "
        "connection has one HTTP request. It limits no WebSocket: for those there is `idle_timeout`",
        used_by="server",
    )
    close_timeout: float = _option(
        10.0,
        "s",
        "time for the peer's Close, and after it the same time for the end of TCP; at the deadline the connection is "
        "aborted",
        none=False,
    )
    answer_timeout: float = _option(
        1.0,
        "s",
        "how long the answer to the peer's Close waits for the handler to finish the messages that arrived before "
        "the Close; 0: the answer is sent immediately",
        zero=True,
        none=False,
    )
    linger_timeout: float = _option(
        1.0,
        "s",
        "how long the connection waits for the end of TCP after the last Close. After that the ending is reported: a "
        "client aborts the connection, and a server reads and discards data until `close_timeout`",
        none=False,
    )
    ping_interval: float | None = _option(
        20.0, "s", "interval between pings, which are sent even while messages flow; None: no keepalive"
    )
    ping_timeout: float | None = _option(
        20.0,
        "s",
        "the connection is closed (KEEPALIVE_TIMEOUT) when nothing arrives within `ping_timeout` of a ping and "
        "nothing within `ping_interval + ping_timeout` of the last data; None: pings only measure the latency",
    )
    write_timeout: float | None = _option(
        30.0,
        "s",
        "the connection is closed (WRITE_TIMEOUT) when data waits to be sent and the peer accepts none for this time",
    )
    idle_timeout: float | None = _option(
        None,
        "s",
        "the connection is closed with 1001 (IDLE_TIMEOUT) when no message is sent or received for this time",
    )
    stale_after: float | None = _option(
        None,
        "s",
        "the connection is closed with 1001 (IDLE_TIMEOUT) when no message is received for this time, whatever is "
        "sent; the time while reading pauses because the application is busy does not count",
    )
    max_lifetime: float | None = _option(
        None,
        "s",
        "the connection is closed with 1012 (LIFETIME_REACHED) this long after it opened, or up to 10 % sooner, at "
        "random",
    )

    # -- memory ---------------------------------------------------------------
    max_size: int | None = _option(
        2**20,
        "bytes",
        "largest message received, after decompression; a larger one closes the connection with 1009",
    )
    max_queue: int = _option(
        16,
        "messages",
        "messages received that the application has not read yet; at this number, reading from the socket pauses",
        none=False,
    )
    write_limit: int = _option(
        2**16,
        "bytes",
        "bytes that wait for the kernel's send buffer; above it, `send()` waits",
        zero=True,
        none=False,
    )
    max_line: int = _option(
        8192,
        "bytes",
        "longest line of an HTTP request or response head; above it a server answers 431",
        none=False,
    )
    max_headers: int = _option(
        128, "fields", "header fields of an HTTP head; above it a server answers 431", none=False
    )
    max_head: int = _option(
        32768, "bytes", "size of a whole HTTP head; above it a server answers 431", none=False
    )
    max_body: int | None = _option(
        2**20,
        "bytes",
        "largest body of an HTTP request that a server reads for a handler; a larger one is answered with 413",
        used_by="server",
    )
    max_refusal: int = _option(
        65536,
        "bytes",
        "bytes that a client keeps of the response body when the server refuses the handshake",
        zero=True,
        none=False,
        used_by="client",
    )

    # -- a server's connections, whether WebSocket or HTTP -----------------------
    max_connections: int | None = _option(
        None,
        "connections",
        "open connections of a server, in all workers and in all processes that a bus connects; further connections are "
        "answered with 503",
        used_by="server",
    )
    max_connections_per_address: int | None = _option(
        None,
        "connections",
        "open connections of one process from one IPv4 address or one IPv6 /64; further connections are answered with "
        "503. Not useful behind a proxy, where all connections come from the proxy's address",
        used_by="server",
    )

    limits: Limit | Sequence[Limit] = _option(
        (),
        "",
        "`endwell.Limit` objects: how fast a client may send messages, and whether what exceeds that waits, is dropped or "
        "closes the connection with 1008",
        used_by="server",
    )

    recorder: RecorderOption = _option(
        False,
        "",
        "whether the last cues of each connection are kept, about 600 bytes for each, so that an abnormal ending has "
        "them as `Ending.record`. A path: the endings that have a record are also written to this directory, one JSON "
        "file each; the newest 1,000 files are kept. A function `recorder(ending)`: it is called with each of these "
        "endings, in the thread of the event loop",
    )

    # -- what is negotiated ---------------------------------------------------
    compression: Deflate | None = _option(
        Deflate(), "", "settings of permessage-deflate; None: compression is neither offered nor accepted"
    )
    subprotocols: Sequence[str] = _option(
        (), "", "subprotocols that a client offers or a server supports, in order of preference"
    )
    origins: Origins | None = _option(
        None,
        "",
        'page origins that a server accepts: "https://example.com", "https://*.example.com" (all subdomains), a '
        "re.Pattern that matches the whole Origin, or one function `allowed(origin) -> bool`, which must not block. "
        'None: only the scheme and Host of the request; ["*"]: any origin. A request without Origin does not come '
        "from a page and is accepted. Other origins are answered with 403",
        used_by="server",
    )
    allowed_hosts: Sequence[str] | None = _option(
        None,
        "",
        'hosts that a server serves: "example.com", "*.example.com" (all subdomains), "[::1]" or "10.0.0.0/8", with '
        "any port; a request for another Host is answered with 421. None: all hosts. That allows DNS rebinding: an "
        "attacker's name that resolves to a server on a private network makes a page same-origin with that server",
        used_by="server",
    )
    proxy_headers: Sequence[str] = _option(
        (),
        "",
        'addresses and networks of proxies, such as "10.0.0.0/8" or "::1", and "unix" for proxies on a Unix socket. '
        "`X-Forwarded-For`, `-Proto` and `-Host`, and `Forwarded`, are believed from these addresses only; then "
        "`remote_address`, `secure`, the Host and the check of the Origin are those of the client. From other addresses "
        "they are ignored",
        used_by="server",
    )
    proxy_protocol: bool = _option(
        False,
        "",
        "whether each connection begins with the preamble of HAProxy's PROXY protocol, version 1 or 2, before TLS; "
        "`remote_address` is the client's. A connection without it is aborted. Every peer that reaches the port can "
        "claim any address, so only the proxy may reach it",
        used_by="server",
    )
    version: str = _option(
        "13",
        "",
        f'protocol version that a client uses: "13" (RFC 6455), {_NAMES}',
        used_by="client",
    )
    legacy: bool | Sequence[str] = _option(
        (),
        "",
        f"old protocol versions that a server accepts besides 13: {_NAMES}; True for all",
        used_by="server",
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
            # Only times may be fractions. None switches an option off; infinity is refused.
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
        object.__setattr__(self, "recorder", _check_recorder(self.recorder))
        if not isinstance(self.proxy_protocol, bool):
            raise TypeError(f"proxy_protocol must be True or False, not {self.proxy_protocol!r}")
        if self.compression is not None and not isinstance(self.compression, Deflate):
            raise TypeError(f"compression must be a Deflate or None, not {self.compression!r}")
        if self.version not in ("13", *LEGACY):
            known = ", ".join(map(repr, ("13", *LEGACY)))
            raise ValueError(f"version must be one of {known}, not {self.version!r}")

    @property
    def spoken(self) -> Sequence[str]:
        """The names of the enabled protocols that are older than RFC 6455, such as ``"hixie-76"``.

        These are the names in `legacy`, all five names if `legacy` was given as True, or none.
        """
        assert not isinstance(self.legacy, bool)
        return self.legacy

    def replace(self, **changes: Unpack[OptionKeywords]) -> Options:
        """A copy of these options with some fields changed.

        Args:
            **changes: Fields of `Options` with their new values.

        Raises:
            TypeError: A keyword is not the name of an option (the text names the most similar option), or its
                value has the wrong type.
            ValueError: A value is out of range.
        """
        check_keywords("Options.replace", changes, OptionKeywords.__optional_keys__)
        return replace(self, **changes) if changes else self


class OptionKeywords(TypedDict, total=False):
    """The fields of `Options` as keyword arguments (a test keeps the two equal)."""

    open_timeout: float | None
    body_timeout: float | None
    keep_alive_timeout: float | None
    close_timeout: float
    answer_timeout: float
    linger_timeout: float
    ping_interval: float | None
    ping_timeout: float | None
    write_timeout: float | None
    idle_timeout: float | None
    stale_after: float | None
    max_lifetime: float | None
    max_size: int | None
    max_queue: int
    write_limit: int
    max_line: int
    max_headers: int
    max_head: int
    max_body: int | None
    max_refusal: int
    max_connections: int | None
    max_connections_per_address: int | None
    limits: Limit | Sequence[Limit]
    recorder: RecorderOption
    compression: Deflate | None
    subprotocols: Sequence[str]
    origins: Origins | None
    allowed_hosts: Sequence[str] | None
    proxy_headers: Sequence[str]
    proxy_protocol: bool
    version: str
    legacy: bool | Sequence[str]


#: Keywords of `websockets` and aiohttp, and the keyword with the same meaning here.
_ELSEWHERE = {
    "extra_headers": "additional_headers",
    "headers": "additional_headers",
    "origin": "additional_headers",
    "heartbeat": "ping_interval",
    "ssl_context": "ssl",
    "timeout": "open_timeout",
}


def check_keywords(called: str, keywords: Iterable[str], known: Collection[str], hint: str = "") -> None:
    """Raise TypeError for the first keyword that is not in ``known``. The text names the most similar one.

    Without this check, the error would name a class that the application has not called. ``hint`` replaces
    the name of the most similar keyword.
    """
    for keyword in keywords:
        if keyword not in known:
            from difflib import get_close_matches  # only an error needs it

            elsewhere = _ELSEWHERE.get(keyword)
            near = [elsewhere] if elsewhere in known else get_close_matches(keyword, sorted(known), 1)
            if keyword in OptionKeywords.__optional_keys__:  # of a route or a drain, which have few of them
                hint = hint or "; it is an option of the whole Server"
            hint = hint or (f"; did you mean {near[0]!r}?" if near else "")
            raise TypeError(f"{called}() got an unexpected keyword argument {keyword!r}{hint}")


def option_table() -> list[Mapping[str, str]]:
    """One row for each option. The reference page is generated from it."""
    return [
        {
            "name": option.name,
            "unit": option.metadata["unit"],
            "default": str(option.default),
            "used_by": option.metadata["used_by"],
            "consequence": option.metadata["consequence"],
        }
        for option in fields(Options)
    ]
