"""The control channel: messages between the two libraries, in the same connection as those of the applications.

A peer asks for it in the opening handshake; on all other connections nothing looks for such messages. A control
message is a text message that a *user* of the channel claims. It is taken out of the received messages before
the application sees them and before they are counted, and its answer is not counted either.

The users: ``heartbeat`` (the question of ``endwell.js`` whether the server is still there), ``renewal`` (new
bearer tokens).
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["ControlChannel", "User"]


class User(Protocol):
    """One use of the channel on one connection."""

    def greeting(self) -> str | None:
        """The message to send when the connection opens: it tells the peer that this side knows the use."""
        ...

    def claims(self, message: str) -> bool:
        """Whether ``message`` belongs to this use."""
        ...

    def answers(self, messages: list[str]) -> list[str]:
        """The messages to send in answer to ``messages``, which arrived in one read.

        They are dropped if the connection is closing, or if more than ``write_limit`` bytes wait for the peer.
        """
        ...


class ControlChannel:
    """The control channel of one connection."""

    def __init__(self, *users: User) -> None:
        self._users = users

    def greetings(self) -> list[str]:
        """The messages to send when the connection opens."""
        return [greeting for user in self._users if (greeting := user.greeting()) is not None]

    def take(self, messages: list[str | bytes | None], first: int) -> list[str]:
        """Remove the control messages from ``messages``, from index ``first`` on. Returns the answers."""
        answers = []
        for user in self._users:
            claimed = [
                message for message in messages[first:] if isinstance(message, str) and user.claims(message)
            ]
            if claimed:
                messages[first:] = [
                    message
                    for message in messages[first:]
                    if not (isinstance(message, str) and user.claims(message))
                ]
                answers += user.answers(claimed)
        return answers
