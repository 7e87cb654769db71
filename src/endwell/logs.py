"""Log records as JSON.

`JsonFormatter` is a formatter for Python's `logging`. It also writes the fields that a record has beside its
message, such as the `ending` of the logger `endwell.endings`.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

__all__ = ["JsonFormatter"]

#: The attributes of every record; `message` and `asctime` come from formatters, `taskName` from Python 3.12.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    r"""Formats each record as one line: a JSON object.

    The object has these members:

    - `time`: the time of the record, in UTC, as ISO 8601 with milliseconds;
    - `level`, `logger`, `message`, `process` (the process id);
    - the fields that were given as `extra`, and those of `defaults`;
    - `exception` and `stack`: the traceback and the stack as text, if there is one.

    A field with one of these names gets an underscore at its end. Values that JSON does not have are written
    as their `str()`. All characters are ASCII: line ends, escape sequences of terminals and other control
    characters from a peer are escaped, so a record is always one line.

    Args:
        fmt: Ignored, like `datefmt`, `style` and `validate`. They are here because `logging.config` may pass them.
        datefmt: Ignored.
        style: Ignored.
        validate: Ignored.
        defaults: Fields for every record that does not have them, such as the name of the service.

    Example:
        ```python
        import logging
        import logging.config

        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"json": {"()": "endwell.logs.JsonFormatter", "defaults": {"service": "chat"}}},
                "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
                "root": {"level": "INFO", "handlers": ["console"]},
            }
        )
        logging.getLogger("chat").info("ready", extra={"port": 8080})
        ```
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: str = "%",
        validate: bool = True,
        *,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._defaults = dict(defaults or {})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without an end of line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        row: dict[str, Any] = {
            "time": f"{time[:-6]}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        fields = self._defaults | {
            name: value for name, value in vars(record).items() if name not in _STANDARD
        }
        reserved = {*row, "exception", "stack"}
        row.update((f"{name}_" if name in reserved else name, value) for name, value in fields.items())
        if record.exc_info and not record.exc_text:
            # As logging.Formatter does: other formatters of the record use the text, too.
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            row["exception"] = record.exc_text
        if record.stack_info:
            row["stack"] = self.formatStack(record.stack_info)
        try:
            return _dumps(row)
        except (TypeError, ValueError, RecursionError):
            return _dumps({str(name): _safe(value) for name, value in row.items()})


def _dumps(value: object) -> str:
    # NaN and Infinity are not JSON, although json.dumps() writes them.
    return json.dumps(value, default=_text, allow_nan=False)


def _safe(value: object) -> object:
    """``value``, or its text if JSON does not have it."""
    try:
        _dumps(value)
    except (TypeError, ValueError, RecursionError):
        return _text(value)
    return value


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without a text>"
