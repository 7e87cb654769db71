"""New bearer tokens on an open connection: a use of the control channel.

The server greets with :data:`RENEWAL` and the token of the opening handshake, if the client has offered the
subprotocol ``endwell.bearer`` and a function of the application decides about tokens. Only then the client sends
:data:`RENEWAL` and a new token, each time it has one. There is no answer: the server closes the connection with
3000 if it refuses the token.

The token in the greeting proves that it comes from the server. To a server that takes no new tokens, they are
messages like others: a chat would pass them on to all. So no other user must be able to write a greeting.
"""

from __future__ import annotations

from collections.abc import Callable

from ..http.bearer import RENEWAL

__all__ = ["ClientRenewal", "ServerRenewal"]


class ServerRenewal:
    """The use by a server; see :class:`~endwell.protocol.control.User`.

    ``token`` is that of the opening handshake. ``offered(tokens)`` is called with the new tokens of one read, the
    newest one last. It must not raise.
    """

    def __init__(self, token: str, offered: Callable[[list[str]], object]) -> None:
        self._greeting = RENEWAL + token
        self._offered = offered

    def greeting(self) -> str:
        """It tells the client that this server takes new tokens."""
        return self._greeting

    def claims(self, message: str) -> bool:
        """Whether ``message`` has a new token."""
        return message.startswith(RENEWAL)

    def answers(self, messages: list[str]) -> list[str]:
        """No answer."""
        self._offered([message.removeprefix(RENEWAL) for message in messages])
        return []


class ClientRenewal:
    """The use by a client, whose opening handshake has ``token``.

    ``greeted()`` is called once, when the server takes new tokens. It must not raise.
    """

    def __init__(self, token: str, greeted: Callable[[], object]) -> None:
        self._greeting = RENEWAL + token
        self._greeted: Callable[[], object] | None = greeted

    def greeting(self) -> None:
        """No message: the client speaks when it has a new token."""

    def claims(self, message: str) -> bool:
        """Whether ``message`` is the greeting of the server, which comes once."""
        return message == self._greeting and self._greeted is not None

    def answers(self, messages: list[str]) -> list[str]:
        """No answer."""
        greeted, self._greeted = self._greeted, None
        if greeted is not None:
            greeted()
        return []
