"""The flight recorder: the last cues of one connection in a ring of bytes, and the record of an abnormal ending.

A recorder notes what the core was told (a ping was due, the peer sent a Close, TCP ended) and when, and never
the content of a message. Messages are not noted one by one: each cue also has the numbers of messages and bytes
since the cue before, so a message costs nothing. ``replay.py`` steps a core through a record.

An entry of the ring, in this order; a *varint* has seven bits in each byte, the lowest first:

- one byte: the :class:`Noted` in its lower five bits, ``_RAW``, ``_TRAFFIC``;
- the time since the entry before, in nanoseconds, as a varint; with ``_RAW`` the time itself, as a float;
- with ``_TRAFFIC``: a byte that says what follows, in the order of ``_MESSAGES_IN`` ... ``_STUCK``;
- what the :class:`Noted` needs: ``_DETAILS``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import pack, unpack_from
from typing import Any

from ..ending import Cause, Initiator
from .deadline import NEVER

__all__ = ["BY_DATA", "FORMAT", "MAX_CUES", "MAX_RECORD", "RING", "Noted", "Record", "Recorder"]

#: The version of the format of a record.
FORMAT = 1
#: Number of cues that are kept, if the ring has room for them; and one more, because a pong is dropped with its ping.
MAX_CUES = 64
#: Bytes of a record as JSON.
MAX_RECORD = 4096

#: Bytes of the ring. An entry of a connection that only sends pings takes seven or less. A bytearray takes one byte
#: more than its length, and CPython's allocator rounds that up to a multiple of 16.
RING = 463
_SIZE = RING
_MAX_CUES = MAX_CUES  # C constants in the compiled module; other modules cannot import those


class Noted(IntEnum):
    """What a core was told. The value is in the ring, the name in lower case in a record."""

    OPENED = 0  #: the opening handshake succeeded
    PING = 1  #: a deadline passed, and a ping was due
    PING_UNREAD = 2  #: the same while reading was paused, without a sign of the peer's kernel
    DUE = 3  #: a deadline of the open connection passed
    DUE_UNREAD = 4  #: the same while reading was paused, without a sign of the peer's kernel
    PINGED = 5  #: the application sent a ping
    PONG = 6  #: a pong came; it answers the oldest ping
    STALLED = 7  #: this process did not run for a while
    CLOSE = 8  #: this side closes, for a cause
    FAILED = 9  #: client: the opening handshake failed, for a cause and by an initiator
    PEER_CLOSE = 10  #: a Close came
    PEER_CLOSE_BEHIND = 11  #: a Close came after messages that the application still handles
    FAULT = 12  #: the peer broke a rule
    HANDLED = 13  #: the application asked for the next message
    EOF = 14  #: the peer ended TCP
    BROKEN = 15  #: a write failed
    LOST = 16  #: TCP or TLS (1) failed
    GONE = 17  #: TCP has ended, the driver does not know how
    TIME_UP = 18  #: the deadline of a state passed
    SENT = 19  #: everything was sent, and the peer had ended TCP before
    PONGS = 20  #: a pong came; it answers a number of pings, at most 255


_NAMES = [noted.name.lower() for noted in Noted]
_CAUSES, _INITIATORS = list(Cause), list(Initiator)

#: Bytes at the end of each kind of entry, by :class:`Noted`: small numbers, or if they are 8 or more, floats.
_DETAILS = bytes(
    {
        Noted.DUE: 32,
        Noted.DUE_UNREAD: 32,
        Noted.PONGS: 1,
        Noted.STALLED: 40,
        Noted.CLOSE: 1,
        Noted.FAILED: 2,
        Noted.LOST: 1,
        Noted.TIME_UP: 8,
    }.get(noted, 0)
    for noted in Noted
)

#: What data of the peer are the cause of: without another value, the peer was alive at the time of the entry.
BY_DATA = frozenset((Noted.PONG, Noted.PONGS, Noted.PEER_CLOSE, Noted.PEER_CLOSE_BEHIND, Noted.FAULT))
#: The same by :class:`Noted`.
_BY_DATA = bytes(noted in BY_DATA for noted in Noted)

_KIND = 0x1F
_TRAFFIC = 0x20
_RAW = 0x40
#: The bits of the byte of the traffic since the entry before: numbers as varints,
_MESSAGES_IN, _BYTES_IN, _MESSAGES_OUT, _BYTES_OUT = 1, 2, 4, 8
#: when the peer was last known to be alive: nanoseconds before this entry, or that time itself, as a float;
#: without either, it is the same as after the entry before,
_HEARD, _HEARD_RAW = 16, 32
#: the number of bytes that wait to be sent, as a varint,
_UNSENT = 64
#: and when the connection would end because the peer accepts no data, as a float.
_STUCK = 128

_MASK = 0xFFFFFFFF
_NANO = 1e9
#: Later than this, a float has not the nanoseconds of a time.
_MAX_EXACT = 9e6


class Recorder:
    """The ring of one connection. :meth:`note` writes an entry, and drops the oldest ones for it."""

    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_count",
        "_dropped",
        "_first",
        "_fresh",
        "_messages_in",
        "_messages_out",
        "_ring",
        "_start",
        "_then",
        "_used",
    )

    def __init__(self, now: float) -> None:
        self._ring = bytearray(_SIZE)
        # Where the oldest entry begins, the number of used bytes and of entries, and of those that were dropped.
        self._start = self._used = self._count = self._dropped = 0
        # The times of the entry before the oldest one, and of the last one, in nanoseconds.
        self._first = self._then = max(exact(now), 0)
        # The numbers at the last entry, without their higher bits.
        self._messages_in = self._messages_out = self._bytes_in = self._bytes_out = 0
        # Whether the peer was known to be alive at the time of the last entry, and not later.
        self._fresh = False

    def note(
        self,
        noted: int,
        now: float,
        messages_in: int,
        bytes_in: int,
        messages_out: int,
        bytes_out: int,
        heard: float,
        unsent: int,
        stuck_at: float,
    ) -> None:  # size: one entry, and plain arguments instead of an object for each entry
        """Begin an entry: what the core was told at ``now``, and its numbers at that time."""
        while self._count > _MAX_CUES:
            self._drop()
        time = exact(now)
        traffic = self._changes(messages_in, bytes_in, messages_out, bytes_out)
        raw = time < 0 or time < self._then
        seen = exact(heard)
        if heard == 0.0:
            pass  # never
        elif raw or not 0 <= seen <= time:
            traffic |= _HEARD_RAW
        elif seen != time if _BY_DATA[noted] else not self._fresh or seen != self._then:
            traffic |= _HEARD
        traffic |= (_UNSENT if unsent > 0 else 0) | (_STUCK if stuck_at != NEVER else 0)
        self._put(noted | (_RAW if raw else 0) | (_TRAFFIC if traffic else 0))
        if raw:
            self.add_float(now)
        else:
            self._put_number(time - self._then)
        if traffic:
            self._put(traffic)
            if traffic & _MESSAGES_IN:
                self._put_number((messages_in - self._messages_in) & _MASK)
            if traffic & _BYTES_IN:
                self._put_number((bytes_in - self._bytes_in) & _MASK)
            if traffic & _MESSAGES_OUT:
                self._put_number((messages_out - self._messages_out) & _MASK)
            if traffic & _BYTES_OUT:
                self._put_number((bytes_out - self._bytes_out) & _MASK)
            if traffic & _HEARD:
                self._put_number(time - seen)
            if traffic & _UNSENT:
                self._put_number(unsent)
            if traffic & _HEARD_RAW:
                self.add_float(heard)
            if traffic & _STUCK:
                self.add_float(stuck_at)
        self._then = _nanoseconds(now) if raw else time
        self.count_from(messages_in, bytes_in, messages_out, bytes_out)
        self._fresh = not raw and (seen == time or noted == _OPENED)
        self._count += 1

    def count_from(self, messages_in: int, bytes_in: int, messages_out: int, bytes_out: int) -> None:
        """Let the next entry have the traffic since these numbers."""
        self._messages_in = messages_in & _MASK
        self._bytes_in = bytes_in & _MASK
        self._messages_out = messages_out & _MASK
        self._bytes_out = bytes_out & _MASK

    def _changes(self, messages_in: int, bytes_in: int, messages_out: int, bytes_out: int) -> int:
        changes = 0
        if messages_in & _MASK != self._messages_in:
            changes |= _MESSAGES_IN
        if bytes_in & _MASK != self._bytes_in:
            changes |= _BYTES_IN
        if messages_out & _MASK != self._messages_out:
            changes |= _MESSAGES_OUT
        if bytes_out & _MASK != self._bytes_out:
            changes |= _BYTES_OUT
        return changes

    def add(self, detail: int) -> None:
        """Add a small number to the last entry, as ``_DETAILS`` says."""
        self._put(min(detail, 255))

    def add_float(self, value: float) -> None:
        """Add a float to the last entry, as ``_DETAILS`` says."""
        for byte in pack("<d", value):
            self._put(byte)

    def _put(self, byte: int) -> None:
        if self._used == _SIZE:
            self._drop()
        at = self._start + self._used
        self._ring[at if at < _SIZE else at - _SIZE] = byte
        self._used += 1

    def _put_number(self, number: int) -> None:
        while number > 127:
            self._put(number & 127 | 128)
            number >>= 7
        self._put(number)

    def _drop(self) -> None:
        """Drop the oldest entry, and the pongs after it, whose ping may be gone."""
        more = True
        while more:
            head = self._take()
            if head & _RAW:
                self._first = _nanoseconds(self._take_float())
            else:
                self._first += self._take_number()
            if head & _TRAFFIC:
                traffic = self._take()
                for bit in (_MESSAGES_IN, _BYTES_IN, _MESSAGES_OUT, _BYTES_OUT, _HEARD, _UNSENT):
                    if traffic & bit:
                        self._take_number()
                if traffic & _HEARD_RAW:
                    self._take_float()
                if traffic & _STUCK:
                    self._take_float()
            for _ in range(_DETAILS[head & _KIND]):
                self._take()
            self._count -= 1
            self._dropped += 1
            noted = self._ring[self._start] & _KIND
            more = self._count > 0 and noted in (_PONG, _PONGS)

    def _take(self) -> int:
        """Remove the oldest byte."""
        byte = self._ring[self._start]
        self._start = self._start + 1 if self._start + 1 < _SIZE else 0
        self._used -= 1
        return byte

    def _take_number(self) -> int:
        number = shift = 0
        while True:
            byte = self._take()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7

    def _take_float(self) -> float:
        value: float = unpack_from("<d", bytes([self._take() for _ in range(8)]))[0]
        return value

    def recording(self) -> tuple[bytes, int, int]:
        """The entries, the oldest first; the time before the oldest one, in nanoseconds; how many were dropped."""
        ring = bytes(self._ring)
        return (ring[self._start :] + ring)[: self._used], self._first, self._dropped


def exact(time: float) -> int:
    """The nanoseconds of a time of the monotonic clock; negative if the time is not a number of them."""
    if not 0.0 <= time < _MAX_EXACT:
        return -1
    nanoseconds = int(time * _NANO + 0.5)
    return nanoseconds if nanoseconds / _NANO == time else -1


def _nanoseconds(time: float) -> int:
    return int(time * _NANO)


_OPENED, _PONG, _PONGS = int(Noted.OPENED), int(Noted.PONG), int(Noted.PONGS)


class Record(Mapping[str, Any]):
    """What a recorder has at the end of a connection, in values that ``json.dumps()`` accepts.

    The entries are decoded when they are first read, because most records never are.
    """

    def __init__(self, head: Mapping[str, Any], recording: tuple[bytes, int, int]) -> None:
        self._head = head
        self._recording = recording
        self._values: dict[str, Any] | None = None

    def _decoded(self) -> dict[str, Any]:
        if self._values is None:
            entries, first, dropped = self._recording
            cues = list(_decode(entries, first))
            values = {"format": FORMAT, **self._head, "dropped": dropped, "cues": cues}
            while (excess := len(json.dumps(values)) - MAX_RECORD) > 0 and cues:
                # Text is at most a reason; the rest of the record is below the limit.
                count = min(len(cues), 1 + excess // 100)
                del cues[:count]
                values["dropped"] += count
            self._values = values
        return self._values

    def __getitem__(self, name: str) -> Any:
        return self._decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __repr__(self) -> str:
        return repr(self._decoded())

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        # A copy is a plain dict.
        return dict, (self._decoded(),)


class _Reader:
    """Reads the bytes of entries."""

    def __init__(self, entries: bytes) -> None:
        self._entries = entries
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self._entries[self.at - 1]

    def number(self) -> int:
        number = shift = 0
        while (byte := self.byte()) > 127:
            number |= (byte & 127) << shift
            shift += 7
        return number | byte << shift

    def float(self) -> float:
        value: float = unpack_from("<d", self._entries, self.at)[0]
        self.at += 8
        return value


def _decode(entries: bytes, then: int) -> Iterator[list[Any]]:
    """Yield a list for each entry: the time, the name, its details, and the traffic, if there was any."""
    reader = _Reader(entries)
    while reader.at < len(entries):
        head = reader.byte()
        if head & _RAW:
            now = reader.float()
            then = _nanoseconds(now)
        else:
            then += reader.number()
            now = then / _NANO
        traffic = _traffic(reader, then) if head & _TRAFFIC else {}
        noted = head & _KIND
        yield [now, _NAMES[noted], *_details(noted, reader), *([traffic] if traffic else [])]


def _traffic(reader: _Reader, then: int) -> dict[str, Any]:
    bits = reader.byte()
    numbers = [
        reader.number() if bits & bit else 0
        for bit in (_MESSAGES_IN, _BYTES_IN, _MESSAGES_OUT, _BYTES_OUT, _HEARD, _UNSENT)
    ]
    found: dict[str, Any] = {}
    if numbers[0] or numbers[1]:
        found["in"] = numbers[:2]
    if numbers[2] or numbers[3]:
        found["out"] = numbers[2:4]
    if bits & _HEARD:
        found["heard"] = (then - numbers[4]) / _NANO
    if bits & _UNSENT:
        found["unsent"] = numbers[5]
    if bits & _HEARD_RAW:
        heard = reader.float()
        found["heard"] = None if heard == -NEVER else heard
    if bits & _STUCK:
        found["stuck_at"] = reader.float()
    return found


def _details(noted: int, reader: _Reader) -> list[Any]:
    if _DETAILS[noted] >= 8:
        times = [reader.float() for _ in range(_DETAILS[noted] // 8)]
        return [None if time == NEVER else time for time in times]
    details = [reader.byte() for _ in range(_DETAILS[noted])]
    if noted in (Noted.CLOSE, Noted.FAILED):
        return [_CAUSES[details[0]].value, *(_INITIATORS[at].value for at in details[1:])]
    return details
