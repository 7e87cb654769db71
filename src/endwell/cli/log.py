"""The logging configuration of ``endwell connect``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["logging_to"]


@contextmanager
def logging_to(note: Callable[[str], object], verbosity: int) -> Iterator[None]:
    """Configure logging for the block. ``note`` receives the handshake (verbosity 1) and every frame (2).

    All other records go to standard error: warnings; with verbosity 1 also INFO; with 2 also DEBUG of this
    package.
    """
    logging.basicConfig(level=logging.INFO if verbosity else logging.WARNING)
    wire = logging.getLogger("endwell.wire")
    levels = {
        logging.getLogger("endwell"): logging.DEBUG if verbosity > 1 else logging.NOTSET,
        wire: logging.DEBUG if verbosity > 1 else logging.WARNING,
        wire.getChild("handshake"): logging.DEBUG if verbosity else logging.WARNING,
        # The command itself prints the same information.
        logging.getLogger("endwell.client"): logging.ERROR,
        logging.getLogger("endwell.endings"): logging.ERROR,
    }
    before = {logger: logger.level for logger in levels}
    notes = _Notes(note)
    wire.addHandler(notes)
    wire.propagate = False
    for logger, level in levels.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        wire.removeHandler(notes)
        wire.propagate = True
        for logger, level in before.items():
            logger.setLevel(level)


class _Notes(logging.Handler):
    def __init__(self, note: Callable[[str], object]) -> None:
        super().__init__()
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        self._note(record.getMessage())
