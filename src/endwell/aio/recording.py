"""Where the endings that have a record go: to a function of the application, or to files in a directory."""

from __future__ import annotations

import _thread
import atexit
import json
import logging
import os
import threading
import time
from collections import deque
from contextlib import suppress

from ..ending import Ending
from ..options import RecorderOption
from .callbacks import check_returned

__all__ = ["MAX_BYTES", "MAX_FILES", "deliver"]

logger = logging.getLogger("endwell")

#: Files that are kept in a directory, and bytes of them; the oldest are deleted.
MAX_FILES = 1000
MAX_BYTES = 8 * 2**20
#: Endings that wait to be written. Above this number, because the disk is slow, further ones are lost.
MAX_WAITING = 1000
#: Files that are written between two looks at the directory.
BATCH = 64
#: Seconds for which the end of the process waits for what is not written yet.
EXIT_TIME = 2.0
#: Seconds after which a file that was not completed is deleted: its process was killed.
STALE = 3600.0

_PREFIX, _SUFFIX = "ending-", ".json"


def deliver(ending: Ending, recorder: RecorderOption) -> None:
    """Hand ``ending`` to the option ``recorder``, if it has a record. Called in the thread of the event loop."""
    if isinstance(recorder, bool) or ending.record is None:
        return
    if isinstance(recorder, str | os.PathLike):
        recorder = os.fspath(recorder)
        directory = _directories.get(recorder)
        if directory is None:
            # Another thread with an event loop may do the same.
            directory = _directories.setdefault(recorder, _Directory(recorder))
        directory.put(ending)
        return
    try:
        check_returned(recorder(ending), recorder)
    except KeyboardInterrupt:
        raise
    except BaseException:  # includes sys.exit(), as in an on_close callback
        logger.exception("the recorder %r failed", recorder)


class _Directory:
    """Writes endings to one directory. A thread does it, which ends when there is nothing to write."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: deque[Ending] = deque()
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._serial = 0
        # Whether the last attempt failed. Only the first failure in a row is logged.
        self._failing = False

    def put(self, ending: Ending) -> None:
        """Have ``ending`` written soon."""
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self._failed(f"{MAX_WAITING} of them wait to be written")
                return
            self._waiting.append(ending)
            if not self._idle.is_set():
                return
            self._idle.clear()
        try:
            # Not a Thread, whose start() waits until the thread runs.
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            self._waiting.clear()
            self._idle.set()
            self._failed(error)

    def wait(self, seconds: float) -> None:
        """Wait until everything is written, at most for ``seconds``."""
        self._idle.wait(seconds)

    def _run(self) -> None:
        while True:
            with self._lock:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                if not batch:
                    self._idle.set()
                    return
            try:
                self._write(batch)
                self._failing = False
            except (
                BaseException
            ) as error:  # otherwise this thread would end, and nothing more would be written
                self._failed(error)

    def _write(self, batch: list[Ending]) -> None:
        contents = [content for ending in batch if (content := self._encode(ending))]
        os.makedirs(self._path, exist_ok=True)
        self._make_room(len(contents), sum(map(len, contents)))
        for content in contents:
            self._serial += 1
            name = f"{time.time_ns():020}-{os.getpid()}-{self._serial}"
            unfinished = os.path.join(self._path, f".{_PREFIX}{name}")
            try:
                # Only this user may read it: the reason of a Close may be private.
                with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
                os.replace(unfinished, os.path.join(self._path, f"{_PREFIX}{name}{_SUFFIX}"))
            except OSError:
                with suppress(OSError):
                    os.unlink(unfinished)
                raise

    def _encode(self, ending: Ending) -> bytes:
        """The content of a file; b"" if the exception of the application has no text."""
        try:
            return json.dumps(ending.as_dict()).encode()
        except BaseException:  # whatever its __str__ raises; the other endings are written
            logger.exception("writing an ending to %r failed", self._path)
            return b""

    def _make_room(self, count: int, size: int) -> None:
        """Delete the oldest files, so that ``count`` files of ``size`` bytes may follow."""
        found = []
        with os.scandir(self._path) as entries:
            for entry in entries:
                with suppress(OSError):  # another process may delete it
                    if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                        found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
                    elif entry.name.startswith(f".{_PREFIX}") and _is_stale(entry):
                        os.unlink(entry.path)
        total = sum(length for _, length in found)
        found.sort(reverse=True)
        while found and (len(found) + count > MAX_FILES or total + size > MAX_BYTES):
            name, length = found.pop()
            total -= length
            with suppress(OSError):  # another process has deleted it, or it belongs to another user
                os.unlink(os.path.join(self._path, name))

    def _failed(self, why: object) -> None:
        if not self._failing:
            self._failing = True
            logger.warning("endings cannot be written to %r: %s", self._path, why)


def _is_stale(entry: os.DirEntry[str]) -> bool:
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE


_directories: dict[str, _Directory] = {}


def _finish() -> None:
    until = time.monotonic() + EXIT_TIME
    for directory in _directories.values():
        directory.wait(max(0.0, until - time.monotonic()))


atexit.register(_finish)
if hasattr(os, "register_at_fork"):
    # The thread does not exist in the child, and its lock may be taken there.
    os.register_at_fork(after_in_child=_directories.clear)
