"""How the processes of a server serve: alone or as workers, and how they stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..drain.timetable import Drain

__all__ = ["STARTUP_FAILED", "ProcessOptions", "ReloadOptions"]

#: The exit status if an application cannot start. Precedent: uvicorn's STARTUP_FAILURE.
STARTUP_FAILED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadOptions:
    """Which changes of files restart the workers."""

    #: The folders, with all folders in them.
    folders: Sequence[str]
    #: Patterns of the names of files that count, and of those that do not.
    include: Sequence[str] = ("*.py",)
    exclude: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """How the processes of a server serve."""

    #: How they stop.
    drain: Drain = field(default_factory=Drain)
    #: Number of worker processes; None: this process serves.
    workers: int | None = None
    #: Whether the listening sockets come from another process, which keeps them open.
    inherited: bool = False
    #: Number of requests after which a worker is replaced, and how much more is added at random, so that the
    #: workers are not replaced at the same time. None: they are not replaced.
    max_requests: int | None = None
    max_requests_jitter: int = 0
    #: Restart the workers when files change. None: do not.
    reload: ReloadOptions | None = None
