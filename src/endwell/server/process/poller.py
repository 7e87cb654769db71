"""Waits for several file descriptors."""

from __future__ import annotations

import select
from typing import Any, Protocol

__all__ = ["READ", "WRITE", "Poller"]

#: The events, for poll() and epoll. Not names of ``select``, because the module can be imported on Windows.
READ, WRITE = 1, 4


class _Watched(Protocol):
    def fileno(self) -> int: ...


class Poller:
    """Waits for file descriptors, each with an object.

    ``selectors`` makes an object for each event, which takes as long as the system call. A supervisor waits once for
    each publication.
    """

    def __init__(self) -> None:
        # macOS has no epoll. A supervisor has few descriptors, so poll() is as good as kqueue.
        self._poll: Any = select.epoll() if hasattr(select, "epoll") else select.poll()
        #: What its timeout counts in a second.
        self._unit = 1 if hasattr(select, "epoll") else 1000
        self._objects: dict[int, Any] = {}

    def __contains__(self, watched: _Watched) -> bool:
        return watched.fileno() in self._objects

    def __getitem__(self, descriptor: int) -> Any:
        return self._objects[descriptor]

    def add(self, watched: _Watched, data: Any) -> None:
        """Wait until ``watched`` is readable. ``data`` is the object of its descriptor."""
        self._poll.register(watched.fileno(), READ)
        self._objects[watched.fileno()] = data

    def change(self, watched: _Watched, events: int) -> None:
        """Wait for other events."""
        self._poll.modify(watched.fileno(), events)

    def remove(self, watched: _Watched) -> None:
        """Do not wait for ``watched`` any more."""
        self._poll.unregister(watched.fileno())
        del self._objects[watched.fileno()]

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for events; returns the descriptors that are ready, each with its events.

        An error or a hang-up is an event, too, that is neither READ nor WRITE.
        """
        ready: list[tuple[int, int]] = self._poll.poll(None if timeout is None else timeout * self._unit)
        return ready

    def close(self) -> None:
        """Wait for nothing any more."""
        if hasattr(self._poll, "close"):
            self._poll.close()
        self._objects.clear()
