"""One connection with a peer that is a program, as the client or as the server."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from catalog import Peer
from report import Row
from tap import Tap

import endwell
from endwell import Cause

#: Short, because some peers leave a Close unanswered.
OPTIONS = endwell.Options(close_timeout=3)
#: Seconds for data that may still be in the tap when both sides have finished.
SETTLE = 0.1


async def serve(peer: Peer, scenario: str) -> Row:
    """The peer is the client; it requests an action of endwell by the name of the scenario."""
    row = Row("server", scenario, Cause.SERVER_DRAINED if scenario == "server-stops" else Cause.APP_CLOSED)
    server = endwell.Server(OPTIONS)
    tap = Tap()
    stop = asyncio.Event()

    @server.websocket("/")
    async def handler(ws: endwell.WebSocket) -> None:
        row.watch(ws, tap)
        with suppress(endwell.ConnectionClosed):
            async for message in ws:
                await obey(ws, message, tap, stop)

    async with tap, asyncio.TaskGroup() as tasks:
        async with server.serving():
            tap.target = server.port
            conversation = tasks.create_task(peer.run("client", f"ws://127.0.0.1:{tap.port}/", scenario))
            conversation.add_done_callback(lambda _: stop.set())
            await stop.wait()
        row.told, failure = await conversation
        row.faults += [failure] if failure else []
        await asyncio.sleep(SETTLE)
    return row.judge()


async def obey(ws: endwell.WebSocket, message: str | bytes, tap: Tap, stop: asyncio.Event) -> None:
    """Do what the peer requests, or echo."""
    match message.strip() if isinstance(message, str) else message:  # a line, where the peer is a filter
        case "server-closes":
            await ws.close(4001, "srv")
        case "server-stops":
            stop.set()
        case "reset":
            tap.reset()
        case _:
            await ws.send(message)


async def dial(peer: Peer, scenario: str) -> Row:
    """The peer is the server."""
    row = Row("client", scenario)
    async with peer.running("server") as process, Tap(int(await peer.line(process))) as tap:
        ws = await endwell.connect(f"ws://127.0.0.1:{tap.port}/", options=OPTIONS)
        row.watch(ws, tap)
        if scenario == "client-closes":
            for message in peer.messages:
                await ws.send(message)
                if await ws.recv() != message:
                    row.faults.append("the echo differs")
            await ws.close(3001, "bye")
        elif scenario == "reset":
            await ws.ping()  # the peer is there
            tap.reset()
        else:
            await ws.send(scenario)
        await ws.closed
        row.told = await peer.line(process)
        await asyncio.sleep(SETTLE)
    return row.judge()
