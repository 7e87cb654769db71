"""What other servers report about the endings that the demo shows.

The data are the measurements in ``docs/explanation/endings.md``, which names the versions. A test compares
the two.
"""

from __future__ import annotations

from typing import NamedTuple

from ..ending import Cause, Close, Ending

__all__ = ["ROWS", "Row", "row_for"]


class Row(NamedTuple):
    """One row of the table in ``docs/explanation/endings.md``."""

    #: The first cell.
    title: str
    #: The side that gets the report: the application of the other server, or the page that it serves.
    reported_to: str
    #: The servers by what they report, in the order of the table.
    reports: dict[str, tuple[str, ...]]


_APPLICATION = "the application"
_PAGE = "the page"

ROWS = {
    row.title: row
    for row in (
        Row(
            'peer Close 4001 "custom"',
            _APPLICATION,
            {
                "code and reason": ("websockets", "uvicorn", "tornado", "Node ws"),
                "code, reason lost": ("aiohttp", "granian"),
                "1006": ("hypercorn",),
            },
        ),
        Row(
            "peer Close, no code",
            _APPLICATION,
            {
                "1005": ("websockets", "uvicorn", "granian", "Node ws"),
                "0": ("aiohttp",),
                "1006": ("hypercorn",),
                "None": ("tornado",),
            },
        ),
        Row(
            "FIN, no Close",
            _APPLICATION,
            {
                "1006": ("websockets", "aiohttp", "hypercorn", "Node ws"),
                "1005": ("uvicorn", "granian"),
                "None": ("tornado",),
            },
        ),
        Row(
            "RST",
            _APPLICATION,
            {
                "1006": ("websockets", "aiohttp", "hypercorn", "Node ws"),
                "1005": ("uvicorn", "granian"),
                "None": ("tornado",),
            },
        ),
        Row(
            "bad opcode",
            _APPLICATION,
            {
                "1006": ("websockets", "aiohttp", "hypercorn", "Node ws"),
                "1002": ("uvicorn",),
                "1005": ("granian",),
                "None": ("tornado",),
            },
        ),
        Row(
            "bad UTF-8",
            _APPLICATION,
            {
                "1006": ("websockets", "aiohttp", "hypercorn", "Node ws"),
                "1007": ("uvicorn",),
                "1005": ("granian",),
                "None": ("tornado",),
            },
        ),
        Row(
            "message too big",
            _APPLICATION,
            {
                "1006": ("websockets", "aiohttp", "hypercorn", "Node ws"),
                "1009": ("uvicorn",),
                "None": ("tornado",),
            },
        ),
        Row(
            "silent peer, reading",
            _APPLICATION,
            {
                "1006": ("websockets", "aiohttp", "Node ws"),
                "1005": ("uvicorn",),
                "None": ("tornado",),
                "never": ("hypercorn", "granian"),
            },
        ),
        Row(
            "silent peer, handler busy",
            _APPLICATION,
            {"not told": ("websockets", "aiohttp", "uvicorn", "hypercorn", "granian")},
        ),
        Row(
            "RST, handler busy",
            _APPLICATION,
            {"not told": ("websockets", "aiohttp", "uvicorn", "hypercorn", "granian")},
        ),
        Row(
            "Close 1000, handler busy",
            _APPLICATION,
            {
                "not told": ("websockets", "uvicorn", "hypercorn"),
                "not answered": ("aiohttp", "granian"),
                "ok": ("tornado", "Node ws"),
            },
        ),
        Row(
            "*peer's view:* handler returns",
            _PAGE,
            {"1000": ("websockets", "aiohttp"), "1006": ("uvicorn",), "1011": ("hypercorn",)},
        ),
        Row(
            "handler raises",
            _PAGE,
            {"1011": ("websockets", "hypercorn"), "1006": ("aiohttp", "uvicorn")},
        ),
        Row(
            "stop, reading handler",
            _PAGE,
            {
                "1001": ("websockets",),
                "1012": ("uvicorn",),
                "1011": ("hypercorn",),
                "bare FIN": ("aiohttp", "granian", "tornado"),
            },
        ),
    )
}

_TITLES = {
    Cause.PEER_VANISHED: "FIN, no Close",
    Cause.CONNECTION_RESET: "RST",
    Cause.PROTOCOL_ERROR: "bad opcode",
    Cause.INVALID_DATA: "bad UTF-8",
    Cause.MESSAGE_TOO_BIG: "message too big",
    Cause.KEEPALIVE_TIMEOUT: "silent peer, reading",
    Cause.HANDLER_RETURNED: "*peer's view:* handler returns",
    Cause.HANDLER_ERROR: "handler raises",
    Cause.SERVER_DRAINED: "stop, reading handler",
}
#: The rows for a handler that is not reading.
_BUSY = {
    Cause.PEER_CLOSED: "Close 1000, handler busy",
    Cause.CONNECTION_RESET: "RST, handler busy",
    Cause.KEEPALIVE_TIMEOUT: "silent peer, handler busy",
}


def row_for(ending: Ending, busy: bool) -> Row | None:
    """Return the row for ``ending``, or None if it was not measured; ``busy``: the handler was not reading."""
    if busy:
        title = _BUSY.get(ending.cause)
    elif ending.cause is Cause.PEER_CLOSED:
        without = ending.received in (None, Close())
        title = "peer Close, no code" if without else 'peer Close 4001 "custom"'
    else:
        title = _TITLES.get(ending.cause)
    return None if title is None else ROWS[title]
