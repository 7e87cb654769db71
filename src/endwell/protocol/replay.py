"""Steps a core through the record of an ending: the same code, the recorded cues and clock, no I/O."""

# size: one core and one method for each cue, and the comparison of two records

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from ..ending import Cause, Close, Ending, Initiator
from ..errors import PeerError
from ..wire.codec import Buffer, Codec, Pong
from .closing import TABLE, Cue, Do, State
from .connection import Connection
from .pause import Pause
from .record import BY_DATA, WHILE_OPEN, Noted
from .recorded import CueValues, RecordValues

__all__ = ["Replayed", "Step", "Taken", "replay"]

_NO_FAULT = "record.errors.first must be of the kind peer: the record has a fault of the peer"

_STALLS = "stalled_since", "stalled_until", "stalled_for"

_PONGS = ("pong", "pongs")
_PAUSED = int(Pause.DELIVERY)
_MASK = 0xFFFFFFFF
#: The numbers of a cue.
_NUMBERS = "messages_in", "bytes_in", "messages_out", "bytes_out"
#: The fields of a record that a replay finds again.
_RESULTS = "opened", "ended", "close", "close_size"
#: Those that a replay finds only if the record has all cues.
_RESULTS_OF_ALL = "last_ping", "stalls"


@dataclass(frozen=True, slots=True)
class Taken:
    """A row of the closing table that was taken."""

    at: float  #: Seconds since the connection began.
    before: State
    cue: Cue
    after: State
    do: tuple[Do, ...]
    #: The cause, if the cue has one.
    cause: Cause | None
    #: What this side sent with it; None if it sent no Close.
    close: Close | None
    #: The facts that led to the cue, as a phrase; "" if the cue says it all.
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """A cue of the record, and the rows that the core has taken for it."""

    at: float  #: Seconds since the connection began.
    noted: Noted
    details: tuple[Any, ...]
    #: Messages and bytes since the cue before: received, sent.
    received: tuple[int, int]
    sent: tuple[int, int]
    #: Bytes that waited to be sent.
    unsent: int
    rows: list[Taken] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay."""

    #: The ending that was recorded, and the one of the replay; None if the replayed connection has not ended.
    recorded: Ending
    ending: Ending | None
    steps: tuple[Step, ...]
    #: The number of older cues that the record does not have.
    dropped: int
    role: str
    #: What differs between the record and the one that the replay has made, by the name of the field.
    strays: Mapping[str, tuple[Any, Any]]

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """For each field of the ending and of its record that differs, the recorded value and the one of the replay."""
        recorded = _without_record(self.recorded)
        replayed = {} if self.ending is None else _without_record(self.ending)
        differing = {
            name: (value, replayed.get(name))
            for name, value in recorded.items()
            if name not in replayed or replayed[name] != value
        }
        return {**differing, **self.strays}


def _without_record(ending: Ending) -> dict[str, Any]:
    return {name: value for name, value in ending.as_dict().items() if name != "record"}


def replay(values: Any) -> Replayed:
    """Replay an ending with a record, as ``Ending.as_dict()`` makes it.

    Raises TypeError or ValueError for an invalid one. The text begins with the name of the field.
    """
    recorded = Ending.from_dict(values)
    if recorded.record is None:
        raise ValueError(
            "record is absent: the option recorder was off, or the connection ended normally (ok is True)"
        )
    record = RecordValues(recorded, recorded.record)
    return _Stage(recorded, record).run()


# -- the core ---------------------------------------------------------------------


class _Codec(Codec):
    """Parses nothing: it delivers what the record has, and builds a Close of the recorded length."""

    def __init__(self, record: RecordValues) -> None:
        super().__init__(record.role == "client")
        assert record.protocol is not None
        self.has_close, self.has_codes = record.protocol["close"], record.protocol["codes"]
        self.has_pings, self.has_reply = record.protocol["pings"], record.protocol["reply"]
        self._size = record.close_size
        #: The rule that the peer has broken, and the Close that was built.
        self.fault: BaseException | None = None
        self.closed_with: Close | None = None

    def feed(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """See the base class; there are no data."""
        self.has_unparsed = False
        if self.fault is not None:
            raise self.fault

    def ping(self, payload: Buffer) -> bytes:
        """See the base class. The record has the size of what is queued."""
        return b""

    def close(self, close: Close) -> bytes:
        """See the base class."""
        self.closed_with = close
        return bytes(self._size)


class _Core(Connection):
    """A core that notes which rows it takes."""

    def __init__(self, record: RecordValues, opened_at: float) -> None:
        # It records, too: a cue that has no effect now is not in its record.
        options = record.options.replace(recorder=True)
        super().__init__(record.role == "client", options, record.began, opened_at)
        self.connected = record.connected
        self.began = record.began
        self.codec = None if record.protocol is None else _Codec(record)
        self.rows: list[Taken] = []
        # Whether stalls are those that this core finds. The record has each of them as a cue.
        self._is_replaying = True
        self._armed_at = record.began

    def cue(
        self, cue: Cue, now: float, cause: Cause | None = None, exception: BaseException | None = None
    ) -> None:
        """See the base class."""
        self.fail_on_fault(now)
        before = self.state
        row = TABLE.get((before, cue))
        if row is None:
            return
        why = self._why(cue, cause, exception, now)
        at = len(self.rows)
        if self.codec is not None:
            self.codec.closed_with = None
        super().cue(cue, now, cause, exception)
        close = None if self.codec is None else self.codec.closed_with
        if Do.ARM in row.do:
            self._armed_at = now
        # Before the rows that were taken within this one.
        self.rows.insert(at, Taken(now - self.began, before, cue, row.state, row.do, cause, close, why))

    def stalled(self, since: float, seconds: float, now: float) -> None:
        """See the base class."""
        if not self._is_replaying:
            super().stalled(since, seconds, now)

    def stall(self, since: float, seconds: float, now: float) -> None:
        """A stall that the record has."""
        self._is_replaying = False
        self.stalled(since, seconds, now)
        self._is_replaying = True

    def receive_control(self, control: Any, now: float) -> None:
        """A control frame came, or if it is an error, something that breaks a rule."""
        if self.codec is None:
            return
        if isinstance(control, BaseException):
            self.codec.fault = control
        else:
            self.codec.controls.append(control)
        self.codec.has_unparsed = True
        self.feed(bytearray(), 0, now)
        self.codec.fault = None

    def _why(self, cue: Cue, cause: Cause | None, exception: BaseException | None, now: float) -> str:
        """The facts that led to ``cue``."""
        options = self.options
        if cue is Cue.SILENT:
            return (
                f"the last ping was sent at {self.last_ping - self.began:.3f} s, the last data came at "
                f"{self.last_heard - self.began:.3f} s; ping_interval is {_seconds(options.ping_interval)}, "
                f"ping_timeout {_seconds(options.ping_timeout)}"
            )
        if cue is Cue.STUCK:
            waiting = f"{self.outbox.size} bytes wait to be sent"
            return f"{waiting}, and none was accepted for write_timeout, {_seconds(options.write_timeout)}"
        if cue in (Cue.TIME_UP, Cue.LINGERED):
            name = self._timeout(now)
            return f"{name} is {_seconds(getattr(options, name))}"
        if exception is not None:
            return f"{type(exception).__name__}: {str(exception)!r}"
        if cue is Cue.WE_CLOSE and cause is not None:
            return cause.meaning
        return ""

    def _timeout(self, now: float) -> str:
        """The option whose time is up."""
        own = {State.OPENING: "open_timeout", State.ANSWERING: "answer_timeout"}.get(self.state)
        late = now >= self._armed_at + self.options.close_timeout or self.state is State.CLOSING
        return own or ("close_timeout" if late else "linger_timeout")


def _first_of_closing(cues: Sequence[Any]) -> int:
    """The index of the first cue after those of an open connection."""
    return next((at for at, cue in enumerate(cues) if Noted[cue[1].upper()] not in WHILE_OPEN), len(cues))


def _without_traffic(cue: Sequence[Any]) -> list[Any]:
    """What the core was told. The traffic is given to the core, so it is the same."""
    return [part for part in cue if not isinstance(part, Mapping)]


def _seconds(value: float | None) -> str:
    return "None" if value is None else f"{value:g} s"


class _Stage:
    """One replay."""

    def __init__(self, ending: Ending, record: RecordValues) -> None:
        self._ending = ending
        self._record = record
        self._core = _Core(record, ending.opened_at)
        # The numbers at the cue that is replayed, as _NUMBERS names them; and those when the connection opened.
        self._numbers = self._first = self._first_numbers()

    def _first_numbers(self) -> list[int]:
        """The numbers when the connection opened, or before the oldest cue that the record has."""
        cues = self._record.cues
        opened = [at for at, cue in enumerate(cues) if cue.noted is Noted.OPENED]
        if opened:  # the numbers of the opening handshake do not count
            cues = cues[opened[0] :]
        numbers = []
        for at, name in enumerate(_NUMBERS):
            number = getattr(self._ending, name) - sum((*cue.received, *cue.sent)[at] for cue in cues)
            if number < 0:
                raise ValueError(f"record.cues have more {name} than the ending")
            # A record has only the lower 32 bits of what came between two cues.
            numbers.append(number & ~_MASK if opened or not self._record.dropped else number)
        return numbers

    def run(self) -> Replayed:
        """Replay all cues, and what was sent after the last one."""
        record, ending, core = self._record, self._ending, self._core
        if record.dropped and record.protocol is not None:
            self._begin_in_the_middle()
        # Before the cues: a server that waits for the end of TCP makes its ending with one of them.
        core.restore({"dropped_messages": ending.dropped_messages})
        steps = [self._step(cue) for cue in record.cues]
        # A message that was queued after the last cue is in no cue, and was not sent.
        queued = ending.messages_out if ending.unsent_bytes else core.messages_out
        core.restore(
            {
                "messages_out": max(core.messages_out, queued),
                # The driver may have sent more after the last cue.
                "bytes_out": ending.bytes_out,
                # Without `sent`, the Close was not written either.
                "unsent": ending.unsent_bytes + (record.close_size if ending.sent is None else 0),
            }
        )
        replayed = core.ending
        strays = {} if replayed is None else self._strays()
        core.sent(core.outbox.size, 0.0)  # gives the block of the outbox back
        if replayed is not None:
            # The object is frozen, but has no reader yet.
            object.__setattr__(replayed, "record", None)
        return Replayed(ending, replayed, tuple(steps), record.dropped, record.role, strays)

    def _strays(self) -> dict[str, tuple[Any, Any]]:
        """What differs between the two records."""
        recorded, replayed = self._ending.record, self._core.record()
        assert recorded is not None
        if replayed is None:
            return {"record.cues": (recorded["cues"], None)}
        dropped = self._record.dropped > 0
        found = {
            f"record.{name}": (recorded.get(name), replayed[name])
            for name in (_RESULTS if dropped else (*_RESULTS, *_RESULTS_OF_ALL))
            if recorded.get(name) != replayed[name]
        }
        rows, again = list(enumerate(recorded["cues"])), replayed["cues"]
        if dropped:
            rows = [row for row in rows[_first_of_closing(recorded["cues"]) :] if row[1][1] not in _PONGS]
            again = again[_first_of_closing(again) :]
        for numbered, other in zip_longest(rows, again):
            at, row = numbered or (len(recorded["cues"]), None)
            if row is None or other is None or _without_traffic(row) != _without_traffic(other):
                found[f"record.cues[{at}]"] = row, other
                break  # those behind it are shifted
        return found

    def _begin_in_the_middle(self) -> None:
        """The oldest cues are not in the record: the connection is open."""
        record, core = self._record, self._core
        core.accept(self._codec(), record.opened)
        core.rows.clear()
        noted = {cue.noted for cue in record.cues}
        # Pings that a pong answers may be among the cues that were dropped.
        values: dict[str, Any] = {"latency": self._ending.latency}
        if not noted & {Noted.PING, Noted.PING_UNREAD}:
            values["last_ping"] = record.last_ping
        if Noted.STALLED not in noted:
            values.update(zip(_STALLS, record.stalls, strict=True))
        core.restore(values)

    def _codec(self) -> _Codec:
        if self._core.codec is None:
            raise ValueError("record.protocol is absent, and the connection was opened")
        return self._core.codec

    def _step(self, cue: CueValues) -> Step:
        core = self._core
        if cue.noted is Noted.OPENED:
            self._numbers = self._first
        more = *cue.received, *cue.sent
        self._numbers = [number + count for number, count in zip(self._numbers, more, strict=True)]
        values: dict[str, Any] = {
            **dict(zip(_NUMBERS, self._numbers, strict=True)),
            "unsent": cue.unsent,
            "stuck_at": cue.stuck_at,
        }
        if cue.heard is not None:
            values["heard"] = cue.heard
        elif cue.noted in BY_DATA:
            values["heard"] = cue.now
        core.restore(values)
        core.rows = []
        _PLAY[cue.noted](self, cue.now, *cue.details)
        at = cue.now - self._record.began
        return Step(at, cue.noted, cue.details, cue.received, cue.sent, cue.unsent, core.rows)

    # -- what each cue tells the core ---------------------------------------------

    def _opened(self, now: float) -> None:
        self._core.accept(self._codec(), now)

    def _ping(self, now: float) -> None:
        # No limit of time had passed.
        self._core.restore({"last_message_at": now, "last_received_at": now})
        self._core.tick(now)

    _tick = _ping

    def _ping_unread(self, now: float) -> None:
        self._core.pause(_PAUSED)
        self._ping(now)
        self._core.resume(_PAUSED)

    _tick_unread = _ping_unread

    def _due(self, now: float, *times: float) -> None:
        names = ("last_message_at", "last_received_at", "expires", "authorized_until")
        self._core.restore(dict(zip(names, times, strict=True)))
        self._core.tick(now)

    def _due_unread(self, now: float, *times: float) -> None:
        self._core.pause(_PAUSED)
        self._due(now, *times)
        self._core.resume(_PAUSED)

    def _pinged(self, now: float) -> None:
        self._core.ping(None, now)

    def _pong(self, now: float) -> None:
        self._pongs(now, 1)

    def _pongs(self, now: float, answered: int) -> None:
        if self._record.dropped:
            return  # see _begin_in_the_middle
        payloads = list(self._core._unanswered or ())
        if 0 < answered <= len(payloads):
            self._core.receive_control(Pong(payloads[answered - 1]), now)

    def _stalled(self, now: float, since: float, seconds: float, *before: float) -> None:
        self._core.restore(dict(zip(_STALLS, before, strict=True)))
        self._core.stall(since, seconds, now)

    def _close(self, now: float, cause: Cause) -> None:
        self._core.close(self._record.close, now, cause)

    def _failed(self, now: float, cause: Cause, initiator: Initiator) -> None:
        self._core.fail_opening(cause, now, self._record.errors["first"], initiator)

    def _peer_close(self, now: float) -> None:
        if self._ending.received is None:
            raise ValueError("received is absent, and the record has a Close of the peer")
        self._core.receive_control(self._ending.received, now)

    def _peer_close_behind(self, now: float) -> None:
        # An unread message: the application is busy.
        self._core.inbox.messages.append("")
        self._peer_close(now)
        self._core.inbox.clear()

    def _fault(self, now: float) -> None:
        fault = self._record.errors["first"]
        if not isinstance(fault, PeerError):
            raise ValueError(_NO_FAULT)  # noqa: TRY004  (the value of a file is wrong)
        self._core.receive_control(fault, now)

    def _handled(self, now: float) -> None:
        self._core.handled(now)

    def _eof(self, now: float) -> None:
        self._core.eof(now)

    def _broken(self, now: float) -> None:
        self._core.broken(self._error("write"), now)

    def _lost(self, now: float, tls: int) -> None:
        self._core.lost(self._error("last"), now, tls > 0)

    def _gone(self, now: float) -> None:
        self._core.gone(now)

    def _time_up(self, now: float, report_at: float) -> None:
        # It depends on what was sent since the last cue. Before a closing, there is none: it would end a connection
        # without a cause.
        if self._core.state is not State.OPENING:
            self._core.restore({"report_at": report_at})
        self._core.time_up(now)

    def _sent(self, now: float) -> None:
        if self._core.state is State.LINGERING:
            self._core.sent_in_lingering(1, now)

    def _error(self, name: str) -> BaseException:
        error = self._record.errors[name]
        if error is None:
            raise ValueError(f"record.errors.{name} is absent, and the record has a cue with it")
        return error


#: The method for each cue.
_PLAY: Mapping[Noted, Callable[..., None]] = {
    noted: getattr(_Stage, f"_{noted.name.lower()}") for noted in Noted
}
