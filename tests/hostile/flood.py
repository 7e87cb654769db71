"""A peer that sends as fast as the other side reads, from a thread of its own."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.raw import RawPeer

__all__ = ["flooding"]

#: The number of bytes passed to TLS or to the kernel at a time.
STEP = 2**16
#: Milliseconds between two checks of the stop flag while the other side reads nothing.
POLL_INTERVAL = 20


class Flood:
    """What has been sent so far."""

    def __init__(self, peer: RawPeer, octets: bytes) -> None:
        self._peer = peer
        self._octets = octets
        # The other side still processes what is in the kernel when the peer is gone, and a bomb inflates a
        # thousandfold.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STEP)
        # A duplicate for the thread: the descriptor number of the peer may be given to another socket.
        self._fd = os.dup(peer.sock.fileno())
        self._stopping = False
        self.thread = threading.Thread(target=self._run)
        #: The number of bytes that the kernel accepted.
        self.sent = 0

    def stop(self) -> None:
        """Stop sending, and wait for the thread."""
        self._stopping = True
        self.thread.join()

    def _run(self) -> None:
        try:
            while True:
                for at in range(0, len(self._octets), STEP):
                    self._send(self._peer.encrypt(self._octets[at : at + STEP]))
                    if self._stopping:
                        return
        except OSError:
            pass  # the other side has ended TCP
        finally:
            os.close(self._fd)

    def _send(self, octets: bytes) -> None:
        writable = select.poll()
        writable.register(self._fd, select.POLLOUT)
        with memoryview(octets) as view:
            at = 0
            while at < len(octets) and not self._stopping:
                if writable.poll(POLL_INTERVAL):
                    count = os.write(self._fd, view[at:])
                    self.sent += count
                    at += count


@contextmanager
def flooding(peer: RawPeer, octets: bytes) -> Iterator[Flood]:
    """Send ``octets`` again and again during the block; then end TCP, in the middle of a frame."""
    flood = Flood(peer, octets)
    flood.thread.start()
    try:
        yield flood
    finally:
        flood.stop()
        peer.drop()
