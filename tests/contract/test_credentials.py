"""What a client asks the application for before each attempt, several servers, and the state for a user interface."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

import endwell
from endwell import Cause, ClientPhase, Close, RetryPolicy, StopReason
from tests.face import BLOCKING
from tests.pair import until, within
from tests.served import QUICK, SLOW, refusal, serving

IDLE, CONNECTING, OPEN, WAITING, STOPPED = ClientPhase


# --- functions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
async def test_connect_asks_for_the_uri_and_the_headers(plain, face):
    async def headers():
        return {"Authorization": "Bearer 1"}

    async with serving() as served:
        how = {"additional_headers": {"Authorization": "Bearer 1"}.copy if plain else face.function(headers)}
        ws = await within(face.connect(lambda: served.url + "?a", **how))
        await ws.close()
    assert [(request.target, request.headers["Authorization"]) for request in served.requests] == [
        ("/?a", "Bearer 1")
    ]


async def test_every_attempt_asks_again(face):
    numbers = iter(range(9))

    async def url():
        return f"{served.url}?{next(numbers)}"

    async def headers():
        return [("Authorization", f"Bearer {next(numbers)}")]

    async with serving(refusal(503), Close(1012)) as served:
        client = face.reconnecting(
            face.function(url), additional_headers=face.function(headers), policy=QUICK
        )
        async for ws in client:
            if len(served.opened) == 2:
                break
            await ws.wait_closed()
    assert [(request.target, request.headers["Authorization"]) for request in served.requests] == [
        (f"/?{number}", f"Bearer {number + 1}") for number in (0, 2, 4)
    ]


@pytest.mark.parametrize("answer", [OSError("no network"), None, "http://x/", TimeoutError()], ids=repr)
async def test_an_exception_or_a_wrong_answer_is_a_failed_attempt(answer, face):
    answers, failures = [answer], []

    async def url():
        if not answers:
            return served.url
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with serving() as served:
        async for _ in face.reconnecting(
            face.function(url), policy=QUICK, on_ending=lambda *what: failures.append(what)
        ):
            break
        failure, wait = failures[0]
        assert str(failure).startswith("the function uri failed: ")
        assert failure.ending.cause is Cause.HANDSHAKE_FAILED
        assert failure.ending.exception is failure.__cause__
        assert QUICK.base <= wait <= 2 * QUICK.base


@pytest.mark.parametrize("name", ["additional_headers", "token"])
async def test_stop_reconnecting_ends_the_loop_with_the_reason(name, face):
    async def function():
        raise endwell.StopReconnecting("signed out")

    client = face.reconnecting("ws://127.0.0.1:1/", policy=SLOW, **{name: face.function(function)})
    with pytest.raises(endwell.HandshakeError, match=f"{name} failed") as caught:
        await within(anext(aiter(client)))
    assert isinstance(caught.value.__cause__, endwell.StopReconnecting)
    assert client.state.reason is StopReason.REFUSED


@pytest.mark.parametrize("name", ["additional_headers", "token"])
async def test_a_function_that_hangs_ends_at_open_timeout(name, face):
    left, calls = threading.Event(), []

    async def function():
        calls.append(1)
        await face.wait(left)

    try:
        with pytest.raises(endwell.HandshakeError) as caught:
            await within(
                face.connect("ws://127.0.0.1:1/", open_timeout=0.05, **{name: face.function(function)})
            )
    finally:
        left.set()
    why = f"the function {name} has not returned within 0.05 s (open_timeout)"
    assert str(caught.value) == why
    assert caught.value.ending.duration >= 0.04  # a timer of uvloop counts whole milliseconds
    assert calls == [1]


async def test_a_blocking_function_that_hangs_occupies_one_thread():
    left, calls, failures = threading.Event(), [], []

    def url():
        calls.append(1)
        if len(calls) == 1:
            left.wait()
        return served.url

    async with serving() as served:
        client = BLOCKING.reconnecting(
            url, policy=QUICK, open_timeout=0.2, on_ending=lambda *what: failures.append(what)
        )
        opened = asyncio.ensure_future(anext(turns := aiter(client)))
        await until(lambda: len(failures) >= 2)
        assert len(calls) == 1
        left.set()
        await within(opened)
        del turns


async def test_the_blocking_face_refuses_a_coroutine_function():
    async def url():
        return "ws://127.0.0.1:1/"

    for call in (endwell.sync.connect, endwell.sync.reconnecting):
        with pytest.raises(TypeError, match="must not be a coroutine function"):
            call(url)
    with pytest.raises(TypeError, match="additional_headers must not be"):
        endwell.sync.reconnecting("ws://x/", additional_headers=url)


async def test_an_exit_in_a_function_does_not_end_the_event_loop_of_the_blocking_clients():
    async with serving() as served:
        with pytest.raises(endwell.HandshakeError, match="SystemExit"):
            await within(BLOCKING.connect(exit))
        await (await within(BLOCKING.connect(served.url))).close()


@pytest.mark.virtual_clock
async def test_a_stall_of_this_process_does_not_count_against_the_function():
    asked = []

    async def url():
        asked.append(asyncio.get_running_loop().time())
        asyncio.get_running_loop()._pass_time(30)
        await asyncio.sleep(9)
        return served.url

    async with serving() as served:
        await (await endwell.connect(url, open_timeout=10)).close()
    assert len(asked) == 1


@pytest.mark.virtual_clock
@pytest.mark.parametrize("open_timeout", [10, None])
async def test_a_plain_function_that_blocks_the_event_loop_is_such_a_stall(open_timeout):
    def url():
        asyncio.get_running_loop()._pass_time(30)
        return served.url

    async with serving() as served:
        await (await endwell.connect(url, open_timeout=open_timeout)).close()
    assert len(served.requests) == 1


@pytest.mark.virtual_clock
async def test_the_questions_and_the_handshake_share_open_timeout():
    async def url():
        await asyncio.sleep(6)
        return "ws://127.0.0.1:1/"

    async def headers():
        await asyncio.sleep(6)
        return {}

    began = asyncio.get_running_loop().time()
    with pytest.raises(endwell.HandshakeError, match=r"additional_headers has not returned within 10 s"):
        await endwell.connect(url, additional_headers=headers, open_timeout=10)
    assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.01)


async def test_a_foreign_cancellation_in_a_function_is_a_failed_attempt():
    async def headers():
        raise asyncio.CancelledError

    with pytest.raises(endwell.HandshakeError, match="CancelledError"):
        await endwell.connect("ws://127.0.0.1:1/", additional_headers=headers)


# --- several servers -----------------------------------------------------------------------------------


async def test_the_next_server_follows_after_a_failure(face):
    async with serving(Close(1013)) as one, serving(refusal(503)) as two, serving() as three:
        async for ws in face.reconnecting([one.url, two.url, lambda: three.url], policy=QUICK):
            if three.opened:
                break
            await ws.wait_closed()
        assert [len(served.request_times) for served in (one, two, three)] == [1, 1, 1]


async def test_the_first_server_follows_after_a_stable_connection(face):
    policy = RetryPolicy(base=0.02, max_delay=0.02, stable_after=0.0001)
    async with serving(refusal(503)) as one, serving("idle") as two:
        async for ws in face.reconnecting([one.url, two.url], policy=policy):
            if one.opened:
                break
            await asyncio.sleep(0.001)
            two.opened[0].abort()
            await ws.wait_closed()
        assert [len(served.request_times) for served in (one, two)] == [2, 1]


@pytest.mark.parametrize("urls", [[], ["ws://x/", "http://x/"]], ids=str)
def test_a_wrong_list_raises_at_the_call(urls, face):
    with pytest.raises(ValueError, match=r"ur[il]"):
        face.reconnecting(urls)


# --- the state -------------------------------------------------------------------------------------------


async def test_each_state_is_told_in_order(face):
    states = []
    async with serving(refusal(503), Close(1012), Close(1000)) as served:
        client = face.reconnecting(served.url, policy=QUICK, on_state=states.append)
        assert client.state.phase is IDLE
        before = time.time()
        async for ws in client:
            await ws.wait_closed()
        await until(lambda: states[-1].phase is STOPPED)
        assert client.state is states[-1]
    assert [state.phase for state in states] == [
        *(CONNECTING, WAITING),
        *(CONNECTING, OPEN, WAITING),
        *(CONNECTING, OPEN, STOPPED),
    ]
    refused, restarted = states[1], states[4]
    assert before <= refused.until - QUICK.base <= time.time()
    assert refused.last.response.status == 503
    assert restarted.last.code == 1012
    assert (states[5].last, states[5].until, states[5].attempts) == (restarted.last, None, 3)
    assert (states[-1].reason, states[-1].last.code) == (StopReason.DONE, 1000)


@pytest.mark.parametrize("when", ["idle", "waiting", "credentials", "open"])
async def test_stop_is_a_state(when, face):
    reached, left = threading.Event(), threading.Event()

    async def url():
        if when == "credentials":
            reached.set()
            await face.wait(left)
        return served.url

    async with serving(*[refusal(503)] * (when == "waiting")) as served:
        client = face.reconnecting(
            face.function(url),
            policy=SLOW,
            on_state=lambda state: state.phase in (WAITING, OPEN) and reached.set(),
        )
        try:
            task = None if when == "idle" else asyncio.ensure_future(anext(aiter(client), None))
            if task is not None:
                await until(reached.is_set)
            client.stop()
            await until(lambda: client.state.phase is STOPPED)
            assert client.state.reason is StopReason.STOPPED
        finally:
            left.set()
        if task is not None:
            await within(task)


async def test_a_loop_that_is_left_is_stopped(face):
    async with serving() as served:
        client = face.reconnecting(served.url)
        async for _ in client:
            break
        await until(lambda: client.state.phase is STOPPED)
        assert client.state.reason is StopReason.STOPPED


async def test_a_state_callback_that_raises_changes_nothing(face, caplog):
    def fail(state):
        raise RuntimeError

    async with serving(Close(1000)) as served:
        async for ws in face.reconnecting(served.url, on_state=fail):
            await ws.wait_closed()
    await until(lambda: len([one for one in caplog.records if one.levelno == logging.ERROR]) == 3)
