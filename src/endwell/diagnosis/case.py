"""What a rule is, and what it reads: the fields of an Ending that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import NamedTuple, TypeAlias

from ..ending import Cause, Close, Ending, TcpEnd

__all__ = ["Case", "Clues", "Rule", "counted", "were"]

#: Weights and sentences: what speaks for a cause.
Clues: TypeAlias = Iterator[tuple[int, str]]

_FIELDS = frozenset(field.name for field in fields(Ending))
_COUNTS = frozenset({"messages_in", "messages_out", "bytes_in", "bytes_out"})


class Case:
    """An ending, of which only some fields may be known. Unknown ones are None here."""

    def __init__(
        self,
        ending: Ending,
        known: Iterable[str] | None = None,
        failure: str = "",
        status: int | None = None,
        role: str | None = None,
    ) -> None:
        known = _FIELDS if known is None else frozenset(known)
        self.ending = ending
        self.failure = failure
        self.status = status
        #: This side: "server" or "client"; None if it is not known.
        self.role = role
        self.duration = ending.duration
        self.stalled = ending.stalled
        self.received: Close | None = ending.received
        self.sent: Close | None = ending.sent
        self.tcp: TcpEnd | None = ending.tcp if "tcp" in known else None
        #: The exception as "TYPE: TEXT"; "" if there is none.
        self.error: str = ending.as_dict()["exception"] or ""
        #: Whether the numbers of messages and bytes are known.
        self.counted = known >= _COUNTS
        #: Whether it is known that no message was sent or received.
        self.no_message = self.counted and not ending.messages_in and not ending.messages_out
        #: Whether it is known that no byte followed the opening handshake.
        self.no_data = self.counted and not ending.bytes_in and not ending.bytes_out
        #: Whether it is known that no ping was answered.
        self.no_pong = "latency" in known and ending.latency is None
        self.latency: float | None = ending.latency if "latency" in known else None
        self.unsent: int = ending.unsent_bytes if "unsent_bytes" in known else 0

    @property
    def code(self) -> int | None:
        """The code of the received Close; 1005 if it had none, None if there was no Close."""
        if self.received is None:
            return None
        return 1005 if self.received.code is None else int(self.received.code)

    @property
    def reason(self) -> str:
        """The reason of the received Close."""
        return "" if self.received is None else self.received.reason

    def errs(self, *texts: str) -> bool:
        """Whether the exception contains one of ``texts``."""
        return any(text in self.error for text in texts)


class Rule(NamedTuple):
    """A likely cause."""

    name: str
    #: The causes for which the rule is tried.
    causes: frozenset[Cause]
    says: str
    advice: str
    #: Yields what speaks for the rule; nothing if it does not fit.
    clues: Callable[[Case], Clues]


def counted(number: int, noun: str) -> str:
    """Format a number and a noun: ``1 message``, ``2 messages``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def were(number: int, noun: str) -> str:
    """Format a number, a noun and a verb: ``1 message was``, ``2 messages were``."""
    return f"{counted(number, noun)} {'was' if number == 1 else 'were'}"
