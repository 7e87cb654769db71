"""The supervisor's part of the bus of its workers: one hub, to which each worker has a connection."""

from __future__ import annotations

import json
import logging
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from math import inf
from typing import Any, TypeAlias

from ..aio.syscalls import IOV, monotonic, receive_bytes, send, send_many
from ..errors import RoomLimit
from .frames import (
    NOT_SENT,
    OWN,
    PUBLISH,
    SENT,
    WORD,
    Decoder,
    dump,
    forward,
    pack_published,
    pack_word,
    unpack_call,
)
from .history import size_of
from .hub import MAX_KNOWN_ROOMS, Hub
from .position import Position
from .present import PART, Connection, Left
from .tellings import Tellings

__all__ = ["Broker", "Link"]

logger = logging.getLogger("endwell.rooms")

#: Descriptors and events, as ``select.epoll`` and ``select.poll`` return them.
Ready: TypeAlias = list[tuple[int, int]]

#: Maximum number of bytes that wait for one worker. Above it, the worker gets no publications until the half is
#: sent. Then it reads what it has missed from the history.
MAX_QUEUE = 64 << 20
#: The words that have an answer. Their first value is the number of the call.
CALLS = ("listen", "position", "page", "presence", "reserve")
#: Maximum number of bytes that are read from one worker before the others have their turn.
READ_SIZE = 1 << 16
_buffer = bytearray(READ_SIZE)
#: Maximum number of publications, and maximum sum of the sizes of their messages, in one answer to a worker that
#: reads a history. More than one message may be in it only up to that sum. It takes some milliseconds.
PAGE = 1000
PAGE_BYTES = 1 << 18


class Link:
    """The broker's end of the connection to one worker."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()
        self.decoder = Decoder()
        #: The frames since the last :meth:`flush`, and before them those that the socket has not taken.
        self._frames: list[bytes | memoryview] = []
        self._queue: deque[bytes | memoryview] = deque()
        #: The bytes in both.
        self._size = 0
        #: Whether bytes waited after the last :meth:`Broker.flush`.
        self.full = False
        #: The rooms of which the worker has missed publications.
        self.behind: set[str] = set()
        #: Whether the worker's end is closed.
        self.ended = False
        #: Whether the worker keeps what it publishes until the answer, so that it is not sent back.
        self.keeps_own = False
        #: Whether the worker asks again if an answer has only the first part of a history, or of the keys of a room.
        self.asks_on = False
        #: Whether the last :meth:`read` has found nothing.
        self.empty = False

    def fileno(self) -> int:
        """The file descriptor, for a selector."""
        return self._sock.fileno()

    def read(self) -> list[tuple[int, bytes]]:
        """Return the frames that have arrived."""
        try:
            data = receive_bytes(self._fd, _buffer, READ_SIZE)
        except OSError:
            data = b""
        self.empty = data is None
        if data is None:
            return []
        if not data:
            self.ended = True
        return self.decoder.feed(data)

    def write(self, frame: bytes) -> None:
        """Queue a frame; :meth:`flush` sends it."""
        self._frames.append(frame)
        self._size += len(frame)

    def takes(self, room: str) -> bool:
        """Whether the worker gets a publication of a room. If not, it is behind in this room."""
        if not self.behind and self._size <= MAX_QUEUE:
            return True
        if not self.behind:
            logger.warning("a worker has not read %d bytes: it gets no publications until it has", self._size)
        self.behind.add(room)
        return False

    @property
    def catches_up(self) -> bool:
        """Whether the worker is behind, and few enough bytes wait that it can get publications again."""
        return bool(self.behind) and self._size <= MAX_QUEUE // 2

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the worker."""
        return self._size > 0

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        frames, queue = self._frames, self._queue
        if not self._size:
            return
        try:
            # Usually, the socket takes everything at once.
            if queue or len(frames) > IOV:
                sent = 0
            elif len(frames) == 1:
                sent = send(self._fd, frames[0], self._size)
            else:
                sent = send_many(self._fd, frames)
            if sent < self._size:
                queue.extend(frames)
            frames.clear()
            while sent >= 0:
                self._size -= sent
                if not self._size:
                    if queue:
                        queue.clear()
                    break
                while sent >= len(queue[0]):
                    sent -= len(queue.popleft())
                if sent:
                    queue[0] = memoryview(queue[0])[sent:]
                sent = send_many(self._fd, list(islice(queue, IOV)))
        except OSError:  # the worker has ended, which `read` reports
            frames.clear()
            queue.clear()
            self._size = 0

    def close(self) -> None:
        """Close this end."""
        self._fd = -1
        self._sock.close()


