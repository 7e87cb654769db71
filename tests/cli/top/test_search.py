"""``endwell top`` asks all addresses of a process at the same time."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

import endwell
from endwell import Server
from endwell.cli.top import search
from endwell.cli.top.search import NoAnswer, Target, first_answer
from endwell.cli.top.session import SUBPROTOCOL, ask_once
from tests.cli.process import command, finish
from tests.pair import within
from tests.raw import BOUND

REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def answering_together(count):
    """The ports of servers that refuse their first requests when all have one."""
    barrier = asyncio.Barrier(count)

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await barrier.wait()
        writer.write(REFUSAL)
        await writer.drain()
        writer.close()

    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(await asyncio.start_server(refuse, "127.0.0.1", 0))
            for _ in range(count)
        ]
        yield [server.sockets[0].getsockname()[1] for server in servers]


def silent(family=socket.AF_INET, address=("127.0.0.1", 0)):
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    sock.setblocking(False)
    return sock


def accepted(sock):
    """Number of the connections that have come to a listening socket."""
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def target(url, open_timeout=BOUND * 3, **keywords):
    fixed = {"subprotocols": [SUBPROTOCOL], "close_timeout": 1.0, "open_timeout": open_timeout}
    return Target(url, {**fixed, **keywords})


async def ask(target):
    return await ask_once(target.url, target.keywords, 1)


async def test_all_are_asked_before_one_has_answered_and_the_command_tells_what_each_says():
    async with answering_together(3) as ports:

        def run():
            with command("top", "--once", str(os.getpid())) as process:
                return finish(process)

        status, out, err = await asyncio.to_thread(run)
    assert (status, out) == (1, "")
    for port in ports:
        assert f"ws://127.0.0.1:{port}/_endwell/feed: server refused with HTTP 403" in err


async def test_the_one_that_answers_does_not_wait_for_the_others():
    server = Server()
    server.dashboard()
    with silent() as first, silent() as last:
        async with server.serving():
            targets = [
                target(f"{scheme}://127.0.0.1:{port}/_endwell/feed")
                for port in (first.getsockname()[1], server.port, last.getsockname()[1])
                for scheme in ("ws", "wss")
            ]
            found, answer = await within(first_answer(targets, ask))
    assert found == targets[2]
    assert answer["summary"]["connections"] == 0


async def test_the_silent_ones_are_named_and_not_asked_again_with_tls(monkeypatch, tmp_path):
    monkeypatch.setattr(search, "OPEN_TIME", 0.2)
    path = str(tmp_path / "socket")
    with silent() as tcp, silent(socket.AF_UNIX, path) as unix:
        port = tcp.getsockname()[1]
        targets = [
            *(target(f"{scheme}://127.0.0.1:{port}/feed", 0.2) for scheme in ("ws", "wss")),
            *(target(f"{scheme}://localhost/feed", 0.2, unix_path=path) for scheme in ("ws", "wss")),
        ]
        with pytest.raises(NoAnswer) as caught:
            await within(first_answer(targets, ask))
        assert (accepted(tcp), accepted(unix)) == (1, 1)
    why = "the server did not answer the request within 0.2 s (open_timeout)"
    assert {str(failure) for failure in caught.value.failures} == {
        f"ws://127.0.0.1:{port}/feed: {why}",
        f"the Unix socket {path!r}: ws://localhost:80/feed: {why}",
    }


@asynccontextmanager
async def opening_the_feed(tls):
    server = Server(subprotocols=[SUBPROTOCOL])

    @server.websocket("/feed")
    async def mute(ws):
        await ws.wait_closed()

    async with server.serving(ssl=tls.server):
        yield server.port


@asynccontextmanager
async def opening_tls_only(tls):
    done = asyncio.Event()

    async def mute(reader, writer):
        await done.wait()
        writer.close()

    async with await asyncio.start_server(mute, "127.0.0.1", 0, ssl=tls.server) as server:
        yield server.sockets[0].getsockname()[1]
        done.set()


@pytest.mark.parametrize("mute", [opening_the_feed, opening_tls_only])
async def test_one_limit_is_for_the_whole_answer(mute, monkeypatch, use):
    monkeypatch.setattr(search, "ANSWER_TIME", 0.5)
    tls = use("wss")
    async with mute(tls) as port:
        url = f"wss://127.0.0.1:{port}/feed"
        with pytest.raises(NoAnswer) as caught:
            await within(first_answer([target(url, ssl=tls.client)], ask))
    assert [str(failure) for failure in caught.value.failures] == [f"{url}: no answer within 0.5 s"]


async def test_the_failure_that_has_come_furthest_is_the_first():
    refusing = Server()

    @refusing.websocket("/feed", subprotocols=[SUBPROTOCOL])
    async def leave(ws):
        await ws.close(4000, "go away")

    with silent() as nobody:
        port = nobody.getsockname()[1]
    async with answering_together(1) as [refuses], refusing.serving():
        targets = [target(f"ws://127.0.0.1:{each}/feed") for each in (port, refuses, refusing.port)]
        with pytest.raises(NoAnswer) as caught:
            await within(first_answer(targets, ask))
    errors = [type(failure.error) for failure in caught.value.failures]
    assert errors == [endwell.ConnectionClosedError, endwell.HandshakeRejected, endwell.HandshakeError]
    assert str(caught.value.failures[0]).startswith(f"{targets[2].url}: peer closed with 4000 'go away'")
