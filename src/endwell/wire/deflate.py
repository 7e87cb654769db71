"""permessage-deflate (RFC 7692): negotiation in both roles, and compression."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..errors import InvalidHandshake, ProtocolError
from ..options import Deflate
from .extensions import Extension, Parameters

__all__ = ["PerMessageDeflate", "accept", "confirm", "offer"]

_NAME = "permessage-deflate"
_SERVER_NO_TAKEOVER, _CLIENT_NO_TAKEOVER = "server_no_context_takeover", "client_no_context_takeover"
_SERVER_BITS, _CLIENT_BITS = "server_max_window_bits", "client_max_window_bits"

# RFC 7692 §7.1.2: "a decimal integer value without leading zeroes between 8 to 15,
# inclusive"; 15 is the default.
_WINDOWS = {str(bits): bits for bits in range(8, 16)}
_WIDEST = 15
#: Default window of a server's compressor, in bits: ``docs/explanation/performance.md``, "permessage-deflate".
_DEFAULT_SERVER_BITS = 12

#: The end of a sync flush. RFC 7692 §7.2.1 removes it from the end of a message.
_TAIL = b"\x00\x00\xff\xff"

# Bytes of input for one call of zlib. zlib copies the unused input of each call, so a message of many small
# final blocks would cost quadratic time if every call got all of it.
_INPUT_STEP = 2**14
# Bytes of output of one call of zlib, so that a decompression bomb never exceeds the limit by more than this.
_OUTPUT_STEP = 2**16
# The cost of one call of zlib and of one byte of input, in bytes of output. A block of two bytes can be
# empty, and 11 bytes can make zlib rebuild its tables.
_CALL_WORK, _INPUT_WORK = 64, 2


class PerMessageDeflate:
    """The compressor and decompressor of a connection that negotiated permessage-deflate.

    The zlib objects are created for the first message that needs them. They are kept between messages only
    with context takeover. ``agreed`` has the settings with the negotiated parameters.
    """

    __slots__ = (
        "_compressor",
        "_inflater",
        "_keep_compressor",
        "_keep_inflater",
        "_level",
        "_local_bits",
        "_mem_level",
        "_peer_bits",
        "_window",
        "min_size",
        "share_key",
    )

    def __init__(self, agreed: Deflate, client: bool) -> None:
        bits = (agreed.client_max_window_bits, _server_bits(agreed))
        keep = (not agreed.client_no_context_takeover, not agreed.server_no_context_takeover)
        self._local_bits, self._peer_bits = bits if client else bits[::-1]
        self._keep_compressor, self._keep_inflater = keep if client else keep[::-1]
        self._window = 1 << self._local_bits
        self._level = agreed.level
        self._mem_level = agreed.mem_level
        #: Messages below this number of bytes are sent uncompressed. At least 1, because after a flush zlib
        #: has no output for an empty message.
        self.min_size = max(agreed.min_size, 1)
        #: Two connections with equal values compress a message to the same bytes. None with context takeover,
        #: because then the result depends on the messages before.
        self.share_key = (
            None if self._keep_compressor else (self._local_bits, self._level, self._mem_level, self.min_size)
        )
        self._compressor: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None

    def compress(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """The payload of a compressed message (RFC 7692 §7.2.1). ``data`` is not empty.

        None if the message is to be sent uncompressed, because it is large and compression does not shorten
        it.
        """
        compressor = self._compressor or self._new_compressor()
        self._compressor = compressor if self._keep_compressor else None
        payload = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        if len(data) >= self._window and len(payload) - len(_TAIL) >= len(data):
            # A peer may compare its limit with the compressed length: `websockets` refuses a message of 1 MiB
            # that compression made a few bytes longer. The compressor's window now has data that the peer
            # will not inflate, so the compressor is dropped. Its window held only incompressible data.
            self._compressor = None
            return None
        return payload[: -len(_TAIL)]

    def _new_compressor(self) -> zlib._Compress:
        # zlib has no raw window of 8 bits. With 9 bits and Z_RLE ("to limit match distances to one"), any
        # window can inflate the output.
        bits, strategy = (
            (9, zlib.Z_RLE) if self._local_bits == 8 else (self._local_bits, zlib.Z_DEFAULT_STRATEGY)
        )
        return zlib.compressobj(self._level, zlib.DEFLATED, -bits, self._mem_level, strategy)

    def decompress(self, data: bytes, last: bool, into: bytearray, limit: int | None) -> int:
        """Inflate the next bytes of a compressed message, and append the result to ``into``.

        ``last``: the message ends with these bytes. If the result is longer than ``limit``, ``into`` gets one
        byte more than ``limit``, and the rest is ignored. Returns the work as a number of inflated bytes that
        cost as much. Raises ProtocolError for data that is not DEFLATE.
        """
        before, calls = len(into), 0
        if last:
            # RFC 7692 §7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of
            # the payload of the message."
            data += _TAIL
        try:
            for start in range(0, len(data), _INPUT_STEP):
                calls += self._inflate(data[start : start + _INPUT_STEP], into, limit)
        except zlib.error:
            # 1002, as in `websockets`. 1007 is for data "not consistent with the type of the message"; here
            # the format of the extension is broken.
            raise ProtocolError("compressed data is corrupt") from None
        if last and not self._keep_inflater:
            self._inflater = None
        return len(into) - before + calls * _CALL_WORK + len(data) * _INPUT_WORK

    def _inflate(self, data: bytes, into: bytearray, limit: int | None) -> int:
        """Inflate one piece of input. Returns the number of zlib calls."""
        calls = 0
        while data:
            if self._inflater is None:
                self._inflater = zlib.decompressobj(-self._peer_bits)
            room = _OUTPUT_STEP if limit is None else min(_OUTPUT_STEP, limit + 1 - len(into))
            if room == 0:
                break
            calls += 1
            into += self._inflater.decompress(data, room)
            if self._inflater.eof:
                # RFC 7692 §7.2.1 allows blocks with the "BFINAL" bit set to 1; "The next
                # DEFLATE block follows the padded data if any."
                data = self._inflater.unused_data
                self._inflater = None
            else:
                data = self._inflater.unconsumed_tail
        return calls


def offer(settings: Deflate) -> str:
    """The Sec-WebSocket-Extensions of a client: one element.

    RFC 7692 §7.1.3 allows several elements as alternatives, but libsoup 3.2 accepts all of them at once.
    nhooyr.io/websocket 1.8.7 responds with 400 to ``server_max_window_bits``, so that parameter is offered
    only if the application has set it.
    """
    parameters: dict[str, int | None] = {}
    if settings.server_no_context_takeover:
        parameters[_SERVER_NO_TAKEOVER] = None
    if settings.client_no_context_takeover:
        parameters[_CLIENT_NO_TAKEOVER] = None
    # RFC 7692 §7.1.2.2: "a client informs the peer server that even if the server doesn't
    # include the "client_max_window_bits" extension parameter (...) the client is not going
    # to use an LZ77 sliding window size greater than the size specified". A value would be only a hint, and a
    # smaller window needs no hint. Every browser offers the parameter without a value.
    parameters[_CLIENT_BITS] = None
    if settings.server_max_window_bits is not None:
        parameters[_SERVER_BITS] = settings.server_max_window_bits
    return _element(parameters)


def accept(offers: Iterable[Extension], settings: Deflate) -> tuple[str, PerMessageDeflate] | None:
    """The server's response to the first acceptable offer; None if there is none.

    If a client does not offer ``client_max_window_bits``, the server cannot limit the client's window.
    """
    for name, parameters in offers:
        if name != _NAME:
            continue
        try:
            asked = _read(parameters, in_offer=True)
        except ValueError:
            # RFC 7692 §7.1: "A server MUST decline an extension negotiation offer for
            # this extension if any of the following conditions are met".
            continue
        agreed = replace(
            settings,
            server_no_context_takeover=settings.server_no_context_takeover or _SERVER_NO_TAKEOVER in asked,
            client_no_context_takeover=settings.client_no_context_takeover or _CLIENT_NO_TAKEOVER in asked,
            server_max_window_bits=min(_server_bits(settings), asked.get(_SERVER_BITS, _WIDEST)),
            client_max_window_bits=min(settings.client_max_window_bits, asked[_CLIENT_BITS])
            if _CLIENT_BITS in asked
            else _WIDEST,
        )
        return _answer(asked, agreed), PerMessageDeflate(agreed, client=False)
    return None


def _server_bits(settings: Deflate) -> int:
    """The largest window of the server's own compressor."""
    return (
        _DEFAULT_SERVER_BITS if settings.server_max_window_bits is None else settings.server_max_window_bits
    )


