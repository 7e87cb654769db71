"""The flight recorder: the last cues of one connection, in a ring of bytes.

It notes what the core was told (a ping was due, the peer sent a Close, TCP ended) and when, and never the
content of a message. Messages are not noted one by one: each cue also has the numbers of messages and bytes
since the cue before, so a message costs nothing. ``record.py`` has the format.
"""

from __future__ import annotations

from struct import pack, unpack_from

from .deadline import NEVER
from .record import (
    BY_DATA,
    BYTES_IN,
    BYTES_OUT,
    DETAILS,
    HEARD,
    HEARD_RAW,
    KIND,
    MAX_CUES,
    MAX_TIME,
    MESSAGES_IN,
    MESSAGES_OUT,
    NANO,
    RAW,
    STUCK,
    TRAFFIC,
    UNSENT,
    WHILE_OPEN,
    Noted,
)

__all__ = ["RING", "Recorder"]

#: Bytes of the ring. An entry of a connection that only sends pings takes seven or less. A bytearray takes one byte
#: more than its length, and CPython's allocator rounds that up to a multiple of 16.
RING = 463
# C constants in the compiled module.
_SIZE, _MAX_CUES, _NANO, _MAX_TIME = RING, MAX_CUES, NANO, MAX_TIME
_KIND, _TRAFFIC, _RAW = KIND, TRAFFIC, RAW
_MESSAGES_IN, _BYTES_IN, _MESSAGES_OUT, _BYTES_OUT = MESSAGES_IN, BYTES_IN, MESSAGES_OUT, BYTES_OUT
_HEARD, _HEARD_RAW, _UNSENT, _STUCK = HEARD, HEARD_RAW, UNSENT, STUCK
_STALLED, _PONG, _PONGS = int(Noted.STALLED), int(Noted.PONG), int(Noted.PONGS)
_DETAILS = DETAILS
_BY_DATA = bytes(noted in BY_DATA for noted in Noted)
_WHILE_OPEN = bytes(noted in WHILE_OPEN for noted in Noted)
_MASK = 0xFFFFFFFF
#: Later than this, a float has not the nanoseconds of a time.
_MAX_EXACT = 9e6


class Recorder:
    """The ring of one connection. :meth:`note` writes an entry, and drops the oldest ones for it."""

    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_complete",
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
        # Whether every cue that was dropped is one of an open connection.
        self._complete = True
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
        # A stall makes the core forget when the peer was alive.
        self._fresh = not raw and seen == time and noted != _STALLED
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
        """Add a small number to the last entry, as ``DETAILS`` says."""
        self._put(min(detail, 255))

    def add_float(self, value: float) -> None:
        """Add a float to the last entry, as ``DETAILS`` says."""
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
            if not _WHILE_OPEN[head & _KIND]:
                self._complete = False
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

    def recording(self) -> tuple[bytes, int, int, bool]:
        """The entries, the oldest first; the time before the oldest one, in nanoseconds; about those that were dropped.

        That is how many they are, and whether the connection was open at each of them.
        """
        ring = bytes(self._ring)
        entries = (ring[self._start :] + ring)[: self._used]
        return entries, self._first, self._dropped, bool(self._complete)


def exact(time: float) -> int:
    """The nanoseconds of a time of the monotonic clock; negative if the time is not a number of them."""
    if not 0.0 <= time < _MAX_EXACT:
        return -1
    nanoseconds = int(time * _NANO + 0.5)
    return nanoseconds if nanoseconds / _NANO == time else -1


def _nanoseconds(time: float) -> int:
    return int(time * _NANO) if -_MAX_TIME < time < _MAX_TIME else 0
