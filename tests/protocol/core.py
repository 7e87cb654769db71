"""One core, and what its peer sends and receives."""

from __future__ import annotations

import errno

from endwell.ending import Close
from endwell.options import Options
from endwell.protocol.connection import Connection
from endwell.protocol.receiver import Receiver
from endwell.wire.codec import Codec

__all__ = [
    "RESET",
    "Application",
    "connection",
    "drain_outbox",
    "frame",
    "frames_of",
    "opened",
    "sent_frames",
]

RESET = ConnectionResetError(errno.ECONNRESET, "reset")


def connection(client=False, now=0.0, **options):
    return Connection(client, Options(**options), now, opened_at=1e9)


def opened(client=False, now=0.0, **options):
    core = connection(client, now, **options)
    core.connected = True
    core.accept(Codec(client, core.options.max_size), now)
    return core


def drain_outbox(core, now=0.0):
    """Drain the outbox; the bytes."""
    data = b"".join(core.outbox.buffers())
    if data:
        core.sent(len(data), now)
    return data


def frames_of(core, data):
    """The frames that the peer of ``core`` reads from ``data``."""
    events = []
    Codec(not core.client, None).receive(data, events)
    return events


def sent_frames(core, now=0.0):
    return frames_of(core, drain_outbox(core, now))


def frame(core, name, *args):
    """A frame from the peer of ``core``."""
    if name == "close":
        args = [Close(*args)]
    return getattr(Codec(not core.client), name)(*args)


class Application(Receiver):
    """Whether the application waits for messages."""

    def __init__(self, core, waiting=False, last_call=lambda: None):
        super().__init__(core.inbox)
        self.waiting = waiting
        self.last_call = last_call

    def is_waiting(self):
        return self.waiting
