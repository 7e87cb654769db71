"""The heartbeat of a page: a question and an answer, as text messages of one character.

A page has no ping, and its browser never tells it that the network is dead. So
``endwell.js`` asks for a heartbeat in the query of its URL. Such a connection opens
with an answer that nobody asked for: the page learns that this server knows the
heartbeat, and never sends a question to one that would take it for a message. Then
the page asks when it has heard nothing for a while. Neither reaches the application.

Why not a subprotocol: ``docs/explanation/design.md``, "A heartbeat for pages".
"""

from __future__ import annotations

from ..http import Request

__all__ = ["ANSWER", "QUERY", "QUESTION", "asked_for"]

#: The parameter of the query, as it stands in the URL.
QUERY = "endwell=heartbeat"
#: ENQ and ACK, which have meant just this since ASCII (ISO 646: "enquiry", "acknowledge").
QUESTION = "\x05"
ANSWER = "\x06"


def asked_for(request: Request) -> bool:
    """Whether the request is that of a page which wants the heartbeat."""
    return QUERY in request.target.partition("?")[2].split("&")
