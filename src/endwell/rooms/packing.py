"""The frames that each publication needs, packed and unpacked.

The compiled build uses ``_packing.pyx`` instead (see ``frames.pxd``): the numbers take a call of the module struct and
an object each. A test compares the two modules.
"""

from __future__ import annotations

from struct import Struct

__all__ = [
    "PUBLICATION",
    "PUBLISH",
    "PUBLISHED",
    "PUBLISH_FRAME",
    "number",
    "part",
    "publication",
    "publish",
    "published",
    "utf8",
]

#: The kinds of the frames.
PUBLISH, PUBLISHED, PUBLICATION = 1, 2, 3
# The length and the kind; then, for a call of publish(), its number, flags, the length of the room's name, and the
# bounds of the history; for a publication, its number, flags, the length of the epoch and that of the room's
# name; for an answer, the number of the call, the number of the publication, how many processes listen, and whether
# the caller's is one of them.
PUBLISH_FRAME = Struct("!IBQBHQdQ")
_PUBLICATION, _PUBLISHED = Struct("!IBQBBH"), Struct("!IBQQIB")
_NUMBER = Struct("!Q")
_HEAD_SIZE = 5


def publish(call: int, flags: int, name: bytes, message: bytes) -> bytes:
    """The frame of a call of :meth:`Bus.publish` in a room without a history."""
    size = PUBLISH_FRAME.size - _HEAD_SIZE + len(name) + len(message)
    return b"".join((PUBLISH_FRAME.pack(size, PUBLISH, call, flags, len(name), 0, 0.0, 0), name, message))


def publication(sequence: int, flags: int, epoch: bytes, name_size: int, rest: bytes, begin: int) -> bytes:
    """The frame of a publication. What ``rest`` has from ``begin`` on is the name and the message."""
    size = _PUBLICATION.size - _HEAD_SIZE + len(epoch) + len(rest) - begin
    head = _PUBLICATION.pack(size, PUBLICATION, sequence, flags, len(epoch), name_size)
    return b"".join((head, epoch, rest[begin:]))


def published(call: int, sequence: int, workers: int, listens: int, epoch: bytes) -> bytes:
    """The frame of the answer to a call of publish()."""
    size = _PUBLISHED.size - _HEAD_SIZE + len(epoch)
    return _PUBLISHED.pack(size, PUBLISHED, call, sequence, workers, listens) + epoch


def utf8(text: str) -> bytes:
    """The UTF-8 of a text."""
    return text.encode()


def part(data: bytes, begin: int, end: int) -> bytes:
    """The bytes from ``begin`` to ``end``, of which there are as many."""
    if not 0 <= begin <= end <= len(data):
        raise ValueError("a frame is too short")
    return data[begin:end]


def number(body: bytes, at: int) -> int:
    """The 64 bits at ``at``. Raises ValueError if ``body`` is too short."""
    if len(body) < at + _NUMBER.size:
        raise ValueError("a frame is too short")
    value: int = _NUMBER.unpack_from(body, at)[0]
    return value
