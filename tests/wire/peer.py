"""A peer that writes frames as RFC 6455 §5.2 specifies, right and wrong ones."""

from __future__ import annotations

import struct
from importlib import import_module

from endwell.build import compiled
from endwell.errors import PeerError
from endwell.wire.codec import Codec, Event

KEY = b"\x37\xfa\x21\x3d"  # RFC 6455 §5.7

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    key: bytes | None = KEY,
    fin: bool = True,
    rsv: int = 0,
    width: int | None = None,
) -> bytes:
    """One frame; ``width`` forces a length field of 1, 2 or 8 octets."""
    first = fin << 7 | rsv << 4 | opcode
    mask = 0 if key is None else 0x80
    size = len(payload)
    if width is None:
        width = 1 if size <= 125 else 2 if size <= 65535 else 8
    if width == 1:
        head = struct.pack("!BB", first, mask | size)
    elif width == 2:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    if key is None:
        return head + payload
    return head + key + bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))


#: Fills the room of a codec, in the form that the codec has.
form = import_module(
    "endwell.wire._payload" if "endwell.wire.codec" in compiled() else "endwell.wire.payload"
)


def receive(codec: Codec, *reads: bytes, into_room: bool = False) -> tuple[list[Event], PeerError | None]:
    """The events of some reads, and the error that ended them.

    ``into_room``: each read is copied into the codec's room as far as it fits, as a driver may.
    """
    events: list[Event] = []
    error = None
    for read in reads:
        try:
            if into_room and codec.room is not None:
                inside = min(len(read), codec.missing)
                form.put(codec.room, codec.room_fill, bytearray(read), 0, inside, b"")
                codec.read(inside, events)
                codec.receive(read[inside:], events)
            else:
                codec.receive(read, events)
        except PeerError as fault:
            assert error is None, "a codec fails once"
            error = fault
    return events, error
