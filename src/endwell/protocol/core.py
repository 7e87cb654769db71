"""What a driver asks of its core: the interface between the I/O and the state machine.

:class:`~endwell.protocol.connection.Connection` is the core of WebSocket. A driver that uses only this
interface can do the I/O of another core, too. ``connection.py`` describes the members in detail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Core", "Queue", "Received"]


class Queue(Protocol):
    """Bytes for the peer."""

    @property
    def size(self) -> int:
        """Number of queued bytes."""
        ...


class Received(Protocol):
    """What was received for the application."""

    @property
    def messages(self) -> list[Any]:
        """The messages that the application has not read."""
        ...


class Core(Protocol):
    """A state machine without I/O. Times are seconds on the clock of ``aio.syscalls.monotonic``."""

    # -- what the core wants ------------------------------------------------------

    @property
    def outbox(self) -> Queue:
        """Bytes for the peer; the driver reports to :meth:`sent` how many were accepted."""
        ...

    @property
    def inbox(self) -> Received:
        """Messages for the application."""
        ...

    @property
    def deadline(self) -> float:
        """When to call :meth:`tick` at the latest."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the application can send."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the driver has to close."""
        ...

    @property
    def half_close(self) -> bool:
        """Whether to end the sending once the outbox is empty."""
        ...

    @property
    def abort(self) -> bool:
        """Whether to close without waiting for what the outbox has."""
        ...

    def wants_read(self) -> bool:
        """Whether to read from the peer now."""
        ...

    def wants_write(self) -> bool:
        """Whether the outbox has bytes that can still be sent."""
        ...

    def has_unparsed(self) -> bool:
        """Whether to call :meth:`feed` again without data, because received bytes are not parsed yet."""
        ...

    # -- what the driver reports --------------------------------------------------

    def feed(self, data: bytearray, end: int, now: float, inside: int = 0) -> None:
        """The first ``end`` bytes of ``data`` were received, and before them ``inside`` bytes elsewhere."""
        ...

    def sent(self, count: int, now: float) -> None:
        """The system accepted ``count`` bytes of the outbox; 0 if it accepts none now."""
        ...

    def eof(self, now: float) -> None:
        """The peer ended its sending."""
        ...

    def broken(self, exc: BaseException, now: float) -> None:
        """A write failed. Data that can still be read follows; then :meth:`lost` or :meth:`eof`."""
        ...

    def lost(self, exc: BaseException, now: float, tls: bool = False) -> None:
        """The connection failed with ``exc``; with ``tls``, TLS failed."""
        ...

    def gone(self, now: float) -> None:
        """The connection has ended, and the driver does not know how."""
        ...

    def tick(self, now: float, confirmed: float | None = None) -> None:
        """The time is ``now``; the peer's system last acknowledged data at ``confirmed``, if that is known."""
        ...

    def stalled(self, since: float, seconds: float, now: float) -> None:
        """This process did not run for ``seconds``, from ``since`` on."""
        ...


if TYPE_CHECKING:

    def _is_core(connection: Connection) -> Core:
        """Have the type checker compare the two."""
        return connection
