"""The part of the leader: it numbers the publications of all rooms, keeps them, and knows who is present."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any

from ...errors import RoomLimit
from ..frames import (
    NOT_SENT,
    PUBLISH,
    WORD,
    Decoder,
    Shared,
    pack_published,
    pack_word,
    unpack_publish,
)
from ..hub import Hub
from ..listening import Heard
from ..position import Position
from ..present import PART, Connection, Left
from ..tellings import Tellings
from .heritage import Heritage, pack_heritage
from .words import Rank, pack_heard, pack_page, pack_presence

__all__ = ["LEASE_TIME", "NO", "Sequencer"]

logger = logging.getLogger("endwell.rooms")

#: Seconds without a sign of life after which the connections of a process are removed.
LEASE_TIME = 10.0
#: Seconds without a sign of life for which a process may become the next leader.
ALIVE_TIME = 2.0
#: Maximum number of publications in one answer.
PAGE = 1000

#: What a process asks after "restore".
LATER = ("enter", "leave", "leaving")

#: The answer of a process that does not lead.
NO = pack_word("no")

#: Sends data to a process, for one of its calls; or to all that listen to a room.
Send = Callable[[str, str, bytes], None]
Spread = Callable[[str, bytes], None]


class Sequencer:
    """The state of all rooms, without I/O. The listeners of its hub are the names of processes.

    Args:
        rank: Of this process.
        limits: ``max_history`` and ``max_known_rooms`` of :class:`endwell.rooms.Rooms`.
        send: Called with a process, a token and data.
        spread: Called with a room and a publication.
    """

    def __init__(self, rank: Rank, limits: tuple[int, int], send: Send, spread: Spread) -> None:
        self.rank = rank
        self._send = send
        self._spread = spread
        self._hub: Hub = Hub(*limits)
        #: What the processes have to be told of keys.
        self._tellings = Tellings(self._hub.listeners_of, self._choose, self._tell_one)
        #: When each process has given a sign of life.
        self._processes: dict[str, float] = {}
        #: The number of the last beginning of each process that has told this leader who it is.
        self._beginnings: dict[str, int] = {}
        self._numbers = count(1)
        #: The rooms to which processes listen that restore their state, and their connections, as far as they have told
        #: it again.
        self._restoring: dict[str, tuple[set[str], set[tuple[str, int]]]] = {}
        self._now = 0.0
        self._size = 0
        self._words: dict[str, Callable[..., bytes | list[bytes] | None]] = {
            "alive": self._alive,
            "restore": self._restore,
            "restored": self._restored,
            "goodbye": self._goodbye,
            "listen": self._listen,
            "ignore": self._ignore,
            "page": self._page,
            "renew": self._renew,
            "enter": self._enter,
            "leave": self._leave,
            "leaving": self._leaving,
            "told": self._told,
            "presence": self._presence,
            "reserve": self._reserve,
        }

    def handle(self, process: str, token: str, frame: bytes, now: float, size: int) -> None:
        """Do what a process asks.

        Args:
            process: The name of the process.
            token: Of its call; empty if it does not wait for an answer.
            frame: What it asks.
            now: The time in seconds.
            size: Maximum size of the answer in bytes.
        """
        self._now, self._size = now, size
        if process in self._processes:
            self._processes[process] = now
        try:
            for kind, body in Decoder().feed(frame):
                answer: bytes | list[bytes] | None = None
                if kind == PUBLISH:
                    answer = self._publish(process, body)
                elif kind == WORD:
                    word, *values = json.loads(body)
                    if word in LATER and process not in self._processes:
                        # It was removed, and its lease would never end. It tells this again with all the rest.
                        answer = NO
                    elif (method := self._words.get(word)) is not None:
                        answer = method(process, *values)
                if token and answer is not None:
                    for part in answer if isinstance(answer, list) else [answer]:
                        self._send(process, token, part)
        except RoomLimit as error:
            if token:
                self._send(process, token, pack_word("refused", str(error)))
        except Exception:
            # For example, the process runs another version.
            logger.exception("a process has sent a frame that is not valid")

    @property
    def deadline(self) -> float:
        """When :meth:`tick` has something to do, except for leases."""
        return self._hub.deadline

    def tick(self, now: float) -> None:
        """Do some of what is due. Call it several times a second, and in each turn of the loop after the deadline."""
        self._now = now
        for process, heard in list(self._processes.items()):
            if heard + LEASE_TIME < now and process != self.rank.process:
                self._goodbye(process)
        if self._hub.deadline <= now:
            self._tell(self._hub.tick(now))

    def extend_leases(self, now: float) -> None:
        """This process may have missed the signs of life of others."""
        self._processes = dict.fromkeys(self._processes, now)

    # -- another leader ----------------------------------------------------------------

    def leave_all(self, now: float, size: int) -> tuple[str, list[bytes]] | None:
        """Choose the next leader, and return what it must know. None if it begins without that."""
        self._now = now
        # What this process is being told stays with it: it hears it before it has disconnected.
        self._end(self.rank.process)
        while self._hub.deadline == -inf:  # it is removing connections
            self._tell(self._hub.tick(now))
        # The newest process, because an older one may be about to exit.
        alive = [process for process, heard in self._processes.items() if heard + ALIVE_TIME > now]
        if not self._processes:
            # Nobody would end the graces that have begun.
            self._tell(self._hub.end_graces(now))
        self._tellings.tell_all()
        parts = pack_heritage(self._hub, now, size) if alive else None
        return None if parts is None else (alive[-1], parts)

    def inherit(self, heritage: Heritage, now: float) -> None:
        """Begin with what another leader has left."""
        heritage.fill(self._hub, now)
        # Those that have ended in the last seconds tell this leader nothing, and their lease ends.
        self._processes = dict.fromkeys(heritage.processes(), now)

    def renew_all(self) -> None:
        """Give all rooms another epoch, because another process has numbered publications, too."""
        self._hub.renew_all()

    # -- what processes ask ------------------------------------------------------------

    def _publish(self, process: str, body: bytes) -> bytes:
        call, room, message, history, slow = unpack_publish(body)
        position, _, listeners = self._hub.publish(room, message, history, self._now)
        if listeners:
            heard = Heard(position, Shared(process.encode(), call, message, slow))
            self._spread(room, pack_heard(self.rank, heard))
        # The process knows by itself whether it listens, and hears its own publication from NATS.
        return pack_published(call, position.sequence, len(listeners), NOT_SENT, position.epoch)

    def _listen(self, process: str, room: str) -> bytes:
        self._hub.listen(room, process, self._now)
        if process in self._restoring:
            self._restoring[process][0].add(room)
        return pack_word("done")

    def _ignore(self, process: str, room: str) -> bytes:
        self._hub.ignore(room, process, self._now)
        if process in self._restoring:
            self._restoring[process][0].discard(room)
        return pack_word("done")

    def _page(self, process: str, room: str, epoch: str | None, sequence: int, limit: int | None) -> bytes:
        after = None if epoch is None else Position(epoch, sequence)
        page = self._hub.page(room, after, PAGE if limit is None else min(limit, PAGE), self._now)
        return pack_page(page.position, self._hub.base(room, self._now), page.publications, self._size)

    def _renew(self, process: str, room: str, epoch: str) -> bytes:
        self._hub.renew(room, epoch)
        return pack_word("done")

    # -- presence ------------------------------------------------------------------------

    def _enter(self, process: str, room: str, connection: int, *entry: Any) -> bytes:
        # Whether the callbacks of the process are to be told if the key comes with this connection.
        key, info, grace, untold = entry
        awaited_by = self._hub.awaited_by(room, key)
        if awaited_by is not None and awaited_by != process:
            self._send(awaited_by, "tell", pack_word("stays", room, key))
        present = self._hub.enter(room, Connection(process, connection), key, info, grace, self._now)
        if process in self._restoring:
            self._restoring[process][1].add((room, connection))
        comes = untold and present is not None
        # If it is to be told already, the process asks again, because it has got no answer.
        if comes and present is not None and self._tellings.last(room, key) != "came":
            self._tellings.add("came", Left(room, present, process))
        self._tellings.look(room, key)
        return pack_word("comes", comes)

    def _leave(self, process: str, room: str, connection: int, key: str, grace: float) -> bytes:
        self._tell(self._hub.leave(room, Connection(process, connection), key, grace, self._now))
        if process in self._restoring:
            self._restoring[process][1].discard((room, connection))
        return self._left(process, room, key)

    def _leaving(self, process: str, room: str, connection: int, key: str, info: Any, grace: float) -> bytes:
        """A process repeats that a key has left with its last connection, because it was told no more of it."""
        at = Connection(process, connection)
        self._tell(self._hub.leave(room, at, key, grace, self._now))
        if not self._hub.has(room, key) and self._tellings.last(room, key) is None:
            # The leader that knew it has ended.
            self._hub.enter(room, at, key, info, 0.0, self._now)
            self._hub.leave(room, at, key, grace, self._now)
        return self._left(process, room, key)

    def _left(self, process: str, room: str, key: str) -> bytes:
        if self._hub.has(room, key):
            leaves = self._hub.awaited_by(room, key) == process
        else:
            # Otherwise it was told, or another process tells it, because this one was removed.
            leaves = self._tellings.tells(process, room, key)
        return pack_word("later" if leaves else "stays")

    def _presence(self, process: str, room: str, after: list[Any]) -> list[bytes]:
        *rank, number = after or [0]
        # Another leader has other numbers.
        start = number if rank == [*self.rank] else 0
        present, following = self._hub.presence(room, start, PART)
        return pack_presence(present, [*self.rank, following] if following else [], self._size)

    def _reserve(self, process: str, held: int, wanted: int, limit: int) -> bytes:
        return pack_word("reserved", *self._hub.reserve(process, held, wanted, limit))

    def _tell(self, left: list[Left]) -> None:
        for each in left:
            self._tellings.add("went", each)

    def _choose(self, processes: list[str], anyone: bool) -> str | None:
        others = [self.rank.process] if anyone else []
        return next(
            (each for each in (*processes, *others) if each in self._processes or each in others), None
        )

    def _tell_one(self, process: str, number: int, word: str, left: Left) -> None:
        name = [*self.rank, number]
        self._send(process, "tell", pack_word(word, name, left.room, left.present.key, left.present.info))

    def _told(self, process: str, term: int, leader: str, number: int) -> bytes:
        if (term, leader) == self.rank:
            self._tellings.done(process, number)
        return pack_word("done")

    # -- processes -----------------------------------------------------------------------

    def _alive(self, process: str) -> None:
        if not (process in self._processes or self._hub.is_removing(process)):
            # Its lease had ended, so its connections were removed.
            self._send(process, "tell", pack_word("restore"))

    def _restore(self, process: str) -> bytes:
        if self._hub.is_removing(process):
            # What is told of its keys is told first.
            return NO
        self._processes.pop(process, None)
        self._processes[process] = self._now  # the last one
        if process not in self._beginnings:
            self._beginnings[process] = next(self._numbers)
        self._restoring[process] = (set(), set())
        return pack_word("done", self._beginnings[process])

    def _restored(self, process: str) -> bytes:
        if (kept := self._restoring.pop(process, None)) is not None:
            self._hub.remove_later(process, self._now, kept)
        self._tellings.again(process)
        return pack_word("done")

    def _goodbye(self, process: str) -> bytes:
        self._end(process)
        self._tellings.remove(process)
        return pack_word("done")

    def _end(self, process: str) -> None:
        self._processes.pop(process, None)
        self._beginnings.pop(process, None)
        self._restoring.pop(process, None)
        self._hub.remove_later(process, self._now)
