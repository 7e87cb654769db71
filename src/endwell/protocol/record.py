"""The record of an ending: its format, as bytes while the connection lasts, and as JSON.

An entry of the bytes, in this order; a *varint* has seven bits in each byte, the lowest first:

- one byte: the :class:`Noted` in its lower five bits, ``RAW``, ``TRAFFIC``;
- the time since the entry before, in nanoseconds, as a varint; with ``RAW`` the time itself, as a float;
- with ``TRAFFIC``: a byte that says what follows, in the order of ``MESSAGES_IN`` ... ``STUCK``;
- what the :class:`Noted` needs: ``DETAILS``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import unpack_from
from typing import Any

from ..ending import Cause, Initiator
from .deadline import NEVER

__all__ = [
    "BYTES_IN",
    "BYTES_OUT",
    "BY_DATA",
    "DETAILS",
    "FORMAT",
    "HEARD",
    "HEARD_RAW",
    "KIND",
    "MAX_CUES",
    "MAX_RECORD",
    "MAX_TIME",
    "MESSAGES_IN",
    "MESSAGES_OUT",
    "NANO",
    "RAW",
    "STUCK",
    "TRAFFIC",
    "UNSENT",
    "WHILE_OPEN",
    "Noted",
    "Record",
    "nanoseconds",
]

#: The version of the format of a record.
FORMAT = 1
#: Number of cues that are kept, if the ring has room for them; and one more, because a pong is dropped with its ping.
MAX_CUES = 64
#: Bytes of a record as JSON.
MAX_RECORD = 4096


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
    TICK = 21  #: a deadline passed, and nothing was due, while the last ping replaced one
    TICK_UNREAD = 22  #: the same while reading was paused, without a sign of the peer's kernel


_NAMES = [noted.name.lower() for noted in Noted]
_CAUSES, _INITIATORS = list(Cause), list(Initiator)

#: Bytes at the end of each kind of entry, by :class:`Noted`: small numbers, or if they are 8 or more, floats.
DETAILS = bytes(
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

#: Cues of an open connection: a replay may begin behind them.
WHILE_OPEN = frozenset(
    (
        Noted.OPENED,
        Noted.PING,
        Noted.PING_UNREAD,
        Noted.PINGED,
        Noted.PONG,
        Noted.PONGS,
        Noted.STALLED,
        Noted.TICK,
        Noted.TICK_UNREAD,
    )
)

#: What data of the peer are the cause of: without another value, the peer was alive at the time of the entry.
BY_DATA = frozenset((Noted.PONG, Noted.PONGS, Noted.PEER_CLOSE, Noted.PEER_CLOSE_BEHIND, Noted.FAULT))

KIND = 0x1F
TRAFFIC = 0x20
RAW = 0x40
#: The bits of the byte of the traffic since the entry before: numbers as varints,
MESSAGES_IN, BYTES_IN, MESSAGES_OUT, BYTES_OUT = 1, 2, 4, 8
#: when the peer was last known to be alive: nanoseconds before this entry, or that time itself, as a float;
#: without either, it is the same as after the entry before,
HEARD, HEARD_RAW = 16, 32
#: the number of bytes that wait to be sent, as a varint,
UNSENT = 64
#: and when the connection would end because the peer accepts no data, as a float.
STUCK = 128

NANO = 1e9
#: From this time on, its nanoseconds have more than 64 bits.
MAX_TIME = 9e9


def nanoseconds(time: float) -> int:
    """The time before which the next entry counts, if an entry has ``time`` as a float."""
    return int(time * NANO) if abs(time) < MAX_TIME else 0


class Record(Mapping[str, Any]):
    """What a recorder has at the end of a connection, in values that ``json.dumps()`` accepts.

    The entries are decoded when they are first read, because most records never are.
    """

    def __init__(self, head: Mapping[str, Any], recording: tuple[bytes, int, int, bool]) -> None:
        self._head = head
        self._recording = recording
        self._values: dict[str, Any] | None = None

    def _decoded(self) -> dict[str, Any]:
        if self._values is None:
            entries, first, dropped, complete = self._recording
            cues = list(_decode(entries, first))
            values = {"format": FORMAT, **self._head, "dropped": dropped, "complete": complete, "cues": cues}
            while (excess := len(json.dumps(values)) - MAX_RECORD) > 0 and cues:
                # Text is at most a reason; the rest of the record is below the limit.
                count = min(len(cues), 1 + excess // 100)
                values["complete"] &= all(Noted[cue[1].upper()] in WHILE_OPEN for cue in cues[:count])
                values["dropped"] += count
                del cues[:count]
            if values["dropped"] and {"stalled", "due"} <= {cue[1] for cue in cues}:
                # A stall moves the deadline of a ping that may have been dropped.
                values["complete"] = False
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
        if head & RAW:
            now = reader.float()
            then = nanoseconds(now)
        else:
            then += reader.number()
            now = then / NANO
        traffic = _traffic(reader, then) if head & TRAFFIC else {}
        noted = head & KIND
        yield [now, _NAMES[noted], *_details(noted, reader), *([traffic] if traffic else [])]


def _traffic(reader: _Reader, then: int) -> dict[str, Any]:
    bits = reader.byte()
    numbers = [
        reader.number() if bits & bit else 0
        for bit in (MESSAGES_IN, BYTES_IN, MESSAGES_OUT, BYTES_OUT, HEARD, UNSENT)
    ]
    found: dict[str, Any] = {}
    if numbers[0] or numbers[1]:
        found["in"] = numbers[:2]
    if numbers[2] or numbers[3]:
        found["out"] = numbers[2:4]
    if bits & HEARD:
        found["heard"] = (then - numbers[4]) / NANO
    if bits & UNSENT:
        found["unsent"] = numbers[5]
    if bits & HEARD_RAW:
        heard = reader.float()
        found["heard"] = None if heard == -NEVER else heard
    if bits & STUCK:
        found["stuck_at"] = reader.float()
    return found


def _details(noted: int, reader: _Reader) -> list[Any]:
    if DETAILS[noted] >= 8:
        times = [reader.float() for _ in range(DETAILS[noted] // 8)]
        return [None if time == NEVER else time for time in times]
    details = [reader.byte() for _ in range(DETAILS[noted])]
    if noted in (Noted.CLOSE, Noted.FAILED):
        return [_CAUSES[details[0]].value, *(_INITIATORS[at].value for at in details[1:])]
    return details
