"""An authorization ends: what the peer is told, what is still delivered, and what a wrong call raises."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

import endwell
from endwell import Cause, Close
from tests.face import BLOCKING
from tests.pair import until, within
from tests.raw import BOUND, RawPeer
from tests.wire.peer import TEXT

EXPIRED = Close(3000, "authorization expired: fetch a new token; retry 0-1s")
REVOKED = Close(3003, "authorization revoked")


def at(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


def url(server, transport):
    return f"{'ws' if transport.client is None else 'wss'}://127.0.0.1:{server.port}/"


class Authorized:
    """A server whose handler authorizes each connection with ``arguments`` and collects messages and endings."""

    def __init__(self, face, **arguments):
        self.server = endwell.Server()
        self.got, self.endings = [], []
        self.server.on_close(lambda _ws, ending: self.endings.append(ending))

        async def handler(ws):
            ws.authorize(**arguments)
            async for message in ws:
                self.got.append(message)
                if message == "extend":
                    ws.authorize(until=at(1000))
                    await ws.send(f"extended for {ws.subject}")

        self.server.websocket("/")(face.handler(handler))


async def test_at_that_time_the_connection_is_closed_with_advice(face, transport):
    it = Authorized(face, until=at(0.05), subject="ada")
    async with it.server.serving(ssl=transport.server):
        async with endwell.connect(url(it.server, transport), ssl=transport.client) as ws:
            ending = await within(ws.closed)
        await until(lambda: it.endings)
    assert ending.received == EXPIRED
    assert ending.clean
    assert (it.endings[0].cause, it.endings[0].sent, it.endings[0].clean) == (
        Cause.AUTH_EXPIRED,
        EXPIRED,
        True,
    )


async def test_a_time_in_the_past_closes_at_once(face):
    it = Authorized(face, until=datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=-5))))
    async with it.server.serving(), endwell.connect(f"ws://127.0.0.1:{it.server.port}/") as ws:
        assert (await within(ws.closed)).received == EXPIRED


@pytest.mark.parametrize("by", ["authorize", "accept"])
async def test_nothing_is_sent_or_received_after_a_time_in_the_past(by, face, transport):
    server, got = endwell.Server(), []

    async def handler(ws):
        if by == "authorize":
            await ws.send("before")
            ws.authorize(until=at(-1))
        assert not ws.is_open
        with pytest.raises(endwell.ConnectionClosed):
            await ws.send("secret")
        got.append("refused")

    accept = (lambda request: endwell.Accept(until=at(-1))) if by == "accept" else None
    server.websocket("/", accept=accept)(face.handler(handler))
    async with server.serving(ssl=transport.server):
        ws = await endwell.connect(url(server, transport), ssl=transport.client)
        messages = [message async for message in ws]
        assert ws.ending.received == EXPIRED
        await until(lambda: got)
    assert messages == ["before"] * (by == "authorize")


async def test_a_time_in_the_past_is_no_stall_of_this_process(face, transport):
    it = Authorized(face, until=at(-3600))
    async with it.server.serving(ssl=transport.server):
        with await RawPeer.connect(it.server.port, transport.client) as peer:
            assert await peer.read_close() == EXPIRED
            peer.reset()  # without a word since then
            await until(lambda: it.endings)
    assert it.endings[0].stalled == 0


async def test_a_later_call_extends_it_and_keeps_the_subject(face):
    it = Authorized(face, until=at(BOUND), subject="ada")
    async with it.server.serving(), endwell.connect(f"ws://127.0.0.1:{it.server.port}/") as ws:
        await ws.send("extend")
        assert await within(ws.recv()) == "extended for ada"
        assert await within(it.server.revoke("ada")) == 1


async def test_no_message_that_comes_after_the_end_is_delivered(face, transport):
    it = Authorized(face, until=at(0.05))
    async with it.server.serving(ssl=transport.server):
        with await RawPeer.connect(it.server.port, transport.client) as peer:
            assert await peer.read_close() == EXPIRED
            # A peer that ignores the Close.
            await peer.frame(TEXT, b"let me in")
            await peer.close(3000)
            await peer.read_to_the_end()
        await until(lambda: it.endings)
    assert (it.got, it.endings[0].dropped_messages, it.endings[0].clean) == ([], 1, True)


async def test_a_lifetime_that_ends_first_counts(face):
    server = endwell.Server(max_lifetime=0.05)

    async def handler(ws):
        ws.authorize(until=at(1000))
        async for _ in ws:
            pass

    server.websocket("/")(face.handler(handler))
    async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
        assert (await within(ws.closed)).received.code == 1012


async def test_revoke_closes_all_connections_of_the_subject_and_no_other(face, transport):
    server, left = endwell.Server(), []
    server.on_close(lambda ws, ending: left.append((ending.cause, ending.sent)))

    async def handler(ws):
        ws.authorize(subject=ws.request.query.get("user"))
        await ws.send("ready")
        async for _ in ws:
            pass

    server.websocket("/")(face.handler(handler))
    async with server.serving(ssl=transport.server):
        address = url(server, transport)
        ada = [await endwell.connect(f"{address}?user=ada", ssl=transport.client) for _ in range(2)]
        bob = await endwell.connect(f"{address}?user=bob", ssl=transport.client)
        nobody = await endwell.connect(address, ssl=transport.client)
        for ws in (*ada, bob, nobody):
            assert await within(ws.recv()) == "ready"
        assert await server.revoke("ada") == 2
        assert [(await within(ws.closed)).received for ws in ada] == [REVOKED] * 2
        assert await server.revoke("ada") == 0
        await until(lambda: left == [(Cause.AUTH_REVOKED, REVOKED)] * 2)
        assert bob.is_open
        assert nobody.is_open
        await bob.close()
        await nobody.close()


class Deciding:
    """A server that decides about users only when :attr:`go` is set; ``by`` is the function that waits for it.

    Both are of the kind of ``face``: in the blocking one, a thread waits.
    """

    def __init__(self, face, by):
        self.server = endwell.Server()
        self.go, self.asked, self.refused = threading.Event(), [], []

        async def waits(request):
            self.asked.append(request)
            await until(self.go.is_set)

        def waits_in_a_thread(request):
            self.asked.append(request)
            assert self.go.wait(BOUND)

        async def accept(request):
            if by == "accept":
                await waits(request)
            return endwell.Accept(subject=request.query["user"])

        def accept_in_a_thread(request):
            if by == "accept":
                waits_in_a_thread(request)
            return endwell.Accept(subject=request.query["user"])

        async def handler(ws):
            await ws.send("in")
            await ws.wait_closed()

        blocks = face is BLOCKING
        if by == "hook":
            self.server.process_request(waits_in_a_thread if blocks else waits)
        self.server.on_refused(lambda request, status, reason: self.refused.append((status, reason)))
        self.server.websocket("/", accept=accept_in_a_thread if blocks else accept)(face.handler(handler))


@pytest.mark.parametrize("by", ["accept", "hook"])
async def test_a_revocation_counts_for_an_opening_that_is_being_decided(by, face, transport):
    it = Deciding(face, by)
    async with it.server.serving(ssl=transport.server):
        connects = [
            asyncio.ensure_future(
                endwell.connect(f"{url(it.server, transport)}?user={user}", ssl=transport.client)._open()
            )
            for user in ("ada", "bob")
        ]
        await until(lambda: len(it.asked) == 2)
        assert await it.server.revoke("ada") == 0
        it.go.set()
        with pytest.raises(endwell.HandshakeRejected) as caught:
            await within(connects[0])
        assert caught.value.response.status == 403
        bob = await within(connects[1])
        assert await within(bob.recv()) == "in"
        await bob.close()
        assert it.refused == [(403, "the authorization was revoked")]
        assert it.server._revocations._revoked == {}
        # A decision that begins later is for the application.
        async with endwell.connect(f"{url(it.server, transport)}?user=ada", ssl=transport.client) as ws:
            assert await within(ws.recv()) == "in"


async def test_a_revocation_closes_a_connection_whose_handler_checks_the_subject_that_it_has_named(
    face, transport
):
    server, checks, go, sent = endwell.Server(), threading.Event(), threading.Event(), []

    async def handler(ws):
        ws.authorize(subject="ada")
        checks.set()
        await face.wait(go)
        # The answer of the check is older than the revocation.
        ws.authorize(until=at(1000), subject="ada")
        sent.append(ws.subject)
        await ws.send("in")

    server.websocket("/")(face.handler(handler))
    async with server.serving(ssl=transport.server):
        async with endwell.connect(url(server, transport), ssl=transport.client) as ws:
            await until(checks.is_set)
            assert await server.revoke("ada") == 1
            go.set()
            with pytest.raises(endwell.ConnectionClosed):
                await within(ws.recv())
            assert (await within(ws.closed)).received == REVOKED
        await until(lambda: sent == ["ada"])


async def test_revocations_are_remembered_only_for_decisions_that_began_before():
    revocations = endwell.Server()._revocations
    await revocations.revoke("nobody decides")
    with revocations.deciding() as first:
        await revocations.revoke("ada")
        with revocations.deciding() as second:
            await revocations.revoke("bob")
            assert [first.is_revoked(name) for name in ("ada", "bob", "cy")] == [True, True, False]
            assert [second.is_revoked(name) for name in ("ada", "bob", "cy")] == [False, True, False]
            await revocations.revoke("ada")
            assert second.is_revoked("ada")
            first.__exit__()
            assert [*revocations._revoked] == ["bob", "ada"]
            first.__enter__()
            assert not first.is_revoked("ada")
    assert revocations._revoked == {}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"until": 5}, TypeError, "until must be a datetime or None, not 5"),
        (
            {"until": datetime(2030, 1, 1)},  # noqa: DTZ001  (that is the mistake)
            ValueError,
            r"until must have a time zone, such as datetime.now\(UTC\)",
        ),
        ({"subject": 7}, TypeError, "subject must be a str or None, not 7"),
        ({"subject": ""}, ValueError, "subject must not be empty"),
        ({"subject": "\ud800"}, ValueError, "subject contains a lone surrogate"),
    ],
)
async def test_a_wrong_argument_raises_and_changes_nothing(face, arguments, error, text):
    raised = []
    server = endwell.Server()

    async def handler(ws):
        with pytest.raises(error, match=text) as info:
            ws.authorize(**{"subject": "ada", **arguments})
        raised.append(info.value)
        await ws.send(str(ws.subject))

    server.websocket("/")(face.handler(handler))
    async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
        assert await within(ws.recv()) == "None"
        assert (await within(ws.closed)).code == 1000
    assert len(raised) == 1


async def test_a_client_cannot_authorize(face):
    async def client(ws):
        with pytest.raises(TypeError, match="is a client's"):
            ws.authorize(subject="ada")

    server = endwell.Server()

    @server.websocket("/")
    async def handler(ws):
        await ws.wait_closed()

    async with server.serving():
        await face.run_client(client, f"ws://127.0.0.1:{server.port}/")


async def test_revoke_names_its_argument():
    server = endwell.Server()
    with pytest.raises(TypeError, match="subject must be a str, not None"):
        await server.revoke(None)
    with pytest.raises(ValueError, match="subject must not be empty"):
        await server.revoke("")


async def test_an_ended_connection_can_be_authorized_without_effect(face):
    server, done = endwell.Server(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handler(ws):
        async for _ in ws:
            pass
        ws.authorize(until=at(-1), subject="late")
        loop.call_soon_threadsafe(done.set)

    server.websocket("/")(face.handler(handler))
    async with server.serving():
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/"):
            pass
        await within(done.wait())
