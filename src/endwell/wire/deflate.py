"""permessage-deflate (RFC 7692): the negotiation in both roles, and the compression."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..errors import InvalidHandshake, ProtocolError
from ..options import Deflate
from .extensions import Extension, Parameters

__all__ = ["PerMessageDeflate", "accept", "confirm", "offer"]

_NAME = "permessage-deflate"
_SERVER_FRESH, _CLIENT_FRESH = "server_no_context_takeover", "client_no_context_takeover"
_SERVER_BITS, _CLIENT_BITS = "server_max_window_bits", "client_max_window_bits"

# RFC 7692 §7.1.2: "a decimal integer value without leading zeroes between 8 to 15,
# inclusive", and 15 where nothing is said.
_WINDOWS = {str(bits): bits for bits in range(8, 16)}
_WIDEST = 15
#: Of a server's compressor, if the application says nothing: ``docs/performance.md``, "Compression".
_SERVERS_BITS = 12

#: What a sync flush ends with; RFC 7692 §7.2.1 removes it from the end of a message.
_TAIL = b"\x00\x00\xff\xff"

# Input is inflated by so many bytes at a time. zlib copies what a call leaves over,
# so a message made of many small final blocks would cost quadratic time if all of
# it were passed each time.
_INPUT_STEP = 2**14
# And output comes by so many bytes at a time, so that a bomb never has more than
# this above the limit.
_OUTPUT_STEP = 2**16
# What a call of zlib costs, and what a byte of input does, in bytes of output: a block may be
# two bytes and hold nothing, and 11 bytes may make zlib build its tables anew.
_CALL, _INPUT = 64, 2


class PerMessageDeflate:
    """Both directions of a connection that agreed on permessage-deflate.

    zlib's objects are made at the first message that needs them, and kept between
    messages only where context takeover was agreed. ``agreed`` is the settings with
    the agreed parameters in them.
    """

    __slots__ = (
        "_compressor",
        "_inflater",
        "_keep_compressor",
        "_keep_inflater",
        "_level",
        "_mem_level",
        "_our_bits",
        "_their_bits",
        "_window",
        "alike",
        "min_size",
    )

    def __init__(self, agreed: Deflate, client: bool) -> None:
        bits = (agreed.client_max_window_bits, _server_bits(agreed))
        keep = (not agreed.client_no_context_takeover, not agreed.server_no_context_takeover)
        self._our_bits, self._their_bits = bits if client else bits[::-1]
        self._keep_compressor, self._keep_inflater = keep if client else keep[::-1]
        self._window = 1 << self._our_bits
        self._level = agreed.level
        self._mem_level = agreed.mem_level
        #: Messages below so many bytes are to be sent as they are. Never 0: zlib has
        #: no output for an empty message if the one before was flushed.
        self.min_size = max(agreed.min_size, 1)
        #: What two connections have to have in common to compress every message alike; None
        #: with context takeover, because then it depends on the messages before.
        self.alike = (
            None if self._keep_compressor else (self._our_bits, self._level, self._mem_level, self.min_size)
        )
        self._compressor: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None

    def compress(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """The payload of a compressed message (RFC 7692 §7.2.1); ``data`` is not empty.

        None if it is to be sent as it is, because it is large and would only grow.
        """
        compressor = self._compressor or self._new_compressor()
        self._compressor = compressor if self._keep_compressor else None
        payload = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        if len(data) >= self._window and len(payload) - len(_TAIL) >= len(data):
            # A peer may hold its limit against the frame: `websockets` refuses 1 MiB that has
            # grown by a few bytes. The compressor now remembers what the peer will not have
            # inflated, so it goes; all that is lost with it is a window full of noise.
            self._compressor = None
            return None
        return payload[: -len(_TAIL)]

    def _new_compressor(self) -> zlib._Compress:
        # zlib has no raw window of 8 bits. One of 9 whose matches look back one byte
        # only ("Z_RLE to limit match distances to one") is readable with any window.
        bits, strategy = (9, zlib.Z_RLE) if self._our_bits == 8 else (self._our_bits, zlib.Z_DEFAULT_STRATEGY)
        return zlib.compressobj(self._level, zlib.DEFLATED, -bits, self._mem_level, strategy)

    def decompress(self, data: bytes, last: bool, into: bytearray, limit: int | None) -> int:
        """Append to ``into`` what the next bytes of a compressed message hold.

        ``last`` says that the message ends with them. If ``into`` would get longer than
        ``limit``, it gets one byte longer and the rest is left. Returns how much work that
        was: as much as inflating that many bytes. Raises ProtocolError for data that is not
        DEFLATE.
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
            # 1002, as `websockets` has it, not 1007, which speaks of data "not consistent
            # with the type of the message": what breaks here is the extension's format.
            raise ProtocolError("compressed data is corrupt") from None
        if last and not self._keep_inflater:
            self._inflater = None
        return len(into) - before + calls * _CALL + len(data) * _INPUT

    def _inflate(self, data: bytes, into: bytearray, limit: int | None) -> int:
        """How many calls of zlib it took."""
        calls = 0
        while data:
            if self._inflater is None:
                self._inflater = zlib.decompressobj(-self._their_bits)
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
    """A client's Sec-WebSocket-Extensions: one element.

    RFC 7692 §7.1.3 allows several, with falling demands. libsoup 3.2 then accepts each of
    them, and nhooyr.io/websocket 1.8.7 answers 400 to ``server_max_window_bits``, so that is
    offered only if the application has set it.
    """
    parameters: dict[str, int | None] = {}
    if settings.server_no_context_takeover:
        parameters[_SERVER_FRESH] = None
    if settings.client_no_context_takeover:
        parameters[_CLIENT_FRESH] = None
    # RFC 7692 §7.1.2.2: "a client informs the peer server that even if the server doesn't
    # include the "client_max_window_bits" extension parameter (...) the client is not going
    # to use an LZ77 sliding window size greater than the size specified": a hint, and our
    # smaller window needs none. Without a value it is what every browser offers.
    parameters[_CLIENT_BITS] = None
    if settings.server_max_window_bits is not None:
        parameters[_SERVER_BITS] = settings.server_max_window_bits
    return _element(parameters)


