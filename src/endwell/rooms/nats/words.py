"""What the processes tell each other over NATS: publications, and the frames between a process and the leader."""

from __future__ import annotations

import json
from struct import Struct
from typing import Any, NamedTuple

from ..frames import (
    PUBLICATION,
    Decoder,
    pack_publication,
    pack_shared,
    pack_word,
    unpack_publication,
    unpack_shared,
)
from ..listening import Heard
from ..position import Position, Publication
from ..present import Present

__all__ = [
    "OVERHEAD",
    "SOME",
    "Rank",
    "pack_beat",
    "pack_heard",
    "pack_page",
    "pack_presence",
    "pack_resignation",
    "unpack",
    "unpack_heard",
    "unpack_page",
    "unpack_presence",
    "unpack_word",
]

# The term and the name of the leader, the epoch and the number.
_HEARD = Struct("!Q8s8sQ")

#: Begins each part of an answer that other parts follow.
SOME = pack_word("some")

#: Maximum size of what a frame has beside a message and the name of its room, in bytes.
OVERHEAD = 256


class Rank(NamedTuple):
    """Orders the leaders: the highest rank leads."""

    term: int
    process: str


def unpack(data: bytes) -> list[Any]:
    """The word and the values of the one frame in a message."""
    (frame,) = Decoder().feed(data)
    return unpack_word(frame)


def unpack_word(frame: tuple[int, bytes]) -> list[Any]:
    """The word and the values of a frame."""
    words: list[Any] = json.loads(frame[1])
    return words


def pack_beat(rank: Rank, session: str) -> bytes:
    """A sign of life of the leader.

    ``session`` is empty until it serves, and changes when it may have missed what it was told.
    """
    return pack_word("beat", *rank, session)


def pack_heard(rank: Rank, heard: Heard) -> bytes:
    """A publication, as the leader sends it to all processes that listen."""
    epoch, sequence = heard.position.epoch, heard.position.sequence
    return _HEARD.pack(rank.term, rank.process.encode(), epoch.encode(), sequence) + pack_shared(heard.shared)


def unpack_heard(data: bytes) -> tuple[Rank, Heard]:
    """Decode :func:`pack_heard`."""
    term, process, epoch, sequence = _HEARD.unpack_from(data)
    shared = unpack_shared(data[_HEARD.size :])
    return Rank(term, process.decode()), Heard(Position(epoch.decode(), sequence), shared)


def pack_page(position: Position, base: int, publications: list[Publication], size: int) -> bytes:
    """The beginning of a history, in at most ``size`` bytes, but at least one publication."""
    frames: list[bytes] = []
    total = OVERHEAD
    for publication in publications:
        frame = pack_publication("", position.epoch, publication, "skip")
        total += len(frame)
        if frames and total > size:
            break
        frames.append(frame)
    more = len(frames) < len(publications)
    return b"".join((pack_word("page", position.epoch, position.sequence, base, more), *frames))


def unpack_page(frames: list[tuple[int, bytes]]) -> list[Publication]:
    """The publications of :func:`pack_page`."""
    return [unpack_publication(body)[2] for kind, body in frames if kind == PUBLICATION]


def pack_presence(present: list[Present], following: list[Any], size: int) -> list[bytes]:
    """Some keys that are present, in parts of at most ``size`` bytes. The last part has the word "present".

    ``following`` is what the caller asks for next; empty if there are no more.
    """
    parts: list[bytes] = []
    part: list[bytes] = []
    total = OVERHEAD
    for each in present:
        frame = pack_word("key", each.key, each.info, each.connections)
        total += len(frame)
        if part and total > size:
            parts.append(SOME + b"".join(part))
            part, total = [], OVERHEAD + len(frame)
        part.append(frame)
    return [*parts, b"".join((*part, pack_word("present", following)))]


def unpack_presence(frames: list[tuple[int, bytes]]) -> tuple[list[Present], list[Any]]:
    """The keys of :func:`pack_presence`, of all its parts, and what the caller asks for next."""
    *keys, (_, following) = [unpack_word(each) for each in frames]
    return [Present(*values) for _, *values in keys], following


def pack_resignation(rank: Rank) -> bytes:
    """The last sign of life of a leader that stops."""
    return pack_word("resign", *rank, "")
