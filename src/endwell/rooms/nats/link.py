"""The connection to NATS. It comes back by itself."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import BadSubjectError, Error

from ...aio.waiters import Waiters
from .. import returning
from ..returning import ReturningLink, end_tasks
from .place import Place

__all__ = ["Link", "Receive"]

logger = logging.getLogger("endwell.rooms")

#: Maximum seconds for the tasks of a connection to end, after it was aborted.
CLOSE_TIME = 1.0

#: Maximum number of messages that are sent, or handled, in one turn of the event loop, and the number of bytes after
#: which no further one is handled. It takes some milliseconds.
TURN = 100
TURN_BYTES = 1 << 16

#: What is called with the last token of the subject, the reply subject, the data, and whether there is no
#: receiver for what was sent.
Receive = Callable[[str, str, bytes, bool], None]


class OrderedClient(Client):
    """Calls the callbacks in the order in which NATS has sent the messages.

    The package has a task for each subscription. If several messages arrive at once, it calls all callbacks of one
    subscription before those of the next one. A process would then hear that another one leads before it has
    heard all that the leader before has sent.

    The package handles all that has arrived, some thousand messages, in one turn of the loop. This is cut into turns.
    """

    def __init__(self) -> None:
        super().__init__()
        self._handled = self._handled_bytes = 0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        subscription = self._subs.get(sid)
        if subscription is not None and subscription._cb is not None:
            message = self._build_message(sid, subject, reply, data, await self._process_headers(headers))
            await subscription._cb(message)
            self._handled += 1
            self._handled_bytes += len(data)
            if self._handled == TURN or self._handled_bytes >= TURN_BYTES:
                self._handled = self._handled_bytes = 0
                await asyncio.sleep(0)


class Link(ReturningLink):
    """Connects to NATS, and again after each failure, until :meth:`stop`.

    What is sent leaves in the order of the calls. While the link is not connected, nothing is sent and there
    are no subscriptions.

    Args:
        place: Where NATS is.
        process: The name of this process. What is sent to ``inbox`` and a token arrives here.
        received: Called with what arrives in the inbox.
        changed: Called when the connection is there, and when it is lost.
    """

    def __init__(
        self, place: Place, process: str, received: Receive, changed: Callable[[bool], None]
    ) -> None:
        super().__init__(f"NATS at {place.address}", Error)
        self.inbox = place.subject("to", process)
        self.max_payload = 0
        self._place = place
        self._received = received
        self._changed = changed
        self._client: Client | None = None
        self._queue: deque[tuple[str, bytes, str] | tuple[str, Receive | None]] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._written = Waiters()
        self._subscriptions: dict[str, Any] = {}
        #: When the canaries were sent that are on their way, and the last one that came back.
        self._sent_at: dict[int, float] = {}
        self._heard_at = 0.0

    async def stop(self) -> None:
        """Send what waits, and disconnect."""
        if self.connected and self._client is not None:
            with suppress(Error, TimeoutError, OSError):
                async with asyncio.timeout(CLOSE_TIME):
                    while self._queue:
                        await self._written.wait()
                    await self._client.flush()
        await self._end()

    @property
    def silence(self) -> float:
        """Seconds since the last canary was sent that came back. This process may have heard nothing since then."""
        return self._loop.time() - self._heard_at

    # -- calls ---------------------------------------------------------------------

    def send(self, subject: str, data: bytes, reply: str = "") -> None:
        """Publish, if connected. If too much waits already, the connection counts as failed."""
        if self.connected and len(data) > self.max_payload:
            # NATS would close the connection.
            logger.error(
                "a message of %d bytes is not sent: NATS takes %d (max_payload)", len(data), self.max_payload
            )
        elif self.connected:
            self._queued += len(data)
            self._put((subject, data, reply))
            if self._queued > 2 * returning.MAX_QUEUE and not self._failed.done():
                self._failed.set_exception(OSError(f"it has not read {self._queued} bytes"))

    def subscribe(self, subject: str, receive: Receive) -> None:
        """Subscribe, if connected."""
        if self.connected:
            self._put((subject, receive))

    def unsubscribe(self, subject: str) -> None:
        """End :meth:`subscribe`."""
        if self.connected:
            self._put((subject, None))

    def _put(self, command: tuple[str, bytes, str] | tuple[str, Receive | None]) -> None:
        self._queue.append(command)
        self._wake.set()

    # -- connecting ------------------------------------------------------------------

    async def _open(self) -> None:
        self._failed = self._loop.create_future()
        client = self._client = OrderedClient()

        async def failed(error: Exception) -> None:
            # One connection at a time, without the package's own reconnecting: it sends what was published
            # meanwhile, although its caller was told that nothing was sent. A client that is being closed tells
            # its end, too.
            if self._client is client and not self._failed.done():
                self._problem = str(error) or repr(error)
                self._failed.set_exception(error)

        async def closed() -> None:
            await failed(ConnectionError("the connection was lost"))

        try:
            await client.connect(
                **self._place.arguments,
                error_cb=failed,
                closed_cb=closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=round(returning.CONNECT_TIME),
                name="endwell",
            )
        except Error:
            if self._failed.done():
                # What has failed before, such as "connection refused" before "no servers available".
                raise (self._failed.exception() or OSError("it does not answer")) from None
            raise
        if self._failed.done():
            # Of several servers, one answers.
            self._failed.exception()
            self._failed = self._loop.create_future()
        self.max_payload = client.max_payload

    async def _serve(self) -> None:
        """Run until the connection fails."""
        assert self._client is not None
        self._sent_at.clear()
        self._heard_at = self._loop.time()
        self.subscribe(f"{self.inbox}.*", self._on_inbox)
        tasks: list[asyncio.Future[Any]] = [
            self._failed,
            self._loop.create_task(self._write(self._client)),
            self._loop.create_task(self._beat()),
        ]
        try:
            self._changed(True)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _close(self) -> None:
        self._queue.clear()
        self._queued = 0
        self._subscriptions.clear()
        self._changed(False)
        client, self._client = self._client, None
        if client is None:
            return
        if self._failed.done() and not self._failed.cancelled():
            self._failed.exception()
        # Not close() alone: it waits until the peer has read what is pending, and leaves tasks behind if it fails.
        client._pending.clear()
        client._pending_data_size = 0
        for subscription in client._subs.values():
            subscription._stop_processing()
        writer = getattr(client._transport, "_io_writer", None)
        if writer is not None:
            returning.abort(writer)
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_TIME):
                await client.close()

    # -- the work while connected ------------------------------------------------------

    async def _write(self, client: Client) -> None:
        written = 0
        while True:
            while self._queue:
                command = self._queue.popleft()
                if len(command) == 3:
                    subject, data, reply = command
                    self._queued -= len(data)
                    try:
                        # This waits while NATS reads nothing.
                        await client.publish(subject, data, reply)
                    except BadSubjectError:
                        # Another program has asked, and named no subject for the answer.
                        logger.error("nothing is sent to %r, which is no subject", subject)
                else:
                    await self._write_subscription(client, *command)
                written += 1
                if written % TURN == 0:
                    await asyncio.sleep(0)
            self._wake.clear()
            self._written.wake()
            await self._wake.wait()

    async def _write_subscription(self, client: Client, subject: str, receive: Receive | None) -> None:
        if (before := self._subscriptions.pop(subject, None)) is not None:
            await before.unsubscribe()
        if receive is not None:

            async def callback(message: Msg) -> None:
                if self._client is not client:
                    return  # that connection is lost, and what this process has missed is known from its end on
                headers = message.headers
                nobody = headers is not None and headers.get("Status") == "503"
                try:
                    receive(message.subject.rpartition(".")[2], message.reply, message.data, nobody)
                except Exception:
                    # Of another program. It must not disconnect all rooms.
                    logger.exception("a message in the subject %r is not valid", message.subject)

            self._subscriptions[subject] = await client.subscribe(subject, cb=callback)

    def _send_canary(self, number: int) -> None:
        self._sent_at[number] = self._loop.time()
        self.send(f"{self.inbox}.canary", b"%d" % number)

    def _on_inbox(self, name: str, reply: str, data: bytes, nobody: bool) -> None:
        if name != "canary":
            self._received(name, reply, data, nobody)
            return
        number = int(data)
        if (sent_at := self._sent_at.pop(number, None)) is not None:
            # Otherwise, it is one of an earlier connection.
            self._heard_at = sent_at
            self._canary_heard(number)
