"""The reconnecting client with both faces: whether and when it reconnects, how it is stopped, what it
reports.
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import logging
import socket
import threading
import time
from email.utils import formatdate
from itertools import pairwise

import pytest

import endwell
from endwell import Cause, Close, HandshakeRejected, Retry, RetryPolicy, StopReason
from endwell.aio import resolve
from tests.pair import nothing_left_behind, until, within
from tests.ports import free_port
from tests.raw import PROMPT, RawServer, wss
from tests.served import QUICK, SLOW, ScriptedServer, refusal, serving


async def loop(client, reached=None):
    async for ws in client:
        if reached is not None:
            reached.set()
        async for _ in ws:
            pass


def hanging(face, reached, stack):
    """A function that returns no URI before the end of ``stack``."""
    left = threading.Event()
    stack.callback(left.set)

    async def url():
        reached.set()
        await face.wait(left)

    return face.function(url)


# --- reconnecting -----------------------------------------------------------------


@pytest.mark.parametrize(
    "turn",
    [Close(1001), Close(1012, "server restarting"), Close(1013), Close(1011), Close(4000), "abort"],
    ids=str,
)
async def test_the_client_reconnects_and_the_loop_continues(turn, face):
    async with serving(turn) as served:
        answers = []
        async for ws in face.reconnecting(served.url, policy=QUICK):
            with contextlib.suppress(endwell.ConnectionClosed):
                await ws.send("hello")
                answers.append(await ws.recv())
                break
        assert answers == ["hello"]
        assert len(served.opened) == 2
        assert (await within(served.opened[1].closed)).received == Close(1000)


async def test_the_client_reconnects_over_tls(face):
    transport = wss()
    async with serving(refusal(503), Close(1012), ssl=transport.server) as served:
        url = served.url.replace("ws:", "wss:")
        async for ws in face.reconnecting(url, policy=QUICK, ssl=transport.client):
            if len(served.opened) == 2:
                break
            assert await ws.read() is None
        assert (await within(served.opened[1].closed)).received == Close(1000)


async def test_a_stale_connection_is_replaced_without_leaving_the_loop(face):
    told = []
    async with serving("idle") as served:
        async for ws in face.reconnecting(
            served.url, policy=QUICK, stale_after=0.05, on_ending=lambda *what: told.append(what)
        ):
            if len(served.opened) == 2:
                break
            assert [message async for message in ws] == []
        ending, wait = told[0]
        assert (ending.cause, ending.sent.code) == (Cause.IDLE_TIMEOUT, 1001)
        assert 0 <= wait <= QUICK.base


async def test_temporary_refusals_are_retried(face):
    async with serving(refusal(503), refusal(429), refusal(500)) as served:
        async for ws in face.reconnecting(served.url, policy=QUICK):
            await ws.send("hello")
            assert await ws.recv() == "hello"
            break
        assert len(served.request_times) == 4


async def test_the_client_reconnects_to_a_restarted_server(face):
    numbers, first, port = [], ScriptedServer(), free_port()

    async def client(url):
        async for ws in face.reconnecting(url, policy=QUICK):
            with contextlib.suppress(endwell.ConnectionClosed):
                while len(numbers) < 6:
                    await ws.send(str(len(numbers)))
                    numbers.append(await ws.recv())
                    await reached(numbers)
                break

    third, restarted = asyncio.Event(), asyncio.Event()

    async def reached(numbers):
        if len(numbers) == 3:
            third.set()
            await restarted.wait()

    async with nothing_left_behind():
        async with first.server.serving(port=port):
            task = asyncio.create_task(client(first.url))
            await within(third.wait())
        # For a while no server listens on the port.
        await asyncio.sleep(0.1)
        restarted.set()
        await asyncio.sleep(0.1)
        async with ScriptedServer().server.serving(port=port):
            await within(task)
    assert numbers == ["0", "1", "2", "3", "4", "5"]


async def test_every_attempt_resolves_the_name_again(face, monkeypatch):
    async with (
        serving(Close(1012)) as old,
        ScriptedServer().server.serving("127.0.0.2", old.server.port) as new,
    ):
        addresses = ["127.0.0.1", "127.0.0.2"]

        def getaddrinfo(host, port, *how):
            if host != b"moves.test" or how[-1] == socket.AI_NUMERICHOST:
                return _socket.getaddrinfo(host, port, *how)
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (addresses.pop(0), port))]

        monkeypatch.setattr(resolve, "getaddrinfo", getaddrinfo)
        seen = []
        async for ws in face.reconnecting(old.url.replace("127.0.0.1", "moves.test"), policy=QUICK):
            seen.append(ws.remote_address[0])
            if len(seen) == 2:
                break
            await ws.wait_closed()
        assert seen == ["127.0.0.1", "127.0.0.2"]
        await until(lambda: not new.connections)


async def test_every_attempt_uses_the_keyword_arguments(face, tmp_path):
    async with serving(refusal(503), unix_path=tmp_path / "socket") as served:
        async for ws in face.reconnecting(
            "ws://name/", policy=QUICK, unix_path=tmp_path / "socket", additional_headers={"X-Token": "t"}
        ):
            assert ws.request.headers["X-Token"] == "t"
            break
        assert len(served.request_times) == 2


# --- not reconnecting -------------------------------------------------------------


async def test_a_normal_closure_ends_the_loop_quietly(face):
    async with serving(Close(1000, "that was all")) as served:
        endings = [await ws.closed async for ws in face.reconnecting(served.url, policy=QUICK)]
        assert [ending.reason for ending in endings] == ["that was all"]


@pytest.mark.parametrize("leave", ["close", "abort", "leave open"])
async def test_a_loop_that_closes_its_connection_ends(leave, face):
    async with serving() as served:
        async for ws in face.reconnecting(served.url, policy=QUICK):
            if leave == "close":
                await ws.close(4000, "enough")
            elif leave == "abort":
                ws.abort()
        ending = await within(ws.closed)
        assert ending.cause is Cause.APP_CLOSED
        assert len(served.request_times) == 1
        if leave == "leave open":
            assert ending.sent == Close(1000)
            assert ending.clean


async def test_an_application_code_with_retry_reconnects(face):
    policy = RetryPolicy(base=0.02, codes={4000: Retry.NOW})
    async with serving() as served:
        async for ws in face.reconnecting(served.url, policy=policy):
            if len(served.opened) == 3:
                break
            await ws.close(4000, "stale")
        assert [(await within(ws.closed)).code for ws in served.opened] == [4000, 4000, 1000]


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 3000, 3003])
async def test_a_code_with_retry_never_is_raised(code, face):
    async with serving(Close(code, "no")) as served:
        with pytest.raises(endwell.ConnectionClosedError) as caught:
            await loop(face.reconnecting(served.url, policy=QUICK))
        assert (caught.value.code, caught.value.reason) == (code, "no")
        assert len(served.request_times) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_permanent_refusal_is_raised(status, face):
    async with serving(refusal(status, Retry_After="0")) as served:
        with pytest.raises(HandshakeRejected) as caught:
            await loop(face.reconnecting(served.url, policy=QUICK))
        assert caught.value.response.status == status
        assert len(served.request_times) == 1


async def test_exhausted_retries_raise_with_the_last_failure(face):
    async with serving(*[refusal(503)] * 9) as served:
        client = face.reconnecting(served.url, policy=RetryPolicy(base=0.01, max_retries=3))
        with pytest.raises(
            endwell.GaveUp, match=r"max_retries is used up; the last attempt: .* HTTP 503"
        ) as caught:
            await loop(client)
        assert caught.value.__cause__ is caught.value.last
        assert caught.value.last.response.status == 503
        assert caught.value.ending.cause is Cause.HANDSHAKE_REJECTED
        assert len(served.request_times) == 4


async def test_exhausted_time_raises_with_the_last_ending(face):
    async with serving(*[Close(1013, "full")] * 99) as served:
        policy = RetryPolicy(base=0.02, max_delay=0.02, max_time=0.2)
        with pytest.raises(endwell.GaveUp, match=r"max_time is used up; .* 'full'") as caught:
            await loop(face.reconnecting(served.url, policy=policy))
        assert isinstance(caught.value.last, endwell.ConnectionClosedError)
        assert caught.value.ending.code == 1013
        # Waits of at least 0.02 s; fewer connections if connecting takes longer.
        assert 1 <= len(served.request_times) <= 11


# --- when ---------------------------------------------------------------------------


async def test_a_server_that_closes_with_1013_receives_few_connections(face):
    # The defaults, 50 times as fast: so at most 6 connections in any window of 30 s / 50.
    policy = RetryPolicy(base=5 / 50, max_delay=60 / 50)
    async with serving(*[Close(1013)] * 99) as served:
        client = face.reconnecting(served.url, policy=policy)
        task = asyncio.create_task(loop(client))
        await until(lambda: len(served.request_times) >= 4)
        client.stop()
        await within(task)
    # 0.098: uvloop's timers count whole milliseconds.
    assert all(later - sooner >= 0.098 for sooner, later in pairwise(served.request_times))


@pytest.mark.virtual_clock
@pytest.mark.parametrize(("status", "form"), [(503, "seconds"), (429, "date")])
async def test_retry_after_is_obeyed(status, form, face):
    now = int(time.time())
    after = "1" if form == "seconds" else formatdate(now + 1, usegmt=True)
    waits = []
    async with serving(refusal(status, Retry_After=after, Date=formatdate(now, usegmt=True))) as served:
        async for _ in face.reconnecting(
            served.url, policy=QUICK, on_ending=lambda last, verdict: waits.append(verdict)
        ):
            break
        first, second = served.request_times
        assert second - first >= 0.99
    # The jitter spreads a crowd of clients over time.
    assert 1.0 <= waits[0] <= 1.0 + QUICK.base


# --- stopping from outside ------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "aclose"])
@pytest.mark.parametrize("when", ["waiting", "credentials", "connecting", "proxy", "open"])
async def test_stop_ends_the_loop_at_once_in_any_phase(how, when, face):
    async with contextlib.AsyncExitStack() as stack:
        reached = threading.Event()
        proxy = None
        if when in ("connecting", "proxy"):
            listening = stack.enter_context(RawServer())  # accepts the connection and never answers
            url = listening.uri
            if when == "proxy":
                url, proxy = "ws://chat.example/", url.replace("ws:", "http:")
        elif when == "credentials":
            url = hanging(face, reached, stack)
        else:
            served = await stack.enter_async_context(serving(*[refusal(503)] * (when == "waiting")))
            url = served.url
        client = face.reconnecting(
            url,
            proxy=proxy,
            policy=SLOW,
            on_ending=lambda last, verdict: reached.set(),
            open_timeout=3 * PROMPT,
            close_timeout=3 * PROMPT,
        )
        task = asyncio.create_task(loop(client, reached))
        if when in ("connecting", "proxy"):
            stack.enter_context(await listening.accept_tcp())
        else:
            await until(reached.is_set)
        # The blocking client runs in another thread.
        if how == "stop":
            client.stop()
        else:
            await within(client.aclose())
        # What it waits for lasts three times as long: open_timeout, close_timeout; the wait of SLOW is 60
        # s.
        await asyncio.wait({task}, timeout=PROMPT)
        assert task.result() is None
        if when == "open":
            ending = await within(served.opened[0].closed)
            assert ending.received == Close(1000)
            assert ending.clean


async def test_a_client_stopped_before_its_loop_does_not_connect(face):
    async with serving() as served:
        client = face.reconnecting(served.url)
        client.stop()
        await client.aclose()
        with pytest.raises(RuntimeError, match="stopped"):
            await loop(client)
        assert served.request_times == []


@pytest.mark.parametrize("turn", [Close(1000), Close(1008), "break"], ids=str)
async def test_a_second_loop_over_the_same_client_raises(turn, face):
    async with serving(turn) as served:
        client = face.reconnecting(served.url, policy=QUICK)
        with contextlib.suppress(endwell.ConnectionClosed):
            async for ws in client:
                if turn == "break":
                    break
                await ws.wait_closed()
        with pytest.raises(RuntimeError, match="its loop has ended"):
            await loop(client)
        assert len(served.request_times) == 1


async def test_a_callback_can_stop_the_client(face):
    async with serving() as served:
        client = face.reconnecting(served.url, on_attempt=lambda number: client.stop())
        assert [ws async for ws in client] == []
        assert served.opened == []


@pytest.mark.parametrize("when", ["waiting", "connecting", "open"])
async def test_stop_is_idempotent(when, face):
    with RawServer() as silent:
        async with serving(*[refusal(503)] * (when == "waiting")) as served:
            client = face.reconnecting(silent.uri if when == "connecting" else served.url, policy=SLOW)
            task = asyncio.create_task(loop(client))
            if when == "connecting":
                peer = await silent.accept_tcp()
            else:
                await until(lambda: served.request_times)
            while not task.done():
                client.stop()
                await asyncio.sleep(0)
            assert task.result() is None
            if when == "connecting":
                peer.drop()


@pytest.mark.parametrize("leave", ["break", "return", "raise"])
async def test_leaving_the_loop_in_any_way_sends_the_close(leave, face):
    async with serving() as served:

        async def body():
            async for _ in face.reconnecting(served.url):
                if leave == "break":
                    break
                if leave == "return":
                    return
                raise KeyError

        with contextlib.suppress(KeyError):
            await body()
        ending = await within(served.opened[0].closed)
        assert ending.received == Close(1000)
        assert ending.clean


# --- reports ------------------------------------------------------------------------------


async def test_attempts_and_endings_are_reported_as_they_occur(face):
    told = []
    async with serving(refusal(503), Close(1012, "a"), Close(1000, "b")) as served:
        async for ws in face.reconnecting(
            served.url,
            policy=QUICK,
            on_attempt=lambda number: told.append((number, len(served.request_times))),
            on_ending=lambda *what: told.append(what),
        ):
            ending = await ws.closed
            # At once: the body still runs.
            await until(lambda ending=ending: told[-1][0] is ending)
    one, refused, two, restarted, three, closed = told
    # Before each attempt.
    assert [one, two, three] == [(1, 0), (2, 1), (3, 2)]
    assert isinstance(refused[0], HandshakeRejected)
    assert 0.02 <= refused[1] <= 0.04
    assert restarted[0].received == Close(1012, "a")
    assert 0.02 <= restarted[1] <= 0.06
    assert closed[0].received == Close(1000, "b")
    assert closed[1] is StopReason.DONE


async def test_an_ending_after_the_loop_is_reported_too(face):
    told = []
    async with serving() as served:
        async for _ in face.reconnecting(served.url, on_ending=lambda *what: told.append(what)):
            break
        await until(lambda: told)
        ((ending, verdict),) = told
        assert ending.cause is Cause.APP_CLOSED
        assert verdict is StopReason.STOPPED


async def test_a_callback_that_raises_is_logged_and_changes_nothing(face, caplog):
    def fail(*_):
        raise RuntimeError

    def errors():
        return [record.name for record in caplog.records if record.levelno == logging.ERROR]

    async with serving(Close(1012), Close(1000)) as served:
        async for ws in face.reconnecting(served.url, policy=QUICK, on_attempt=fail, on_ending=fail):
            await ws.wait_closed()
    assert len(served.opened) == 2
    await until(lambda: len(errors()) == 4)
    assert set(errors()) == {"endwell.client"}


async def test_the_log_names_the_failure_and_the_next_attempt(face, caplog):
    caplog.set_level(logging.INFO, "endwell.client")
    async with serving(refusal(503), Close(1000)) as served:
        url = served.url
        async for ws in face.reconnecting(url, policy=QUICK):
            await ws.wait_closed()
    one, two = [record.getMessage() for record in caplog.records if record.name == "endwell.client"]
    assert one.startswith(f"{url}: server refused with HTTP 503 Service Unavailable; reconnecting in 0.0 s")
    assert two.startswith("peer closed with 1000 NORMAL_CLOSURE; clean, after ")
    assert two.endswith(" s; not reconnecting: the connection ended in an ordinary way")


async def test_a_client_that_never_connects_logs_one_warning(face, caplog):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{sock.getsockname()[1]}/"
        client = face.reconnecting(url, policy=RetryPolicy(base=0.001, max_retries=3))
        with pytest.raises(endwell.GaveUp):
            await loop(client)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.name == "endwell.client"
    assert warning.getMessage().startswith(f"{url}: cannot connect to 127.0.0.1:")


async def test_a_client_that_was_connected_logs_at_info_only(face, caplog):
    async with serving("abort", refusal(503)) as served:
        async for ws in face.reconnecting(served.url, policy=QUICK):
            if len(served.opened) == 2:
                break
            await ws.wait_closed()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_response_that_is_not_http_raises_at_once(face):
    with RawServer() as listening:
        task = asyncio.create_task(loop(face.reconnecting(listening.uri, policy=QUICK)))
        with await listening.accept_tcp() as peer:
            await peer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            with pytest.raises(endwell.HandshakeError, match="this looks like SSH"):
                await within(task)


@pytest.mark.parametrize(
    ("url", "keywords", "error", "name"),
    [
        ("http://x/", {}, ValueError, "uri"),
        ("ws://x/", {"nonsense": 1}, TypeError, "nonsense"),
        ("ws://x/", {"max_size": -1}, ValueError, "max_size"),
        ("ws://x/", {"on_attempt": 1}, TypeError, "on_attempt"),
        ("ws://x/", {"on_ending": loop}, TypeError, "on_ending"),
    ],
)
def test_a_wrong_argument_raises_at_the_call_and_is_named(url, keywords, error, name, face):
    with pytest.raises(error, match=name):
        face.reconnecting(url, **keywords)
