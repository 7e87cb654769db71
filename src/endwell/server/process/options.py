"""How the processes of a server serve: alone or as workers, and how they stop."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..drain.timetable import Drain

__all__ = ["ProcessOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """How the processes of a server serve."""

    #: How they stop.
    drain: Drain = field(default_factory=Drain)
    #: Number of worker processes; None: this process serves.
    workers: int | None = None
    #: Whether the listening sockets come from another process, which keeps them open.
    inherited: bool = False
