"""What a server and its page learn, for each way in which a browser ends a connection.

The tests compare the library and the browsers with this table, and docs/explanation/browser-close.md shows
it.
"""

from __future__ import annotations

from typing import Any

from endwell import CloseCode, Ending, Retry
from endwell.codes import describe

__all__ = ["CODES", "NOTHING", "TRUTH", "code_says", "page_says", "server_says"]

NOTHING = "-"

#: For each way and each browser: the server's Ending, and the page's ending.
TRUTH: dict[str, dict[str, tuple[str, str]]] = {
    "reload": {
        "chromium": ("PEER_CLOSED 4990 'page left', ok", "app_closed 4990 'page left'"),
        "firefox": ("PEER_CLOSED 1001 '', ok", "app_closed 1001 ''"),
    },
    "download a file": {
        "chromium": (NOTHING, NOTHING),
        "firefox": ("PEER_CLOSED 1001 '', ok", "peer_closed 1001 '', reconnects"),
    },
    "close the tab": {
        "chromium": ("PEER_CLOSED 4990 'page left', ok", "app_closed 4990 'page left'"),
        "firefox": ("PEER_CLOSED 4990 'page left', ok; or PEER_CLOSED 1001 '', ok", NOTHING),
    },
    "go to another page": {
        "chromium": ("PEER_CLOSED 4990 'page hidden', ok", "app_closed 4990 'page hidden'"),
        "firefox": ("PEER_CLOSED 1001 '', ok", "app_closed 1001 ''"),
    },
    "come back with Back": {
        "chromium": ("a new connection, of the page that was kept", NOTHING),
        "firefox": ("a new connection, of a new page", NOTHING),
    },
    # Firefox keeps the other page, and shows it without loading anything: then its 1001 is not faster.
    "leave it with Back": {
        "chromium": ("PEER_CLOSED 4990 'page hidden', ok", "app_closed 4990 'page hidden'"),
        "firefox": ("PEER_CLOSED 4990 'page left', ok", "app_closed 4990 'page left'"),
    },
    "come back with Forward": {
        "chromium": ("a new connection, of the page that was kept", NOTHING),
        "firefox": ("a new connection, of a new page", NOTHING),
    },
    # Firefox has no equivalent: it unloads whole tabs.
    "a hidden page is frozen": {
        "chromium": ("PEER_CLOSED 4990 'page hidden', ok", "app_closed 4990 'page hidden'"),
    },
    "the frozen page is resumed": {
        "chromium": ("a new connection, of the page that was kept", NOTHING),
    },
    "browser killed": {
        "chromium": ("PEER_VANISHED 1006 '', not ok", NOTHING),
        "firefox": ("PEER_VANISHED 1006 '', not ok", NOTHING),
    },
    "network lost": {
        "chromium": (
            "KEEPALIVE_TIMEOUT 1001 'the peer did not answer a ping', not ok",
            "keepalive_timeout 3008 'no answer', reconnects",
        ),
        "firefox": (
            "KEEPALIVE_TIMEOUT 1001 'the peer did not answer a ping', not ok",
            "keepalive_timeout 3008 'no answer', reconnects",
        ),
    },
    "server stops": {
        "chromium": (
            "SERVER_DRAINED 1001 'server stopping; retry 0-1s', ok",
            "peer_closed 1001 'server stopping; retry 0-1s', reconnects",
        ),
        "firefox": (
            "SERVER_DRAINED 1001 'server stopping; retry 0-1s', ok",
            "peer_closed 1001 'server stopping; retry 0-1s', reconnects",
        ),
    },
    "TCP ends without a Close": {
        "chromium": (NOTHING, "peer_vanished 1006 '', reconnects"),
        "firefox": (NOTHING, "peer_vanished 1006 '', reconnects"),
    },
    "handshake refused (403)": {
        "chromium": (NOTHING, "handshake_failed 1006 '', reconnects"),
        "firefox": (NOTHING, "handshake_failed 1006 '', reconnects"),
    },
}

#: The codes that a server may close with: each defined code, and some of the ranges.
CODES = (*(code.value for code in CloseCode if code.may_send), 3500, 4000, 4999)


def code_says(code: int) -> tuple[str, str]:
    """The expected endings of both sides after a Close with ``code``, in every browser (``codes.py``)."""
    of = describe(code)
    stop = "done" if of.clean else "refused"
    verdict = stop if of.retry is Retry.NEVER else f"reconnects ({of.retry.value})"
    return f"APP_CLOSED, {'ok' if of.clean else 'not ok'}", f"peer_closed, {verdict}"


def server_says(ending: Ending) -> str:
    """The server's Ending in the words of the table."""
    return f"{ending.cause.name} {ending.code} {ending.reason!r}, {'ok' if ending.ok else 'not ok'}"


def page_says(ending: dict[str, Any]) -> str:
    """The page's ending in the words of the table."""
    verdict = (
        ", reconnects" if ending["wait"] is not None else f", {ending['stop']}" if ending["stop"] else ""
    )
    return f"{ending['cause']} {ending['code']} {ending['reason']!r}{verdict}"
