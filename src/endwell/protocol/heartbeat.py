"""The heartbeat for web pages: a question and an answer, as text messages of one character.

The browser API has no ping, and a browser does not report that the network is dead. So ``endwell.js``
requests a heartbeat in the query of its URL. The server sends one answer right after the handshake. It tells
the page that this server knows the heartbeat: a server that does not know it would deliver the question to
its application as a message. The page sends a question when it has received nothing for a while. Neither the
question nor the answer reaches the application: they are messages of the control channel.

Why not a subprotocol: ``docs/explanation/decisions.md``, "A heartbeat for pages".
"""

from __future__ import annotations

from ..http import Request

__all__ = ["ANSWER", "HEARTBEAT", "QUERY", "QUESTION", "Heartbeat", "asked_for"]

#: The query parameter.
QUERY = "endwell=heartbeat"
#: ENQ and ACK, which have this meaning in ASCII (ISO 646: "enquiry", "acknowledge").
QUESTION = "\x05"
ANSWER = "\x06"


class Heartbeat:
    """The use of the control channel by a server of pages; see :class:`~endwell.protocol.control.User`."""

    def greeting(self) -> str:
        """An answer that was not asked for."""
        return ANSWER

    def claims(self, message: str) -> bool:
        """Whether ``message`` is the question."""
        return message == QUESTION

    def answers(self, messages: list[str]) -> list[str]:
        """One answer, which is enough for all questions."""
        return [ANSWER]


#: One object for all connections, because it has no state.
HEARTBEAT = Heartbeat()


def asked_for(request: Request) -> bool:
    """Whether the request comes from a page that wants the heartbeat."""
    return QUERY in request.target.partition("?")[2].split("&")