def _answer(asked: Mapping[str, int], agreed: Deflate) -> str:
    """The element of the response: the offered parameters with the agreed values.

    A smaller window of the server, and no context takeover of the server, need no agreement: any client can
    inflate the output. RFC 7692 §7.1.1.1 and §7.1.2.1 allow both parameters in the response to an offer
    without them, but nhooyr.io/websocket 1.8.7 fails the connection then.
    """
    answer: dict[str, int | None] = {}
    if _SERVER_NO_TAKEOVER in asked:
        answer[_SERVER_NO_TAKEOVER] = None
    # The client learns only from the response that it must not use context takeover. §7.1.1.2: "A server may
    # include the "client_no_context_takeover" extension parameter in an extension negotiation response (...)
    # even if the extension negotiation offer being accepted by the extension negotiation response didn't
    # include" it. Off by default.
    if agreed.client_no_context_takeover:
        answer[_CLIENT_NO_TAKEOVER] = None
    if _SERVER_BITS in asked:
        answer[_SERVER_BITS] = agreed.server_max_window_bits
    # RFC 7692 §7.1.2.2: "If a received extension negotiation offer doesn't have the
    # "client_max_window_bits" extension parameter, the corresponding extension
    # negotiation response to the offer MUST NOT include" it.
    if _CLIENT_BITS in asked:
        answer[_CLIENT_BITS] = agreed.client_max_window_bits
    return _element(answer)