def accept(offers: Iterable[Extension], settings: Deflate) -> tuple[str, PerMessageDeflate] | None:
    """A server's answer to the first offer that it can accept, or None.

    A client that does not offer ``client_max_window_bits`` cannot be held to it.
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
            server_no_context_takeover=settings.server_no_context_takeover or _SERVER_FRESH in asked,
            client_no_context_takeover=settings.client_no_context_takeover or _CLIENT_FRESH in asked,
            server_max_window_bits=min(_server_bits(settings), asked.get(_SERVER_BITS, _WIDEST)),
            client_max_window_bits=min(settings.client_max_window_bits, asked[_CLIENT_BITS])
            if _CLIENT_BITS in asked
            else _WIDEST,
        )
        return _answer(asked, agreed), PerMessageDeflate(agreed, client=False)
    return None


def _server_bits(settings: Deflate) -> int:
    """The largest window of a server's own compressor."""
    return _SERVERS_BITS if settings.server_max_window_bits is None else settings.server_max_window_bits


def _answer(asked: Mapping[str, int], agreed: Deflate) -> str:
    """The parameters that were offered, as agreed on.

    A smaller window of our own, and a compressor that starts anew with each message, need no
    agreement: what they write is valid for a peer that was told of neither. RFC 7692 §7.1.1.1
    and §7.1.2.1 allow to answer both to an offer without them, but nhooyr.io/websocket 1.8.7
    fails the connection then.
    """
    answer: dict[str, int | None] = {}
    if _SERVER_FRESH in asked:
        answer[_SERVER_FRESH] = None
    # The one that binds the client has no other way. RFC 7692 §7.1.1.2: "A server may include
    # the "client_no_context_takeover" extension parameter in an extension negotiation response
    # (...) even if the extension negotiation offer being accepted by the extension negotiation
    # response didn't include" it. Off by default.
    if agreed.client_no_context_takeover:
        answer[_CLIENT_FRESH] = None
    if _SERVER_BITS in asked:
        answer[_SERVER_BITS] = agreed.server_max_window_bits
    # RFC 7692 §7.1.2.2: "If a received extension negotiation offer doesn't have the
    # "client_max_window_bits" extension parameter, the corresponding extension
    # negotiation response to the offer MUST NOT include" it.
    if _CLIENT_BITS in asked:
        answer[_CLIENT_BITS] = agreed.client_max_window_bits
    return _element(answer)


def confirm(answer: Iterable[Extension], settings: Deflate) -> PerMessageDeflate | None:
    """What a server's answer to :func:`offer` agrees to, if anything.

    Raises InvalidHandshake if the answer does not fit the offer.
    """
    chosen = list(answer)
    if not chosen:
        return None
    if len(chosen) > 1:
        raise InvalidHandshake("server chose more than one extension")
    name, parameters = chosen[0]
    # RFC 6455 §4.1: "If the response includes a |Sec-WebSocket-Extensions| header field
    # and this header field indicates the use of an extension that was not present in the
    # client's handshake (...), the client MUST _Fail the WebSocket Connection_."
    if name != _NAME:
        raise InvalidHandshake(f"server chose an extension that was not offered: {name[:40]!r}")
    try:
        given = _read(parameters, in_offer=False)
    except ValueError as error:
        raise InvalidHandshake(f"server's response to {_NAME} has {error}") from None
    if settings.server_no_context_takeover and _SERVER_FRESH not in given:
        raise InvalidHandshake(f"server's response to {_NAME} lacks {_SERVER_FRESH}")
    agreed = replace(
        settings,
        server_no_context_takeover=_SERVER_FRESH in given,
        client_no_context_takeover=settings.client_no_context_takeover or _CLIENT_FRESH in given,
        # Servers that cannot narrow their window answer without it; a wide one reads them all.
        server_max_window_bits=given.get(_SERVER_BITS, _WIDEST),
        # The answer may be wider; we still use ours.
        client_max_window_bits=min(settings.client_max_window_bits, given.get(_CLIENT_BITS, _WIDEST)),
    )
    return PerMessageDeflate(agreed, client=True)


def _read(parameters: Parameters, in_offer: bool) -> dict[str, int]:
    """The parameters by name; those without a value as 1, a window without one as the widest."""
    values: dict[str, int] = {}
    for name, value in parameters:
        if name in values:
            raise ValueError(f"{name} twice")
        if name in (_SERVER_FRESH, _CLIENT_FRESH) and value is None:
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
