"""The values of a record that came from a file, checked: nothing in it is executed, and nothing can be large."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from errno import ETIMEDOUT
from typing import Any

from ..ending import Cause, Close, Ending, Initiator
from ..fields import count, flag, mapping, member, number, optional, seconds, text
from ..options import Options
from .closing import ERROR_KINDS, RECORDED_OPTIONS
from .deadline import NEVER
from .record import FORMAT, MAX_CUES, Noted

__all__ = ["CueValues", "RecordValues"]

#: Above this number of bytes or messages, a record is not one of endwell.
_MANY = 2**62
#: A Close frame has at most 125 bytes, a header of 2, and a masking key of 4.
_MAX_CLOSE_FRAME = 131


def _many(name: str, value: Any) -> int:
    if (found := count(name, value)) > _MANY:
        raise ValueError(f"{name} is too large")
    return found


def _items(name: str, value: Any, least: int, most: int) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} must be a list, not {type(value).__name__}")
    if not least <= len(value) <= most:
        raise ValueError(f"{name} must have {least} to {most} items, not {len(value)}")
    return value


def _two(name: str, value: Any) -> tuple[int, int]:
    first, second = _items(name, value, 2, 2)
    return _many(name, first), _many(name, second)


def _time(name: str, value: Any) -> float:
    return NEVER if value is None else number(name, value)


_cause, _initiator = member(Cause), member(Initiator)
#: How the details of a cue are read; a cue that is not here has none.
_DETAILS: Mapping[Noted, tuple[Callable[[str, Any], Any], ...]] = {
    Noted.DUE: (number, number, _time, _time),
    Noted.DUE_UNREAD: (number, number, _time, _time),
    Noted.STALLED: (number, seconds, number, number, seconds),
    Noted.PONGS: (count,),
    Noted.CLOSE: (_cause,),
    Noted.FAILED: (_cause, _initiator),
    Noted.LOST: (count,),
    Noted.TIME_UP: (_time,),
}
_NOTED = {noted.name.lower(): noted for noted in Noted}


class CueValues:
    """One cue of a record, checked."""

    def __init__(self, name: str, value: Any) -> None:
        parts = _items(name, value, 2, 8)
        self.now = number(f"{name}: time", parts[0])
        noted = _NOTED.get(text(f"{name}: cue", parts[1]))
        if noted is None:
            raise ValueError(f"{name}: unknown cue {parts[1][:50]!r}")
        self.noted = noted
        read = _DETAILS.get(noted, ())
        if not len(read) <= len(parts) - 2 <= len(read) + 1:
            raise ValueError(f"{name}: a {parts[1]} has {len(read)} details")
        details = parts[2 : 2 + len(read)]
        self.details = tuple(
            check(f"{name}: details", detail) for check, detail in zip(read, details, strict=True)
        )
        traffic = mapping(f"{name}: traffic", parts[-1]) if len(parts) - 2 > len(read) else {}
        self.received = _two(f"{name}: in", traffic.get("in", (0, 0)))
        self.sent = _two(f"{name}: out", traffic.get("out", (0, 0)))
        self.unsent = _many(f"{name}: unsent", traffic.get("unsent", 0))
        #: None: it did not change, or data came with this cue.
        self.heard: float | None = None
        if "heard" in traffic:
            heard = optional(number)(f"{name}: heard", traffic["heard"])
            self.heard = -NEVER if heard is None else heard
        stuck = optional(number)(f"{name}: stuck_at", traffic.get("stuck_at"))
        self.stuck_at = NEVER if stuck is None else stuck


class RecordValues:
    """A record, checked: its errors are TypeError and ValueError, and nothing in it can be large."""

    def __init__(self, ending: Ending, values: Mapping[str, Any]) -> None:
        version = count("record.format", values.get("format"))
        if version != FORMAT:
            raise ValueError(
                f"record.format {version} is unknown: this version of endwell reads format {FORMAT}; "
                "a later one may read it"
            )
        self.role = text("record.role", values.get("role"))
        if self.role not in ("client", "server"):
            raise ValueError(f"record.role must be client or server, not {self.role[:50]!r}")
        protocol = optional(mapping)("record.protocol", values.get("protocol"))
        self.protocol = None if protocol is None else _features(protocol)
        self.connected = flag("record.connected", values.get("connected"))
        self.options = _options(mapping("record.options", values.get("options")))
        self.began = number("record.began", values.get("began"))
        self.opened = number("record.opened", values.get("opened"))
        self.last_ping = number("record.last_ping", values.get("last_ping"))
        stalls = _items("record.stalls", values.get("stalls"), 3, 3)
        self.stalls = [number("record.stalls", time) for time in stalls]
        close = values.get("close")
        self.close = Close() if close is None else _close(close)
        self.close_size = _many("record.close_size", values.get("close_size"))
        if self.close_size > _MAX_CLOSE_FRAME:
            raise ValueError(f"record.close_size must be at most {_MAX_CLOSE_FRAME}")
        errors = mapping("record.errors", values.get("errors"))
        said = ending.as_dict()["exception"] or "Exception: "
        self.errors = {
            name: _error(f"record.errors.{name}", errors.get(name), said)
            for name in ("first", "last", "write")
        }
        self.dropped = _many("record.dropped", values.get("dropped"))
        if not flag("record.complete", values.get("complete")):
            raise ValueError(
                "record.complete is false: cues that determine the end were dropped for later ones, such as many "
                "stalls of the process, so the end cannot be replayed"
            )
        cues = _items("record.cues", values.get("cues"), 0, MAX_CUES + 1)
        self.cues = [CueValues(f"record.cues[{at}]", cue) for at, cue in enumerate(cues)]
        for name in (
            "messages_in",
            "messages_out",
            "bytes_in",
            "bytes_out",
            "unsent_bytes",
            "dropped_messages",
        ):
            _many(name, getattr(ending, name))


def _features(values: Mapping[str, Any]) -> dict[str, bool]:
    return {
        name: flag(f"record.protocol.{name}", values.get(name))
        for name in ("close", "codes", "pings", "reply")
    }


def _options(values: Mapping[str, Any]) -> Options:
    read = {name: optional(number)(f"record.options.{name}", values.get(name)) for name in RECORDED_OPTIONS}
    try:
        return Options(**read)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"record.options: {error}") from None


def _close(value: Any) -> Close:
    code, reason = _items("record.close", value, 2, 2)
    try:
        return Close(code, reason)
    except (TypeError, ValueError) as error:
        raise type(error)(f"record.close: {error}") from None


def _error(name: str, value: Any, said: str) -> BaseException | None:
    """An error of the recorded kind, whose type has the name and whose text is that of the recorded one."""
    if value is None:
        return None
    kind, cause, timed_out = _items(name, value, 3, 3)
    base = ERROR_KINDS.get(text(name, kind))
    if base is None:
        raise ValueError(f"{name}: unknown kind {kind[:50]!r}")
    type_name, _, words = said.partition(": ")
    members: dict[str, Any] = {"__str__": lambda _: words}
    if kind == "peer":
        members["cause"] = _cause(name, cause)
        if members["cause"].close_code is None:
            raise ValueError(f"{name}: a peer's error has a close code")
    if flag(name, timed_out):
        members["errno"] = ETIMEDOUT
    error: BaseException = type(type_name, (base,), members)()
    return error
