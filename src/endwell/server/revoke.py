"""Closes the connections of a user whose authorization has ended."""

from __future__ import annotations

from collections.abc import Iterable

from ..aio.authorization import check_subject
from ..aio.websocket import WebSocket, begin_close, stop_delivery
from ..codes import CloseCode
from ..ending import Cause

__all__ = ["revoke"]


def revoke(connections: Iterable[WebSocket], subject: str) -> int:
    """Close those of ``connections`` that are authorized for ``subject``; returns their number."""
    if subject is None:
        raise TypeError("subject must be a str, not None")
    check_subject(subject)
    chosen = [ws for ws in connections if ws.subject == subject and ws.is_open]
    for ws in chosen:
        stop_delivery(ws)
        begin_close(ws, Cause.AUTH_REVOKED, CloseCode.FORBIDDEN, "authorization revoked")
    return len(chosen)
