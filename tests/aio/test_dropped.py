"""A client connection that the application no longer references."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings

import pytest

from endwell import Cause, Close, connect
from tests.pair import QUIET, nothing_left_behind, within
from tests.raw import RawServer
from tests.wire.peer import TEXT


async def opened(listening, **options):
    """Our connection and the peer."""
    connecting = asyncio.ensure_future(_connected(listening.uri, **options))
    peer = await listening.accept()
    return await within(connecting), peer


async def _connected(uri, **options):
    return await connect(uri, **{**QUIET, "close_timeout": 5, **options})


async def end(peer):
    """The peer answers and ends TCP."""
    with peer:
        await peer.close(1000)
        peer.fin()
        await peer.read_to_the_end()


async def test_an_unreferenced_connection_is_closed_with_1000_and_runs_callbacks(transport):
    endings = []
    with RawServer(transport.server) as listening:
        async with nothing_left_behind():
            ws, peer = await opened(listening, ssl=transport.client)
            ws.on_close(endings.append)
            await ws.send("the last")
            del ws
            assert await peer.read_frame() == (TEXT, b"the last")
            assert await peer.read_close() == Close(1000)
            await end(peer)
    assert [ending.cause for ending in endings] == [Cause.APP_CLOSED]
    assert endings[0].clean


async def test_a_connection_in_a_cycle_is_closed_by_the_garbage_collector():
    class Client:
        def __init__(self, ws):
            self.ws = ws
            ws.on_close(self.ended)

        def ended(self, ending):
            pass

    with RawServer() as listening:
        ws, peer = await opened(listening)
        Client(ws)
        del ws
        await asyncio.sleep(0)  # the loop keeps the future that this turn has waited for, whose result it is
        await asyncio.to_thread(gc.collect)
        assert await peer.read_close() == Close(1000)
        await end(peer)


@pytest.mark.virtual_clock
async def test_a_connection_stays_open_while_a_task_waits_in_recv():
    with RawServer() as listening:
        ws, peer = await opened(listening)
        receiving = asyncio.ensure_future(ws.recv())
        del ws
        for _ in range(5):
            await asyncio.sleep(0)
        await peer.frame(TEXT, b"still read")
        assert await within(receiving) == "still read"
        # Now it is.
        assert await peer.read_close() == Close(1000)
        await end(peer)


async def test_a_reference_keeps_a_connection_open():
    with RawServer() as listening:
        ws, peer = await opened(listening)
        send, closed = ws.send, asyncio.ensure_future(ws.wait_closed())
        del ws
        gc.collect()
        await asyncio.sleep(0)
        await send("held by a method")
        assert await peer.read_frame() == (TEXT, b"held by a method")
        del send
        gc.collect()
        await peer.close(1001)
        assert await peer.read_close() == Close(1001)
        peer.fin()
        assert (await within(closed)).received == Close(1001)
        peer.sock.close()


def test_a_program_that_ends_without_a_close_sends_one():
    with RawServer() as listening:

        async def main():
            await opened(listening)

        async def hear():
            assert await peer.read_close() == Close(1000)

        async def talk():
            nonlocal peer
            ws, peer = await opened(listening)
            assert ws.is_open

        peer = None
        asyncio.run(talk())
        with peer:
            asyncio.run(hear())


def test_a_connection_that_outlives_its_loop_warns_with_its_origin():
    async def main(listening):
        ws, peer = await opened(listening)
        return ws, peer

    with RawServer() as listening:
        ws, peer = asyncio.run(main(listening))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del ws
            gc.collect()
        peer.sock.close()
    ours = [warning for warning in caught if "WebSocket" in str(warning.message)]
    assert len(ours) == 1
    assert ours[0].category is ResourceWarning
    assert ours[0].filename == __file__
    line = _connected.__code__.co_firstlineno + 1
    assert ours[0].lineno == line
    assert str(ours[0].message).endswith(f"was not closed before its event loop; opened at {__file__}:{line}")


async def test_an_ended_connection_is_collected_without_a_warning():
    with RawServer() as listening:
        ws, peer = await opened(listening)
        peer.fin()
        await within(ws.closed)
        peer.sock.close()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del ws
            gc.collect()
        assert not caught


@pytest.mark.parametrize("late", [0, 1, 2])
async def test_a_cancelled_connect_leaves_no_open_connection(late):
    with RawServer() as listening:
        async with nothing_left_behind():
            connecting = asyncio.ensure_future(_connected(listening.uri))
            with await listening.accept() as peer:
                for _ in range(late):
                    await asyncio.sleep(0)
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
                del connecting  # it may have opened by then
                with contextlib.suppress(OSError):  # it may have been aborted
                    await peer.read_to_the_end(answer=True)
