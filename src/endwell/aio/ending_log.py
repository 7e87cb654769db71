"""The log record of each connection that ends: logger ``endwell.endings``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..ending import Ending
from .bind import format_peer

__all__ = ["is_enabled", "is_written", "log_ending", "write_record", "write_with"]

logger = logging.getLogger("endwell.endings")
# Each connection asks at its end, so these names are not looked up there.
_is_enabled_for = logger.isEnabledFor
_INFO = logging.INFO


def is_enabled() -> bool:
    """Whether endings are logged: if the effective level is INFO or lower, or the logger has a level of its own.

    Python shows warnings of a program that has configured no logging. An abnormal ending is no warning to such
    a program: it has the Ending, and decides whether it matters. `endwell serve` asks for them.
    """
    return _is_enabled_for(_INFO) or logger.level > 0 or _has_writer


def is_written(ending: Ending) -> bool:
    """Whether ``ending`` is logged, and a handler gets it: another line about it is not needed."""
    return is_enabled() and logger.isEnabledFor(_level_of(ending)) and logger.hasHandlers()


def _level_of(ending: Ending) -> int:
    return logging.INFO if ending.ok else logging.WARNING


def log_ending(ws: Any, ending: Ending) -> None:
    """Log the ending of a connection that was open: INFO for an ordinary ending, WARNING for another one."""
    level = _level_of(ending)
    if not logger.isEnabledFor(level):
        return
    try:
        _write(level, ws, ending)
    except KeyboardInterrupt:
        raise
    # Of a filter or a handler, which must not keep the application from the end. It includes sys.exit(), as in
    # an on_close callback.
    except BaseException as exc:
        ws._stream.loop.call_exception_handler({"message": "logging an ending failed", "exception": exc})


def write_record(level: int, ws: Any, ending: Ending) -> None:
    """Log a record that has the fields of the ending."""
    request = ws.request
    address = format_peer(ws.remote_address)
    path = request.path
    fields = {
        "ending": ending.as_dict(),
        "role": "client" if ws._core.client else "server",
        "address": address,
        "path": path,
        "route": request.route,
        "subject": ws._subject,
        "key": ws._key,
    }
    # Not `extra`: logging raises if a record of the program's setLogRecordFactory() has one of these names.
    record = logger.makeRecord(
        logger.name, level, "ending_log.py", 0, "%s on %r: %s", (address, path, ending), None, "write_record"
    )
    vars(record).update(fields)
    logger.handle(record)


_write: Callable[[int, Any, Ending], object] = write_record
_has_writer = False


def write_with(write: Callable[[int, Any, Ending], object] | None) -> None:
    """Have ``write(level, ws, ending)`` called for each ending that is logged. None: `write_record`."""
    global _write, _has_writer
    _write, _has_writer = write or write_record, write is not None
