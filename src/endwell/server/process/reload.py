"""Watches files for changes, so that a supervisor can restart its workers."""

from __future__ import annotations

import logging
import os
import socket
import threading
from fnmatch import fnmatch
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any

from .options import ReloadOptions

__all__ = ["Watcher", "check_installed"]

logger = logging.getLogger("endwell.server")


def check_installed() -> None:
    """Raise ValueError if watchfiles is not installed."""
    if find_spec("watchfiles") is None:
        raise ValueError("--reload needs the package watchfiles: pip install 'endwell[reload]'")


class Watcher:
    """Watches in a thread. Its descriptor is readable when files have changed."""

    def __init__(self, options: ReloadOptions) -> None:
        self._options = options
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._names: SimpleQueue[str] = SimpleQueue()
        self._over = threading.Event()
        # watchfiles logs each change, too.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        self._thread = threading.Thread(target=self._watch, name="endwell reload", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """The file descriptor, for a selector."""
        return self._ours.fileno()

    def read(self) -> list[str]:
        """The names of the files that have changed since the last call."""
        self._ours.recv(4096)
        names: set[str] = set()
        try:
            while True:
                names.add(os.path.relpath(self._names.get_nowait()))
        except Empty:
            return sorted(names)

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()
        self._ours.close()
        self._theirs.close()

    def _watch(self) -> None:
        from watchfiles import DefaultFilter, watch

        ordinary = DefaultFilter()

        def is_wanted(change: Any, path: str) -> bool:
            return ordinary(change, path) and self._is_included(os.path.basename(path))

        try:
            for changes in watch(*self._options.folders, watch_filter=is_wanted, stop_event=self._over):
                for _, path in changes:
                    self._names.put(path)
                self._theirs.send(b"\0")
        except Exception as error:  # for example, the system's limit of watches is reached
            logger.error("changes of files are not noticed any more: %s", error)

    def _is_included(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self._options.include) and not any(
            fnmatch(name, pattern) for pattern in self._options.exclude
        )
