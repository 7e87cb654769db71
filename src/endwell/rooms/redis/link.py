"""The connections to Redis: one for commands, one that subscribes. They come back by themselves."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, NoReturn

from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from ...errors import BusUnavailable
from .. import returning
from ..overdue import Overdue
from ..returning import ReturningLink
from .place import Place, ask, ask_all
from .replies import Replies
from .script import Script
from .scripts import PRESENCE, SCRIPTS
from .sentinel import WATCH_INTERVAL, primary

__all__ = ["Link"]

logger = logging.getLogger("endwell.rooms")

#: Maximum seconds for the replies to commands, after the subscriber was closed.
REPLY_TIME = 1.0

Reply = Any


class _Command(NamedTuple):
    script: Script | None
    keys: Sequence[str]
    arguments: Sequence[Any]
    size: int
    #: Of :class:`Overdue`: when it is given up, if it was not sent.
    due: int
    #: None if the reply is of no interest.
    future: asyncio.Future[Reply] | None


class Link(ReturningLink):
    """Connects to Redis, and again after each failure, until :meth:`stop`.

    Args:
        place: Where Redis is.
        heard: Called with the channel and the message of each publication.
        finished: Called after the publications of each read.
        changed: Called when both connections are there, and when they are lost.
    """

    #: The begin of the commands of PUB/SUB: "S" if the channels are in the slots of a cluster.
    _pubsub = ""
    _scripts = SCRIPTS
    #: The replies after which both connections end.
    _elsewhere: ClassVar[tuple[type[ResponseError], ...]] = (ReadOnlyError,)

    def __init__(
        self,
        place: Place,
        heard: Callable[[bytes, bytes], None],
        finished: Callable[[], None],
        changed: Callable[[bool], None],
    ) -> None:
        super().__init__(f"Redis at {place.address}", RedisError)
        self.place = place
        self._heard = heard
        self._finished = finished
        self._changed = changed
        self._run_id = ""
        self._canary = f"{place.prefix}canary:{place.database}:{secrets.token_urlsafe(9)}".encode()
        #: The kinds of what the subscriber receives.
        self._published, self._subscribed = (
            f"{self._pubsub}{kind}".lower().encode() for kind in ("message", "subscribe")
        )
        self._connections: list[Any] = []
        #: The address that the Sentinels have named.
        self._primary: tuple[str, int] | None = None
        self._queue: deque[_Command] = deque()
        self._queued = 0
        self._sent: deque[_Command] = deque()
        self._subscribing: deque[tuple[str, bytes]] = deque()
        self._confirmations: defaultdict[bytes, deque[asyncio.Future[None]]] = defaultdict(deque)
        #: Set when all commands that were sent have a reply.
        self._replied = asyncio.Event()
        self._overdue = Overdue(self._expire)

    async def start(self) -> None:
        """Begin to connect; returns when connected, or after :data:`~endwell.rooms.returning.WAIT_TIME`."""
        self._wake, self._wake_listener = asyncio.Event(), asyncio.Event()
        await super().start()

    async def stop(self) -> None:
        """Disconnect. Calls that wait raise BusUnavailable."""
        await self._end()
        self._overdue.stop()
        self._expire_all()

    # -- calls ---------------------------------------------------------------------

    def call(
        self, script: Script, keys: Sequence[str], *arguments: Any, size: int = 0
    ) -> asyncio.Future[Reply]:
        """Run a script. The future raises BusUnavailable if there is no reply."""
        return self._call(script, keys, arguments, size)

    async def members(self, key: str) -> list[str]:
        """The members of a set."""
        return [each.decode() for each in await self._call(None, (), ("SMEMBERS", key), 0)]

    async def some_members(self, key: str, number: int) -> list[str]:
        """Some members of a set, chosen at random."""
        return [each.decode() for each in await self._call(None, (), ("SRANDMEMBER", key, number), 0)]

    def _call(
        self, script: Script | None, keys: Sequence[str], arguments: Sequence[Any], size: int
    ) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._queued + size > returning.MAX_QUEUE:
            future.set_exception(
                BusUnavailable(f"{self._queued} bytes wait for Redis already; nothing was sent")
            )
            return future
        self._enqueue(_Command(script, keys, arguments, size, self._overdue.begin(), future))
        return future

    def send(self, *arguments: Any) -> None:
        """Send a command whose reply is of no interest, if connected."""
        if self.connected:
            self._enqueue(_Command(None, (), arguments, 0, 0, None))

    def subscribe(self, channel: bytes) -> asyncio.Future[None]:
        """Subscribe to a channel. The future is done when Redis has confirmed it."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self.connected:
            self._confirmations[channel].append(future)
            self._subscribing.append((f"{self._pubsub}SUBSCRIBE", channel))
            self._wake_listener.set()
        else:
            future.set_exception(BusUnavailable("not connected to Redis"))
        return future

    def unsubscribe(self, channel: bytes) -> None:
        """End :meth:`subscribe`."""
        if self.connected:
            self._subscribing.append((f"{self._pubsub}UNSUBSCRIBE", channel))
            self._wake_listener.set()

    def _enqueue(self, command: _Command) -> None:
        self._queue.append(command)
        self._queued += command.size
        self._wake.set()

    def _expire(self, now: int) -> bool:
        """Give up the calls that could not be sent in time."""
        while self._queue and self._queue[0].due <= now:
            self._give_up(self._take(), sent=False)
        return bool(self._queue)

    def _expire_all(self) -> None:
        while self._queue:
            self._give_up(self._take(), sent=False)

    def _take(self) -> _Command:
        command = self._queue.popleft()
        self._queued -= command.size
        return command

    def _give_up(self, command: _Command, *, sent: bool) -> None:
        if command.future is not None and not command.future.done():
            command.future.set_exception(BusUnavailable(self.unavailable(sent=sent)))

    # -- connecting ------------------------------------------------------------------

    async def _open(self) -> None:
        self._primary = await self._locate()
        commands, listener = self._connections = [self._connection(self._primary) for _ in range(2)]
        run_ids = []
        for connection in (commands, listener):
            await connection.connect()
            info = (await ask(connection, "INFO", "server")).decode()
            if "redis_mode:cluster" in info and not self._pubsub:
                raise OSError("it is a node of a Redis Cluster, whose URL is redis+cluster://")
            run_ids += [line.partition(":")[2] for line in info.splitlines() if line.startswith("run_id:")]
        if len({*run_ids}) != 1:
            raise OSError("the two connections have reached different servers")
        self._run_id = run_ids[0]
        await self._check(commands)
        load = [("SCRIPT", "LOAD", script.text) for script in self._scripts]
        # Whether this user may run scripts, and use the keys. This one only reads.
        await ask_all(commands, *load, ("EVALSHA", PRESENCE.sha, 1, f"{self.place.prefix}connections"))
        await ask(listener, f"{self._pubsub}SUBSCRIBE", self._canary)

    async def _locate(self) -> tuple[str, int] | None:
        """The address of the server, if it is not that of the place."""
        return await primary(self.place)

    def _connection(self, address: tuple[str, int] | None) -> Any:
        return self.place.connection(address)

    async def _check(self, commands: Any) -> None:
        """Raises OSError if the server may not be used."""
        role = (await ask(commands, "ROLE"))[0].decode()
        if role != "master":
            raise OSError(f"it is not the primary: its role is {role}")

    async def _serve(self) -> None:
        """Run until one of the connections fails."""
        commands, listener = self._connections
        work = (
            self._write(commands),
            Replies(commands, self._on_reply).wait(),
            self._write_subscriptions(listener),
            Replies(listener, self._on_push, self._finished).wait(),
            self._beat(),
            self._watch(),
        )
        tasks = [self._loop.create_task(each) for each in work]
        try:
            self._changed(True)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.connected = False
            if tasks[3].done():
                # Only the subscriber was closed, so there are replies to the commands.
                tasks[0].cancel()
                await self._wait_for_replies(tasks[1])
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _watch(self) -> None:
        """Ask the Sentinels at intervals whether this is still the primary."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            try:
                now = await primary(self.place)
            except OSError:
                continue  # without them, nothing says that it is not
            if now != self._primary:
                raise OSError("the Sentinels have made another server the primary")

    async def _close(self) -> None:
        """The connections have failed, or are not needed any more."""
        for connection in self._connections:
            # Not disconnect(), which waits for the peer.
            if connection._writer is not None:
                returning.abort(connection._writer)
                connection._writer = connection._reader = None
        sent, self._sent = self._sent, deque()
        for command in sent:
            self._give_up(command, sent=True)
        waiting = [future for futures in self._confirmations.values() for future in futures]
        self._confirmations.clear()
        self._subscribing.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(BusUnavailable("the connection to Redis has ended"))
                future.exception()  # the waiter may have been cancelled
        for command in [each for each in self._queue if each.future is None]:
            self._queue.remove(command)
        self._changed(False)

    async def _wait_for_replies(self, reading: asyncio.Task[None]) -> None:
        self._replied = asyncio.Event()
        if self._sent:
            waiting = self._loop.create_task(self._replied.wait())
            await asyncio.wait([waiting, reading], timeout=REPLY_TIME, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    # -- the work while connected ------------------------------------------------------

    async def _write(self, commands: Any) -> None:
        while True:
            packed: list[bytes] = []
            while self._queue:
                command = self._take()
                if command.future is not None and command.future.done():
                    continue  # its caller was cancelled
                self._sent.append(command)
                packed += commands.pack_command(*self._words(command))
            if packed:
                # All commands of one turn of the loop leave together. This waits while Redis reads nothing.
                await commands.send_packed_command(packed, check_health=False)
            self._wake.clear()
            if not self._queue:
                await self._wake.wait()

    def _words(self, command: _Command) -> Sequence[Any]:
        if command.script is None:
            return command.arguments
        # Now, because the connection may be another one than at the time of the call.
        head = (len(command.keys), *command.keys, self._run_id, secrets.token_urlsafe(6))
        return ("EVALSHA", command.script.sha, *head, *command.arguments)

    def _on_reply(self, reply: Reply) -> None:
        """Redis has answered the oldest command."""
        command = self._sent.popleft()
        if not self._sent:
            self._replied.set()
        future = command.future
        if isinstance(reply, NoScriptError) and command.script is not None:
            # SCRIPT FLUSH. Nothing was done, so it is repeated.
            self.send("SCRIPT", "LOAD", command.script.text)
            self._enqueue(command)
        elif isinstance(reply, self._elsewhere):
            self._sent.appendleft(command)
            self._leave(reply)
        elif future is None or future.done():
            pass
        elif isinstance(reply, ResponseError):
            what = (
                "nothing was sent"
                if isinstance(reply, OutOfMemoryError)
                else "the message may be in the history"
            )
            future.set_exception(BusUnavailable(f"Redis refuses it: {reply}; {what}"))
        else:
            future.set_result(reply)

    def _leave(self, reply: ResponseError) -> NoReturn:
        """The server refuses the oldest command, because another one is to be used."""
        raise OSError(f"it is not the primary: {reply}")

    async def _write_subscriptions(self, listener: Any) -> None:
        while True:
            packed: list[bytes] = []
            while self._subscribing:
                packed += listener.pack_command(*self._subscribing.popleft())
            if packed:
                await listener.send_packed_command(packed, check_health=False)
            self._wake_listener.clear()
            if not self._subscribing:
                await self._wake_listener.wait()

    def _on_push(self, push: Reply) -> None:
        """The subscriber has received a message, or a confirmation."""
        if isinstance(push, Exception):  # it may not subscribe, for example
            raise push
        kind, channel, value = push
        if kind == self._published:
            try:
                self._on_message(channel, value)
            except Exception:
                # Of another program. It must not disconnect all rooms.
                logger.exception("a message in the channel %r is not valid", channel)
        elif kind == self._subscribed:
            futures = self._confirmations[channel]
            future = futures.popleft()
            if not futures:
                del self._confirmations[channel]
            if not future.done():
                future.set_result(None)

    def _on_message(self, channel: bytes, data: bytes) -> None:
        if channel != self._canary:
            self._heard(channel, data)
        elif int(data) <= self._canaries[0]:  # otherwise, it is one of an earlier connection
            self._canary_heard(int(data))

    def _send_canary(self, number: int) -> None:
        self.send(f"{self._pubsub}PUBLISH", self._canary, number)
