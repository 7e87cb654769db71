"""What asyncio.Task, asyncio.timeout and anyio require of an awaitable that they cancel."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import types

import anyio
import pytest

import endwell
from endwell import ConcurrencyError, Server, connect, reconnecting
from tests.pair import QUIET, pair, until, within
from tests.raw import BOUND, RawServer
from tests.wire.peer import TEXT

HUGE = bytes(2 * 2**20)


async def alive(ws):
    async with ws.alive():
        await asyncio.Event().wait()


async def full(ws):
    """Send more than the kernel accepts for a peer that does not read, and then wait for room."""
    await ws.send(HUGE)
    await ws.send("next")


async def unanswered(ws):
    await ws.close()


#: Every call that waits, by its name.
WAITS = {
    "recv": lambda ws: ws.recv(),
    "read": lambda ws: ws.read(),
    "iteration": anext,
    "send": full,
    "ping": lambda ws: ws.ping(),
    "close": unanswered,
    "closed": lambda ws: ws.closed,
    "wait_closed": lambda ws: ws.wait_closed(),
    "draining": lambda ws: ws.draining.wait(),
    "alive": alive,
}


@pytest.fixture(params=WAITS)
def waits(request):
    return WAITS[request.param]


def as_a_task(awaitable):
    async def wait():
        return await awaitable

    return asyncio.create_task(wait())


async def suspended(task):
    """Let ``task`` run until it waits."""
    await until(lambda: task._fut_waiter is not None)


async def test_a_cancelled_task_receives_the_message(role, waits):
    async with pair(role, buffer=16384) as both:
        task = as_a_task(waits(both.ws))
        await suspended(task)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        assert raised.value.args == ("why",)


async def test_a_cancellation_without_a_message_has_none(waits):
    async with pair("server", buffer=16384) as both:
        task = as_a_task(waits(both.ws))
        await suspended(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        assert raised.value.args == ()


async def test_a_cancel_scope_of_anyio_loses_no_message(role, waits):
    async with pair(role, buffer=16384) as both:
        with anyio.move_on_after(0.01) as scope:
            await waits(both.ws)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.01):
                await waits(both.ws)
        assert asyncio.current_task().cancelling() == 0
        await both.peer.frame(TEXT, b"next")
        with anyio.fail_after(BOUND):
            assert await both.ws.recv() == "next"


async def test_connect_can_be_cancelled_by_a_scope_of_anyio():
    with RawServer() as silent:
        with anyio.move_on_after(0.05) as scope:
            await connect(silent.uri)
        assert scope.cancelled_caught
        with anyio.move_on_after(0.05) as scope:
            async for _ in reconnecting(silent.uri):
                pytest.fail("nobody answers")
        assert scope.cancelled_caught


async def test_reconnecting_can_be_cancelled_by_a_scope_of_anyio():
    server = Server()

    @server.websocket("/")
    async def handle(ws):
        await ws.wait_closed()

    async with server.serving(grace=0):
        with anyio.move_on_after(0.05) as scope:
            async for ws in reconnecting(f"ws://127.0.0.1:{server.port}/"):
                await ws.recv()
        assert scope.cancelled_caught
        assert asyncio.current_task().cancelling() == 0


async def test_a_handler_may_use_scopes_and_task_groups_of_anyio():
    server = Server()
    endings = []
    server.on_close(lambda _, ending: endings.append(ending))

    @server.websocket("/")
    async def handle(ws):
        with anyio.move_on_after(0.01):
            await ws.recv()
        async with anyio.create_task_group() as group:
            group.start_soon(ws.send, "from a task")
            group.start_soon(ws.ping)
            with anyio.fail_after(BOUND):
                assert await ws.recv() == "hello"
            group.start_soon(ws.recv)
            group.start_soon(ws.wait_closed)
            with contextlib.suppress(TimeoutError), anyio.fail_after(0.01):
                await anyio.sleep_forever()
            group.cancel_scope.cancel()
        await ws.send("still here")
        async with anyio.create_task_group() as group:
            group.start_soon(ws.close, 1000, "bye")

    async with server.serving(), connect(f"ws://127.0.0.1:{server.port}/", **QUIET) as ws:
        assert await within(ws.recv()) == "from a task"
        await ws.send("hello")
        assert await within(ws.recv()) == "still here"
        assert (await within(ws.closed)).received == endwell.Close(1000, "bye")
    assert endings[0].ok


@pytest.mark.parametrize("first", ["scope", "end"])
async def test_a_scope_of_anyio_may_be_cancelled_as_the_connection_ends(first):
    async with pair("server") as both, pair("server") as other:
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:

            def cancel(_ending):
                loop.call_soon(scope.cancel)

            # alive() cancels by such a callback too, and callbacks run in order.
            if first == "scope":
                both.ws.on_close(cancel)
            async with both.ws.alive():
                if first == "end":
                    both.ws.on_close(cancel)
                loop.call_soon(both.ws.abort)
                await other.ws.recv()
        assert scope.cancelled_caught
        assert asyncio.current_task().cancelling() == 0
        assert both.ws.ending


async def test_every_awaitable_method_returns_a_coroutine_for_inspect():
    async with pair("server") as both:
        ws = both.ws
        for awaitable, name in (
            (ws.recv(), "recv"),
            (ws.read(), "read"),
            (anext(ws), "__anext__"),
            (ws.send("x"), "send"),
            (ws.ping(), "ping"),
            (ws.close(), "close"),
            (ws.wait_closed(), "wait_closed"),
        ):
            # anyio 4.13 accepts nothing else.
            assert isinstance(awaitable, types.CoroutineType)
            assert inspect.iscoroutine(awaitable)
            assert inspect.getcoroutinestate(awaitable)
            assert (awaitable.__name__, awaitable.__qualname__) == (name, f"WebSocket.{name}")
            if name in ("ping", "close", "wait_closed"):
                awaitable.close()


def never_begun(ws):
    task = asyncio.ensure_future(ws.recv())
    task.cancel()
    return task


def without_time(ws):
    return asyncio.ensure_future(asyncio.wait_for(ws.recv(), 0))


def closed(ws):
    ws.recv().close()


def thrown(ws):
    with pytest.raises(LookupError):
        ws.recv().throw(LookupError)


@pytest.mark.parametrize("meddle", [never_begun, without_time, closed, thrown])
async def test_an_unawaited_recv_does_not_affect_a_waiting_one(meddle):
    async with pair("server") as both:
        first = asyncio.ensure_future(both.ws.recv())
        await suspended(first)
        second = meddle(both.ws)
        if second is not None:
            await asyncio.gather(second, return_exceptions=True)
        with pytest.raises(ConcurrencyError, match="another task"):
            await both.ws.recv()
        await both.peer.frame(TEXT, b"for the first")
        assert await within(first) == "for the first"
        third = asyncio.ensure_future(both.ws.recv())
        await suspended(third)
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(third)


async def test_recv_is_possible_at_once_after_a_cancelled_recv():
    async with pair("server") as both:
        first = asyncio.ensure_future(both.ws.recv())
        await suspended(first)

        async def receive():
            first.cancel("first")
            receiving = asyncio.ensure_future(both.ws.recv())
            await asyncio.sleep(0)  # it waits; the first one has not resumed
            first.cancel("again")
            return await receiving

        second = asyncio.ensure_future(receive())
        with pytest.raises(asyncio.CancelledError):
            await within(first)
        await asyncio.sleep(0)
        await both.peer.frame(TEXT, b"for the second")
        assert await within(second) == "for the second"


@pytest.mark.parametrize("late", [False, True])
async def test_cancelling_a_recv_does_not_affect_the_recv_that_follows(late):
    async with pair("server") as both:
        first_was_told, first_waits = [], asyncio.Event()

        async def receive_again():
            for _ in range(2):
                try:
                    await both.ws.recv()
                except (asyncio.CancelledError, ConcurrencyError) as exc:
                    first_was_told.append(exc)
            first_waits.set()
            await asyncio.Event().wait()

        begin = asyncio.get_running_loop().create_future()

        async def receive():
            await begin
            return await both.ws.recv()

        first, second = asyncio.ensure_future(receive_again()), asyncio.ensure_future(receive())
        await suspended(first)
        await suspended(second)
        begin.set_result(
            None
        )  # the second one resumes, and waits before the first one's cancellation is delivered
        first.cancel("first")
        if late:
            asyncio.get_running_loop().call_soon(second.cancel, "second")
        await within(first_waits.wait())
        told = [type(exc) for exc in first_was_told]
        assert told == [asyncio.CancelledError, ConcurrencyError]
        if late:
            with pytest.raises(asyncio.CancelledError, match="second"):
                await within(second)
        else:
            await both.peer.frame(TEXT, b"for the second")
            assert await within(second) == "for the second"
        first.cancel()
