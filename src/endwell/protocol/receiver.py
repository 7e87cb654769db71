"""The receiver: where an application waits for messages. A core delivers to one receiver.

There are two: a task waits on a ``Slot`` (``aio/awaiting.py``), any number of threads on a ``Bridge``
(``sync/bridge.py``).
"""

from __future__ import annotations

from collections.abc import Callable

from .inbox import Inbox

__all__ = ["Receiver"]


class Receiver:
    """The interface. All methods are called in the thread of the event loop."""

    def __init__(self, inbox: Inbox) -> None:
        self._init_receiver(inbox)

    # Not super().__init__(), which costs a compiled class thousands of instructions.
    def _init_receiver(self, inbox: Inbox) -> None:
        #: The one queue of messages; its limits pause the reading from the peer.
        self.inbox = inbox
        #: Called when the application is about to wait for a message.
        self.quiescence: Callable[[], object] | None = None

    def deliver(self, inline: bool) -> None:
        """Wake the application if it waits for what the inbox now has; immediately if ``inline``.

        Called after each event of the connection, which may have brought messages, or made room to send.
        """

    def is_waiting(self) -> bool:
        """Whether the application waits for a message now, so it has handled all messages that it read."""
        return False

    def last_call(self) -> None:
        """The connection is about to stop being open. Messages that wait elsewhere are sent now, or never."""
