"""What a drain has done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .timetable import Phase

__all__ = ["DrainReport", "by_name", "counted"]


@dataclass(frozen=True, slots=True)
class DrainReport:
    """The result of a drain, as returned by :meth:`Server.drain`. ``str()`` of it is one line of text.

    Example:
        ```python
        import asyncio
        from endwell import Server

        async def main():
            server = Server()
            async with server.serving(port=0):
                report = await server.drain()
            print(report)  # drained 0 connections in 0.0 s: none
            assert not report.stuck

        asyncio.run(main())
        ```
    """

    #: Number of connections at the start of the drain.
    connections: int
    #: Number of connections by how they ended: "clean" after a complete closing handshake, else how TCP ended
    #: (a value of ``TcpEnd``, such as "aborted"); "open" if the connection was still open at the end.
    endings: Mapping[str, int]
    #: Number of new connections and requests that were refused with 503.
    refused: int
    #: Number of connections that were closed although their handler was busy.
    last_called: int
    #: Number of messages that arrived before the connection ended, but that no handler had received when the
    #: Close was sent.
    unanswered: int
    #: Number of handlers that were cancelled. Handlers in threads cannot be cancelled.
    cancelled: int
    #: Names of the handlers that still ran at the end.
    stuck: tuple[str, ...]
    #: Name of the handler that returned last, and the seconds from the start of the drain until then; None if
    #: no handler returned.
    slowest: tuple[str, float] | None
    #: Seconds spent in each phase.
    phases: Mapping[Phase, float]
    #: Seconds of the whole drain.
    duration: float

    def __str__(self) -> str:
        """Return the report as one line of text."""
        ended = ", ".join(f"{count} {how}" for how, count in sorted(self.endings.items())) or "none"
        parts = [f"drained {counted(self.connections, 'connection')} in {self.duration:.1f} s: {ended}"]
        parts += self._troubles()
        if self.slowest is not None:
            parts.append(f"slowest handler: {self.slowest[0]}, {self.slowest[1]:.1f} s")
        if self.stuck:
            parts.append(f"handlers still running: {by_name(self.stuck)}")
        return "; ".join(parts)

    def _troubles(self) -> list[str]:
        troubles = [
            (self.unanswered, f"{counted(self.unanswered, 'message')} unanswered"),
            (self.last_called, f"{self.last_called} closed while busy"),
            (self.cancelled, f"{counted(self.cancelled, 'handler')} cancelled"),
            (self.refused, f"{counted(self.refused, 'request')} refused"),
        ]
        return [text for number, text in troubles if number]

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that can be serialized as JSON; :meth:`from_dict` is the inverse."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        phases = {phase.name: seconds for phase, seconds in self.phases.items()}
        return {**named, "stuck": Counter(self.stuck), "phases": phases}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> DrainReport:
        """Return the report from which :meth:`as_dict` made ``values``.

        Raises:
            KeyError: A field is missing.
            TypeError: ``values`` has an unknown field.
        """
        slowest, stuck = values["slowest"], values["stuck"]
        return DrainReport(
            **{
                **values,
                "stuck": tuple(Counter(stuck).elements()),
                "slowest": None if slowest is None else (slowest[0], slowest[1]),
                "phases": {Phase[name]: seconds for name, seconds in values["phases"].items()},
            }
        )

    @staticmethod
    def total(reports: Sequence[DrainReport]) -> DrainReport:
        """Return the sum of the reports of several servers that started to drain at the same time.

        Raises:
            ValueError: ``reports`` is empty.
        """
        slowest = [report.slowest for report in reports if report.slowest is not None]
        phases = {phase for report in reports for phase in report.phases}
        counts = ("connections", "refused", "last_called", "unanswered", "cancelled")
        return DrainReport(
            **{name: sum(getattr(report, name) for report in reports) for name in counts},
            endings=sum((Counter(report.endings) for report in reports), Counter()),
            stuck=tuple(sorted(name for report in reports for name in report.stuck)),
            slowest=max(slowest, key=lambda each: each[1], default=None),
            phases={phase: max(report.phases.get(phase, 0.0) for report in reports) for phase in phases},
            duration=max(report.duration for report in reports),
        )


def counted(number: int, noun: str) -> str:
    """Format a number and a noun: ``1 connection``, ``2 connections``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def by_name(names: Iterable[str]) -> str:
    """Format names with their numbers: ``2 x chat, 1 x echo``."""
    return ", ".join(f"{count} x {name}" for name, count in Counter(names).items())
