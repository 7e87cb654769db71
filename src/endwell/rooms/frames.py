"""The frames between the workers and the supervisor: what the rooms of several processes tell each other.

A frame has a length, a kind and a body. The kinds that carry a message are packed, because they are frequent.
All others are JSON. After an update, the two processes may run different versions, so the receiver ignores
unknown words.

In Redis, the part of a publication that its process has packed is the same in the channel and in the history.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple, get_args

from ..aio.broadcast import Slow
from .history import History
from .packing import (
    PUBLICATION,
    PUBLISH,
    PUBLISH_FRAME,
    PUBLISHED,
    number,
    part,
    publication,
    publish,
    published,
    utf8,
)
from .position import Message, Publication

__all__ = [
    "NOT_SENT",
    "OWN",
    "PUBLICATION",
    "PUBLISH",
    "PUBLISHED",
    "SENT",
    "WORD",
    "Decoder",
    "Shared",
    "dump",
    "forward",
    "load",
    "pack_publication",
    "pack_publish",
    "pack_published",
    "pack_shared",
    "pack_word",
    "unpack_arrival",
    "unpack_call",
    "unpack_publication",
    "unpack_publish",
    "unpack_published",
    "unpack_shared",
]

#: The kind of anything that is not packed.
WORD = 4

_HEAD = Struct("!IB")
# The number of the call, flags, the length of the room's name, and the history.
_PUBLISH = Struct("!QBHQdQ")
_HEAD_SIZE, _PUBLISH_SIZE, _PUBLISHED_SIZE, _PUBLICATION_SIZE = 5, 35, 21, 12
# The process, the number of the call, and flags.
_SHARED = Struct("!8sQB")

#: The caller's process does not listen to the room; the publication is the next frame; the publication is not
#: sent, because the process has the message. The last one is for processes that have said that they keep it.
NOT_SENT, SENT, OWN = range(3)

_TEXT = 1
_KEPT = 2
_SLOW = get_args(Slow)
_SLOW_FLAGS = {slow: number << 2 for number, slow in enumerate(_SLOW)}


class Shared(NamedTuple):
    """A publication in Redis, without its number."""

    #: 8 bytes that name the process that has published.
    process: bytes
    call: int
    message: Message
    slow: Slow


class Decoder:
    """Splits a stream of bytes into frames."""

    def __init__(self) -> None:
        #: The beginning of a frame, and the size of that frame, as far as it is known.
        self._buffer = bytearray()
        self._wanted = _HEAD_SIZE

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the kinds and the bodies of the frames that are complete."""
        frames: list[tuple[int, bytes]] = []
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._wanted:
                return frames
            data = bytes(buffer)
            buffer.clear()
        begin, size = 0, len(data)
        self._wanted = _HEAD_SIZE
        while size - begin >= _HEAD_SIZE:
            length = data[begin] << 24 | data[begin + 1] << 16 | data[begin + 2] << 8 | data[begin + 3]
            end = begin + _HEAD_SIZE + length
            if end > size:
                self._wanted = end - begin
                break
            frames.append((data[begin + 4], part(data, begin + _HEAD_SIZE, end)))
            begin = end
        if begin < size:
            buffer += data[begin:]
        return frames


def _octets(message: Message) -> bytes:
    return utf8(message) if isinstance(message, str) else message


def _message(body: bytes, begin: int, flags: int) -> Message:
    return body[begin:].decode() if flags & _TEXT else body[begin:]


def _flags(message: Message, slow: Slow) -> int:
    return (_TEXT if isinstance(message, str) else 0) | _SLOW_FLAGS[slow]


def pack_publish(call: int, room: str, message: Message, history: History | None, slow: Slow) -> bytes:
    """Encode: a worker publishes a message."""
    name, octets, flags = utf8(room), _octets(message), _flags(message, slow)
    if history is None:
        return publish(call, flags, name, octets)
    size = PUBLISH_FRAME.size - _HEAD_SIZE + len(name) + len(octets)
    kept = history.messages, history.seconds, history.bytes
    head = PUBLISH_FRAME.pack(size, PUBLISH, call, flags | _KEPT, len(name), *kept)
    return b"".join((head, name, octets))


