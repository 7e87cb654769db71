"""A member that returns to a position is sent what was published after it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..aio.broadcast import broadcast
from ..aio.coroutines import refuse
from ..errors import BusUnavailable
from .membership import Membership, queue_staged
from .position import Gap, Position, Publication, Resumed
from .stalls import timeout_without_stalls

if TYPE_CHECKING:
    from .room import Room

__all__ = ["replay"]

#: Number of publications that are read from the history at a time.
PAGE = 100
#: Maximum seconds until this process has heard what the history has already. Longer means that the bus has failed.
HEAR_TIME = 5.0


async def replay(room: Room, membership: Membership, since: Position | None) -> Resumed | Gap:
    """Send what was published after ``since``, up to the position of its process."""
    assert room._position is not None
    lost, replayed, after = 0, 0, since
    known = True
    with room._tail:
        while after is None or room._telling or not room._tail.reaches(after, room._position):
            page = await room._tail.page(after, partial(room._registry.bus.page, room.name, after, PAGE))
            if page.lost is None:
                known = False
            else:
                lost += page.lost
            for publication in page.publications:
                replayed += await _resend(membership, publication)
            last = page.publications[-1].sequence if page.publications else page.position.sequence
            after = Position(page.position.epoch, last)
            await _hear(room, membership, after)
        for publication in room._tail.after(after.sequence):
            unsupported = broadcast([membership._engine], publication.message, "queue").unsupported
            membership.missed += len(unsupported)
            replayed += not unsupported
    if lost or not known:
        return Gap(lost if known else None, replayed)
    return Resumed(replayed)


async def _hear(room: Room, membership: Membership, position: Position) -> None:
    """Wait until this process has heard what is before ``position``.

    Raises:
        ConnectionClosed: The connection is closing.
        BusUnavailable: The process hears nothing.
    """
    while room._telling or _is_before(room._position, position):
        if not membership._engine.is_open:
            await refuse(membership._engine)
        try:
            async with timeout_without_stalls(HEAR_TIME):
                await room._waiters.wait()
        except TimeoutError:
            raise BusUnavailable(
                f"this process has not heard for {HEAR_TIME:g} s what the history has"
            ) from None


def _is_before(own: Position | None, position: Position) -> bool:
    return own is not None and own.epoch == position.epoch and own.sequence < position.sequence


async def _resend(membership: Membership, publication: Publication) -> bool:
    """Send a publication of the history, as soon as the send queue has room. Returns whether it was sent."""
    engine = membership._engine
    if isinstance(publication.message, bytes) and not engine._core.takes_binary():
        membership.missed += 1
        return False
    queue_staged(membership)
    await engine.send(publication.message)
    return True
