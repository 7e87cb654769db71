"""Messages between a supervisor and a worker: one JSON line each, over a socket pair."""

from __future__ import annotations

import json
import socket
from typing import Any

__all__ = ["Channel"]


class Channel:
    """One end of the channel.

    After an update, the two processes may run different versions, so the receiver ignores unknown words.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = b""
        #: Whether the other end is closed, which also happens when its process exits.
        self.ended = False

    def fileno(self) -> int:
        """The file descriptor, for a selector."""
        return self._sock.fileno()

    def send(self, word: str, value: object = None) -> None:
        """Send a message; never blocks, because all messages of a worker fit into the socket's buffer."""
        try:
            self._sock.send(json.dumps([word, value]).encode() + b"\n")
        except OSError:
            pass  # the other end is closed, which `receive` reports

    def receive(self) -> list[tuple[str, Any]]:
        """Return the messages that have arrived, each as a word and its value."""
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