def unpack_publish(body: bytes) -> tuple[int, str, Message, History | None, Slow]:
    """Decode what :func:`pack_publish` has encoded: its arguments."""
    call, flags, length, messages, seconds, size = _PUBLISH.unpack_from(body)
    end = _PUBLISH_SIZE + length
    kept = _history(messages, seconds, size) if flags & _KEPT else None
    return call, body[_PUBLISH_SIZE:end].decode(), _message(body, end, flags), kept, _SLOW[flags >> 2]


def unpack_call(body: bytes) -> tuple[int, str, Message, History | None]:
    """The first arguments of :func:`pack_publish`. Without a history, the message is not decoded: it is empty."""
    if body[8] & _KEPT:
        call, room, message, history, _ = unpack_publish(body)
        return call, room, message, history
    end = _PUBLISH_SIZE + (body[9] << 8 | body[10])
    return number(body, 0), body[_PUBLISH_SIZE:end].decode(), b"", None


@lru_cache(maxsize=64)
def _history(messages: int, seconds: float, size: int) -> History:
    return History(messages, seconds, size)


def forward(body: bytes, epoch: str, sequence: int) -> bytes:
    """Encode the publication of a frame of :func:`pack_publish`, whose body this is."""
    flags, name = body[8] & ~_KEPT, body[9] << 8 | body[10]
    return publication(sequence, flags, utf8(epoch), name, body, _PUBLISH_SIZE)


def pack_published(call: int, sequence: int, workers: int, listens: int, epoch: str) -> bytes:
    """Encode the answer to :func:`pack_publish`.

    Args:
        call: The number of the call.
        sequence: The number of the publication.
        workers: How many processes listen.
        listens: Whether the caller's process is one of them: NOT_SENT, SENT or OWN.
        epoch: The epoch of the room.
    """
    return published(call, sequence, workers, listens, utf8(epoch))


def unpack_published(body: bytes) -> tuple[int, int, int, int, str]:
    """Decode what :func:`pack_published` has encoded: its arguments."""
    call, sequence = number(body, 0), number(body, 8)
    workers = body[16] << 24 | body[17] << 16 | body[18] << 8 | body[19]
    return call, sequence, workers, body[20], body[_PUBLISHED_SIZE:].decode()


def pack_publication(room: str, epoch: str, one: Publication, slow: Slow) -> bytes:
    """Encode a publication."""
    name, flags = utf8(room), _flags(one.message, slow)
    rest = name + _octets(one.message)
    return publication(one.sequence, flags, utf8(epoch), len(name), rest, 0)


def unpack_publication(body: bytes) -> tuple[str, str, Publication, Slow]:
    """Decode a publication: the room, its epoch, the publication and what happens to slow members."""
    room, epoch, sequence, message, slow = unpack_arrival(body)
    return room, epoch, Publication(sequence, message), slow


def unpack_arrival(body: bytes) -> tuple[str, str, int, Message, Slow]:
    """:func:`unpack_publication` without the object."""
    sequence, flags, epoch, name = number(body, 0), body[8], body[9], body[10] << 8 | body[11]
    begin = _PUBLICATION_SIZE + epoch
    end = begin + name
    message = _message(body, end, flags)
    term = body[_PUBLICATION_SIZE:begin].decode()
    return body[begin:end].decode(), term, sequence, message, _SLOW[flags >> 2]


def pack_shared(frame: Shared) -> bytes:
    """Encode a :class:`Shared`."""
    flags = _flags(frame.message, frame.slow)
    return _SHARED.pack(frame.process, frame.call, flags) + _octets(frame.message)


def unpack_shared(body: bytes) -> Shared:
    """Decode a :class:`Shared`."""
    process, call, flags = _SHARED.unpack_from(body)
    return Shared(process, call, _message(body, _SHARED.size, flags), _SLOW[flags >> 2])


def pack_word(word: str, *values: Any) -> bytes:
    """Encode any other frame."""
    body = json.dumps([word, *values]).encode()
    return _HEAD.pack(len(body), WORD) + body


def dump(message: Message) -> Any:
    """A message as JSON has it."""
    return message if isinstance(message, str) else {"base64": b64encode(message).decode()}


def load(value: Any) -> Message:
    """The message of :func:`dump`."""
    return value if isinstance(value, str) else b64decode(value["base64"])