class Broker:
    """Numbers the publications of all workers, keeps the history, and knows who is present.

    It has no thread and no event loop: its owner calls it when a socket is ready, or when :attr:`deadline` has
    come.
    """

    def __init__(self, max_history: int, max_known_rooms: int = MAX_KNOWN_ROOMS) -> None:
        self._hub: Hub = Hub(max_history, max_known_rooms)
        self._links: list[Link] = []
        #: The same by their descriptors.
        self._descriptors: dict[int, Link] = {}
        #: What the workers have to be told of keys.
        self._tellings = Tellings(self._hub.listeners_of, self._choose, self._tell_one)
        self._words: dict[str, Callable[..., None]] = {
            "listen": self._listen,
            "ignore": self._ignore,
            "position": self._position,
            "page": self._page,
            "enter": self._enter,
            "leave": self._leave,
            "presence": self._presence,
            "told": self._told,
            "reserve": self._reserve,
            "keeps own": self._keeps_own,
            "asks on": self._asks_on,
        }

    @property
    def deadline(self) -> float:
        """When :meth:`tick` has something to do, in seconds of the monotonic clock."""
        return self._hub.deadline

    @property
    def links(self) -> list[Link]:
        """The links of all workers."""
        return list(self._links)

    def add(self, link: Link) -> None:
        """Connect a worker."""
        self._links.append(link)
        self._descriptors[link.fileno()] = link
        self._tellings.look_again()

    def remove(self, link: Link) -> None:
        """Disconnect a worker, which has ended."""
        if link in self._links:
            self._links.remove(link)
            del self._descriptors[link.fileno()]
            # Its last frames may not have been read yet: who has left for good, for example.
            while not link.ended and not link.empty:
                self.readable(link)
            self._hub.remove_later(link, monotonic())
            self._tellings.remove(link)

    def serve(self, wait: Callable[[float | None], Ready], moment: float) -> Ready:
        """Forward publications, until something else happens.

        Then a deadline has come, or a link has ended, or has begun or ceased not to take all bytes, or there is
        something in the result.

        Args:
            wait: Waits for descriptors. Its argument is the maximum number of seconds, or None.
            moment: When this returns at the latest, in seconds of the monotonic clock.

        Returns:
            The descriptors that are ready, without the links.
        """
        while True:
            due = min(moment, self._hub.deadline)
            others = []
            for each in wait(None if due == inf else max(due - monotonic(), 0.0)):
                if (link := self._descriptors.get(each[0])) is None:
                    others.append(each)
                else:
                    self.readable(link)
            if self.flush() or others or (due != inf and monotonic() >= due):
                return others

    def readable(self, link: Link) -> None:
        """Handle what a worker has sent."""
        for kind, body in link.read():
            try:
                if kind == PUBLISH:
                    self._publish(link, body)
                elif kind == WORD:
                    self._handle_word(link, body)
            except Exception:
                # For example, the worker runs another version. All workers end with the supervisor.
                logger.exception("a worker has sent a frame of kind %d that is not valid", kind)

    def flush(self) -> bool:
        """Send what waits for the workers. Call it after all sockets that were ready are handled.

        Returns whether a worker has ended, or has begun or ceased not to take all bytes.
        """
        special = False
        for link in self._links:
            link.flush()
            if link.behind and link.catches_up:
                for room in link.behind:
                    link.write(pack_word("behind", room))
                link.behind.clear()
                link.flush()
            special = special or link.ended or link.full != (link._size > 0)
            link.full = link._size > 0
        return special

    def tick(self) -> None:
        """Do what is due."""
        self._tell(self._hub.tick(monotonic()))

    # -- what workers ask ---------------------------------------------------------------

    def _publish(self, link: Link, body: bytes) -> None:
        call, name, message, history = unpack_call(body)
        try:
            room = self._hub.number(name, message, history, monotonic())
        except RoomLimit as error:
            link.write(pack_word("refused", call, str(error)))
            return
        frame = forward(body, room.epoch, room.sequence)
        listeners, listens = room.listeners, NOT_SENT
        for listener in listeners:
            if not listener.takes(name):
                continue
            if listener is link:
                listens = OWN if link.keeps_own else SENT
            else:
                listener.write(frame)
        link.write(pack_published(call, room.sequence, len(listeners), listens, room.epoch))
        if listens == SENT:
            link.write(frame)

    def _handle_word(self, link: Link, body: bytes) -> None:
        word, *values = json.loads(body)
        if (handle := self._words.get(word)) is None:
            return
        try:
            handle(link, *values)
        except RoomLimit as error:
            # Only the words with a call can add a room: a connection enters a room to which its worker listens.
            link.write(pack_word("refused", values[0], str(error)))
        except Exception:
            if word in CALLS and values:
                # Otherwise, the call would wait for ever.
                link.write(pack_word("failed", values[0]))
            raise

    def _listen(self, link: Link, call: int, room: str) -> None:
        link.behind.discard(room)
        position = self._hub.listen(room, link, monotonic())
        link.write(pack_word("listening", call, room, position.epoch, position.sequence))

    def _ignore(self, link: Link, room: str) -> None:
        self._hub.ignore(room, link, monotonic())

    def _position(self, link: Link, call: int, room: str) -> None:
        position = self._hub.position(room, monotonic())
        link.write(pack_word("answer", call, [position.epoch, position.sequence]))

    def _page(self, link: Link, call: int, room: str, after: list[Any] | None, limit: int | None) -> None:
        if link.asks_on:
            limit = PAGE if limit is None else min(limit, PAGE)
        page = self._hub.page(room, None if after is None else Position(*after), limit, monotonic())
        publications: list[list[Any]] = []
        size = 0
        for each in page.publications:
            size += size_of(each.message)
            if publications and size > PAGE_BYTES and link.asks_on:
                break
            publications.append([each.sequence, dump(each.message)])
        answer = [[page.position.epoch, page.position.sequence], page.lost, publications]
        link.write(pack_word("answer", call, answer))

    def _enter(self, link: Link, room: str, connection: int, key: str, info: Any, grace: float) -> None:
        present = self._hub.enter(room, Connection(link, connection), key, info, grace, monotonic())
        if present is not None:
            self._tellings.add("came", Left(room, present, link))
        self._tellings.look(room, key)

    def _leave(self, link: Link, room: str, connection: int, key: str, grace: float) -> None:
        self._tell(self._hub.leave(room, Connection(link, connection), key, grace, monotonic()))

    def _presence(self, link: Link, call: int, room: str, after: int = 0) -> None:
        part, following = self._hub.presence(room, after, PART if link.asks_on else None)
        present: list[Any] = [[each.key, each.info, each.connections] for each in part]
        if following:
            present.append(following)
        link.write(pack_word("answer", call, present))

    def _reserve(self, link: Link, call: int, held: int, wanted: int, limit: int) -> None:
        link.write(pack_word("answer", call, self._hub.reserve(link, held, wanted, limit)))

    def _keeps_own(self, link: Link) -> None:
        link.keeps_own = True

    def _asks_on(self, link: Link) -> None:
        link.asks_on = True

    # -- what workers are told of keys -----------------------------------------------------

    def _tell(self, left: list[Left]) -> None:
        for each in left:
            self._tellings.add("went", each)

    def _choose(self, links: list[Link], anyone: bool) -> Link | None:
        # The newest worker, because an older one may be about to exit.
        others = reversed(self._links) if anyone else ()
        return next((link for link in (*links, *others) if link in self._links), None)

    def _tell_one(self, link: Link, number: int, word: str, each: Left) -> None:
        room, present, _ = each
        link.write(pack_word(word, room, present.key, present.info, present.connections, number))

    def _told(self, link: Link, number: int) -> None:
        self._tellings.done(link, number)
