"""What the tests do to one of several buses by NATS."""

from __future__ import annotations

__all__ = ["crash", "cut", "follower_of", "leader_of"]


def leader_of(buses):
    """The bus that numbers the publications."""
    (leader,) = [bus for bus in buses if bus._leadership._serves]
    return leader


def follower_of(buses):
    return next(bus for bus in buses if not bus._leadership._serves)


def cut(bus):
    """The network cuts one connection."""
    bus._link._client._transport._io_writer.transport.abort()


def crash(bus):
    """The process of a bus is killed, as far as the others see it."""
    bus._ticking.cancel()
    bus._link._task.cancel()
