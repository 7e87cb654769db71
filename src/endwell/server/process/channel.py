"""What a supervisor and a worker say to each other: a line for each word, over a pair of sockets."""

from __future__ import annotations

import json
import socket
from typing import Any

__all__ = ["Channel"]


class Channel:
    """One end. Whoever has the other is gone when :attr:`ended` says so.

    After an update the two may be of different versions: a word that is not known is none.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = b""
        #: Whether the other end is closed, as a process that has ended leaves it.
        self.ended = False

    def fileno(self) -> int:
        """For a selector."""
        return self._sock.fileno()

    def say(self, word: str, value: object = None) -> None:
        """Send it. All that is said in a worker's life fits into the system's buffer, so it never waits."""
        try:
            self._sock.send(json.dumps([word, value]).encode() + b"\n")
        except OSError:
            pass  # that the other end is gone is told by `hear`

    def hear(self) -> list[tuple[str, Any]]:
        """The words that have come, each with its value."""
        try:
            while data := self._sock.recv(65536):
                self._received += data
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        *lines, self._received = self._received.split(b"\n")
        return [(word, value) for word, value in map(json.loads, lines)]

    def close(self) -> None:
        """Close this end."""
        self._sock.close()