def confirm(answer: Iterable[Extension], settings: Deflate) -> PerMessageDeflate | None:
    """The compression that a server's response agrees to; None if it agrees to none.

    Raises InvalidHandshake if the response does not match the offer of :func:`offer`.
    """
    chosen = list(answer)
    if not chosen:
        return None
    if len(chosen) > 1:
        raise InvalidHandshake("the server chose more than one extension")
    name, parameters = chosen[0]
    # RFC 6455 §4.1: "If the response includes a |Sec-WebSocket-Extensions| header field
    # and this header field indicates the use of an extension that was not present in the
    # client's handshake (...), the client MUST _Fail the WebSocket Connection_."
    if name != _NAME:
        raise InvalidHandshake(f"the server chose an extension that was not offered: {name[:40]!r}")
    try:
        given = _read(parameters, in_offer=False)
    except ValueError as error:
        raise InvalidHandshake(f"the server's response to {_NAME} has {error}") from None
    if settings.server_no_context_takeover and _SERVER_NO_TAKEOVER not in given:
        raise InvalidHandshake(f"the server's response to {_NAME} lacks {_SERVER_NO_TAKEOVER}")
    agreed = replace(
        settings,
        server_no_context_takeover=_SERVER_NO_TAKEOVER in given,
        client_no_context_takeover=settings.client_no_context_takeover or _CLIENT_NO_TAKEOVER in given,
        # A server that cannot limit its window responds without the parameter. The widest window inflates
        # all.
        server_max_window_bits=given.get(_SERVER_BITS, _WIDEST),
        # The response may allow a wider window than the client's own setting.
        client_max_window_bits=min(settings.client_max_window_bits, given.get(_CLIENT_BITS, _WIDEST)),
    )
    return PerMessageDeflate(agreed, client=True)


def _read(parameters: Parameters, in_offer: bool) -> dict[str, int]:
    """The parameters by name. A flag has the value 1; a window without a value has the widest."""
    values: dict[str, int] = {}
    for name, value in parameters:
        if name in values:
            raise ValueError(f"{name} twice")
        if name in (_SERVER_NO_TAKEOVER, _CLIENT_NO_TAKEOVER) and value is None:
            values[name] = 1
        elif name in (_SERVER_BITS, _CLIENT_BITS) and value in _WINDOWS:
            values[name] = _WINDOWS[value]
        elif name == _CLIENT_BITS and value is None and in_offer:
            values[name] = _WIDEST
        else:
            raise ValueError(f"an unknown or invalid parameter {name[:40]!r}")
    return values


def _element(parameters: Mapping[str, int | None]) -> str:
    return "; ".join(
        [_NAME, *(name if value is None else f"{name}={value}" for name, value in parameters.items())]
    )
