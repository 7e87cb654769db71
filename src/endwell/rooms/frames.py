"""The frames between the workers and the supervisor: what the rooms of several processes tell each other.

A frame has a length, a kind and a body. The kinds that carry a message are packed, because they are frequent.
All others are JSON. After an update, the two processes may run different versions, so the receiver ignores
unknown words.

In Redis, the part of a publication that its process has packed is the same in the channel and in the history.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from struct import Struct
from typing import Any, NamedTuple, get_args

from ..aio.broadcast import Slow
from .history import History
from .position import Message, Publication

__all__ = [
    "PUBLICATION",
    "PUBLISH",
    "PUBLISHED",
    "WORD",
    "Decoder",
    "Publish",
    "Published",
    "Shared",
    "dump",
    "load",
    "pack_publication",
    "pack_publish",
    "pack_published",
    "pack_shared",
    "pack_word",
    "unpack_publication",
    "unpack_publish",
    "unpack_published",
    "unpack_shared",
]

#: The kinds: a worker publishes; its answer; a publication; anything else.
PUBLISH, PUBLISHED, PUBLICATION, WORD = range(1, 5)

_HEAD = Struct("!IB")
# The number of the call, flags, the length of the room's name, and the history.
_PUBLISH = Struct("!QBHQdQ")
# The number of the call, the sequence, how many processes listen, and whether the caller's is one of them.
_PUBLISHED = Struct("!QQIB")
# The sequence, flags, the length of the epoch and that of the room's name.
_PUBLICATION = Struct("!QBBH")
# The process, the number of the call, and flags.
_SHARED = Struct("!8sQB")

_TEXT = 1
_KEPT = 2
_SLOW = get_args(Slow)


class Publish(NamedTuple):
    """A worker publishes a message."""

    call: int
    room: str
    message: Message
    history: History | None
    slow: Slow


class Published(NamedTuple):
    """The answer to :class:`Publish`. If the caller's process listens, its publication is the next frame."""

    call: int
    sequence: int
    workers: int
    listens: bool
    epoch: str


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
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the kinds and the bodies of the frames that are complete."""
        frames: list[tuple[int, bytes]] = []
        buffer = self._buffer
        buffer += data
        begin, size = 0, len(buffer)
        while size - begin >= _HEAD.size:
            length, kind = _HEAD.unpack_from(buffer, begin)
            end = begin + _HEAD.size + length
            if end > size:
                break
            frames.append((kind, bytes(buffer[begin + _HEAD.size : end])))
            begin = end
        del buffer[:begin]
        return frames


def _pack(kind: int, *parts: bytes) -> bytes:
    return b"".join((_HEAD.pack(sum(map(len, parts)), kind), *parts))


def _octets(message: Message) -> bytes:
    return message.encode() if isinstance(message, str) else message


def _message(octets: bytes, flags: int) -> Message:
    return octets.decode() if flags & _TEXT else octets


def _flags(message: Message, slow: Slow) -> int:
    return isinstance(message, str) * _TEXT | _SLOW.index(slow) << 2


def pack_publish(frame: Publish) -> bytes:
    """Encode a :class:`Publish`."""
    history, name = frame.history, frame.room.encode()
    flags = _flags(frame.message, frame.slow)
    kept = (0, 0.0, 0)
    if history is not None:
        flags |= _KEPT
        kept = (history.messages, history.seconds, history.bytes)
    return _pack(PUBLISH, _PUBLISH.pack(frame.call, flags, len(name), *kept), name, _octets(frame.message))


def unpack_publish(body: bytes) -> Publish:
    """Decode a :class:`Publish`."""
    call, flags, length, messages, seconds, size = _PUBLISH.unpack_from(body)
    end = _PUBLISH.size + length
    return Publish(
        call,
        body[_PUBLISH.size : end].decode(),
        _message(body[end:], flags),
        History(messages, seconds, size) if flags & _KEPT else None,
        _SLOW[flags >> 2],
    )


def pack_published(frame: Published) -> bytes:
    """Encode a :class:`Published`."""
    numbers = _PUBLISHED.pack(frame.call, frame.sequence, frame.workers, frame.listens)
    return _pack(PUBLISHED, numbers, frame.epoch.encode())


def unpack_published(body: bytes) -> Published:
    """Decode a :class:`Published`."""
    call, sequence, workers, listens = _PUBLISHED.unpack_from(body)
    return Published(call, sequence, workers, bool(listens), body[_PUBLISHED.size :].decode())


def pack_publication(room: str, epoch: str, publication: Publication, slow: Slow) -> bytes:
    """Encode a publication."""
    name, term = room.encode(), epoch.encode()
    flags = _flags(publication.message, slow)
    head = _PUBLICATION.pack(publication.sequence, flags, len(term), len(name))
    return _pack(PUBLICATION, head, term, name, _octets(publication.message))


def unpack_publication(body: bytes) -> tuple[str, str, Publication, Slow]:
    """Decode a publication: the room, its epoch, the publication and what happens to slow members."""
    sequence, flags, epoch, name = _PUBLICATION.unpack_from(body)
    begin = _PUBLICATION.size + epoch
    end = begin + name
    message = _message(body[end:], flags)
    term = body[_PUBLICATION.size : begin].decode()
    return body[begin:end].decode(), term, Publication(sequence, message), _SLOW[flags >> 2]


def pack_shared(frame: Shared) -> bytes:
    """Encode a :class:`Shared`."""
    flags = _flags(frame.message, frame.slow)
    return _SHARED.pack(frame.process, frame.call, flags) + _octets(frame.message)


def unpack_shared(body: bytes) -> Shared:
    """Decode a :class:`Shared`."""
    process, call, flags = _SHARED.unpack_from(body)
    return Shared(process, call, _message(body[_SHARED.size :], flags), _SLOW[flags >> 2])


def pack_word(word: str, *values: Any) -> bytes:
    """Encode any other frame."""
    return _pack(WORD, json.dumps([word, *values]).encode())


def dump(message: Message) -> Any:
    """A message as JSON has it."""
    return message if isinstance(message, str) else {"base64": b64encode(message).decode()}


def load(value: Any) -> Message:
    """The message of :func:`dump`."""
    return value if isinstance(value, str) else b64decode(value["base64"])
