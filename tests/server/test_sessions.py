"""Sessions: the newest connection replaces older ones, and presence does not flap."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import asynccontextmanager

import pytest

import endwell
from endwell import Cause, Close
from tests.face import ASYNCIO, BLOCKING
from tests.pair import until, within
from tests.raw import BOUND


class Hall:
    """A server whose clients name their key in the path, and a record of its callbacks.

    Its handler uses either face.
    """

    def __init__(self, face, grace):
        self.server = endwell.Server(compression=None, legacy=True)
        self.sessions = self.server.sessions
        self.sessions.grace = grace
        self.events = []
        self.threads = set()
        #: By key: the event that a handler waits for before it joins.
        self.gates = {}
        self.endings = asyncio.Queue()

        async def handler(ws, name):
            gate = self.gates.get(ws.request.query.get("gate"))
            while gate is not None and not gate.is_set():
                await face.pause(0.005)
            self.sessions.join(name, face.for_handler(ws))
            await ws.send("in")
            async for message in ws:
                if message == "raise":
                    raise RuntimeError("asked for")

        self.server.websocket("/{name}")(face.handler(handler))

        @self.server.on_close
        def ended(ws, ending):
            self.endings.put_nowait(ending)

        @self.sessions.joined
        def joined(key, ws):
            self.events.append(f"{key} joined")
            self.threads.add(threading.current_thread())

        @self.sessions.left
        def left(key, ending):
            self.events.append(f"{key} left: {ending.code}")
            self.threads.add(threading.current_thread())

    async def client(self, path="/ada", version="13"):
        uri = f"ws://127.0.0.1:{self.server.port}{path}"
        return await endwell.connect(uri, compression=None, version=version)

    async def join(self, path="/ada", version="13"):
        """A client that has joined."""
        ws = await self.client(path, version)
        assert await within(ws.recv()) == "in"
        return ws


@pytest.fixture
def hall(face):
    @asynccontextmanager
    async def hall(grace=30.0):
        made = Hall(face, grace)
        async with made.server.serving(grace=1.0):
            yield made

    return hall


async def test_the_newest_connection_replaces_the_old_one(hall):
    async with hall() as place:
        old = await place.join()
        current = place.sessions["ada"]
        new = await place.join()
        assert (await within(old.closed)).received == Close(4991, "replaced")
        ending = await within(place.endings.get())
        assert (ending.cause, ending.ok) == (Cause.REPLACED, True)
        assert place.sessions["ada"] is not current
        assert dict(place.sessions) == {"ada": place.sessions["ada"]}
        assert new.is_open
        await until(lambda: place.events == ["ada joined"])
        await new.close(1000)


@pytest.mark.parametrize("version", ["hixie-76", "hixie-75"])
async def test_a_client_of_an_old_protocol_is_replaced_without_a_code(hall, version):
    async with hall() as place:
        old = await place.join(version=version)
        new = await place.join(version=version)
        received = (await within(old.closed)).received
        assert received == (Close() if version == "hixie-76" else None)
        ending = await within(place.endings.get())
        assert (ending.cause, ending.sent) == (Cause.REPLACED, Close(4991, "replaced", not_transmitted=True))
        assert new.is_open
        await until(lambda: place.events == ["ada joined"])
        await new.close()


async def test_a_slower_handler_does_not_replace_a_newer_connection(hall):
    async with hall() as place:
        place.gates["slow"] = gate = threading.Event()
        old = await place.client("/ada?gate=slow")
        new = await place.join()
        gate.set()
        assert (await within(old.closed)).received == Close(4991, "replaced")
        assert new.is_open
        assert len(place.sessions) == 1
        await until(lambda: place.events == ["ada joined"])
        await new.close()


async def test_an_ended_connection_cannot_join(hall):
    async with hall() as place:
        place.gates["slow"] = gate = threading.Event()
        ws = await place.client("/ada?gate=slow")
        await ws.close(1001)
        gate.set()
        await within(place.endings.get())
        await asyncio.sleep(0.02)
        assert not place.sessions.present
        assert place.events == []


@pytest.mark.parametrize("code", [1001, 4990, 4000])
async def test_a_reload_within_the_grace_is_not_reported(hall, code):
    async with hall() as place:
        for _ in range(3):
            ws = await place.join()
            await ws.close(code)
            await within(place.endings.get())
            assert "ada" not in place.sessions
            assert place.sessions.get("ada") is None
            assert place.sessions.present == {"ada"}
        await until(lambda: place.events == ["ada joined"])


async def test_a_key_has_left_after_the_grace(hall):
    async with hall(grace=0.05) as place:
        ws = await place.join()
        await ws.close(1001)
        await until(lambda: place.events == ["ada joined", "ada left: 1001"])
        assert not place.sessions.present
        ws = await place.join()
        await until(lambda: place.events[2:] == ["ada joined"])
        await ws.close()


@pytest.mark.parametrize("code", [1000, 1008, 3000])
async def test_a_client_that_will_not_return_has_left_at_once(hall, code):
    async with hall() as place:
        ws = await place.join()
        await ws.close(code)
        await until(lambda: place.events == ["ada joined", f"ada left: {code}"])


async def test_a_key_stays_present_for_the_grace_after_a_failed_handler(hall):
    async with hall() as place:
        ws = await place.join()
        await ws.send("raise")
        assert (await within(ws.closed)).received.code == 1011
        await within(place.endings.get())
        assert place.sessions.present == {"ada"}


async def test_without_a_grace_every_ended_connection_has_left(hall):
    async with hall(grace=0) as place:
        ws = await place.join()
        await ws.close(1001)
        await until(lambda: place.events == ["ada joined", "ada left: 1001"])


async def test_every_key_has_left_when_the_server_stops(hall):
    async with hall() as place:
        away = await place.join("/away")
        await away.close(1001)
        here = await place.join("/here")
    assert sorted(place.events[2:]) == ["away left: 1001", "here left: 1001"]
    assert not place.sessions.present
    await within(here.closed)


async def test_a_failing_callback_of_sessions_is_logged(hall, caplog):
    async with hall() as place:
        place.sessions._joined.insert(0, lambda key, ws: 1 / 0)
        ws = await place.join()
        await until(lambda: place.events == ["ada joined"])
        assert "ZeroDivisionError" in caplog.text
        await ws.close()


def test_a_callback_of_sessions_must_be_a_plain_function():
    async def later(key, ws): ...

    with pytest.raises(TypeError, match="plain function"):
        endwell.Sessions().joined(later)


async def test_keys_are_independent(hall):
    async with hall() as place:
        ada, eve = await place.join("/ada"), await place.join("/eve")
        assert set(place.sessions) == place.sessions.present == {"ada", "eve"}
        await ada.close()
        await until(lambda: place.events[2:] == ["ada left: 1000"])
        assert set(place.sessions) == {"eve"}
        await eve.close()


async def test_in_any_order_of_events_the_newest_connection_stays(hall):
    dice = random.Random(7)
    async with hall() as place:
        ws = await place.join()
        for _ in range(100):
            before, ws = ws, None
            if dice.random() < 0.5:  # the Close of the old connection comes first
                await before.close(1001)
                ws = await place.join()
            else:  # or at the same time as the new connection, or later
                ws, _ = await asyncio.gather(place.join(), before.close(1001))
            assert list(place.sessions) == ["ada"]
            assert place.sessions["ada"].is_open
        await until(lambda: place.events == ["ada joined"])
        await ws.close()
        await until(lambda: len(place.events) == 2)


async def test_callbacks_run_in_the_loop_or_in_a_thread_like_the_handler(hall, face):
    async with hall() as place:
        ws = await place.join()
        await ws.close()
        await until(lambda: len(place.events) == 2)
    here = threading.current_thread()
    assert (place.threads == {here}) if face is ASYNCIO else (here not in place.threads)


async def test_callbacks_of_plain_handlers_may_block_and_run_in_order(monkeypatch):
    monkeypatch.setattr("endwell.server.sessions.CALLBACK_TIME", BOUND)
    told = []

    def note(what):
        time.sleep(0.02)
        told.append(what)

    async with Hall(BLOCKING, 30.0).server.serving() as server:
        server.sessions.joined(lambda key, ws: note(f"{key} joined {type(ws).__module__}"))
        server.sessions.left(lambda key, ending: note(f"{key} left"))
        for name in ("ada", "eve", "bob"):
            async with endwell.connect(f"ws://127.0.0.1:{server.port}/{name}") as ws:
                await ws.recv()
    assert [each.split()[:2] for each in told if "ada" in each] == [["ada", "joined"], ["ada", "left"]]
    assert [each for each in told if "joined" in each] == [
        f"{name} joined endwell.sync.websocket" for name in ("ada", "eve", "bob")
    ]
    assert len(told) == 6


async def test_a_plain_handler_sends_to_all_sessions():
    server = endwell.Server()

    @server.websocket("/{name}")
    def handler(ws, name):
        server.sessions.join(name, ws)
        assert server.sessions[name] is ws
        for message in ws:
            for key, other in server.sessions.items():
                if key != name:
                    other.send(f"{name}: {message}")
            ws.send(f"to {len(server.sessions.values()) - 1} of {len(server.sessions.present)}")

    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}"
        async with endwell.connect(f"{url}/ada") as ada, endwell.connect(f"{url}/eve") as eve:
            await until(lambda: len(server.sessions) == 2)
            await ada.send("hello")
            assert await within(ada.recv()) == "to 1 of 2"
            assert await within(eve.recv()) == "ada: hello"


async def test_sessions_read_in_a_thread_never_miss_a_reloading_client():
    server, missed = endwell.Server(), []
    done = threading.Event()

    @server.websocket("/")
    async def handler(ws):
        server.sessions.join("ada", ws)
        await ws.send("in")
        await ws.closed

    def watch():
        while not done.is_set():
            present = server.sessions.present
            if present != {"ada"} or len(list(server.sessions.values())) > 1:
                missed.append(present)

    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}/"
        ws = await endwell.connect(url)
        await ws.recv()
        watching = threading.Thread(target=watch)
        watching.start()
        for _ in range(100):
            await ws.close(1001)
            ws = await endwell.connect(url)
            await ws.recv()
        done.set()
        await asyncio.to_thread(watching.join)
        await ws.close()
    assert not missed


async def test_joining_from_the_wrong_thread_raises_with_advice():
    async with endwell.Server().serving() as server:

        @server.websocket("/async")
        async def handler(ws):
            with pytest.raises(endwell.ConcurrencyError, match="plain handler must pass its own WebSocket"):
                await asyncio.to_thread(server.sessions.join, "ada", ws)
            await ws.send("told")

        async with endwell.connect(f"ws://127.0.0.1:{server.port}/async") as ws:
            assert await within(ws.recv()) == "told"
        assert not server.sessions.present
