"""The client that comes back, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate

import pytest

import endwell
from endwell import Advice, Cause, Close, HandshakeRejected, Response, Retry, RetryPolicy, Stop
from endwell.client import connect as connecting
from endwell.client.connect import ConnectKeywords
from tests.pair import nothing_left_behind, within
from tests.raw import RawServer

#: The defaults, 250 times as fast.
QUICK = RetryPolicy(base=0.02, max_delay=0.24, stable_after=10)
#: One that is still waiting when the test is over.
SLOW = RetryPolicy(base=60)


class Served:
    """A server whose n-th connection meets the n-th of ``turns``, and whose later ones echo."""

    def __init__(self, *turns, **options):
        self.turns = list(turns)
        self.server = endwell.Server(legacy=True, **options)
        #: When each connection came, and the sockets of those that opened.
        self.times = []
        self.opened = []
        self.server.process_request(self._request)
        self.server.websocket("/")(self._handle)

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.server.port}/"

    async def _request(self, request):
        self.times.append(time.monotonic())
        turn = self.turns[0] if self.turns else None
        if isinstance(turn, Response):
            return self.turns.pop(0)
        return None

    async def _handle(self, ws):
        self.opened.append(ws)
        turn = self.turns.pop(0) if self.turns else None
        if isinstance(turn, Close):
            await ws.close(turn.code, turn.reason)
        elif turn == "abort":
            ws.abort()
        elif turn == "idle":
            await ws.closed
        else:
            async for message in ws:
                await ws.send(message)


@contextlib.asynccontextmanager
async def serving(*turns, **where):
    served = Served(*turns)
    async with nothing_left_behind(), served.server.serving(**where):
        yield served


def refusal(status, **headers):
    fields = endwell.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return Response.text("no\n", status, fields)


async def loop(client):
    async for ws in client:
        async for _ in ws:
            pass


# --- coming back ------------------------------------------------------------------


@pytest.mark.parametrize(
    "turn",
    [Close(1001), Close(1012, "server restarting"), Close(1013), Close(1011), Close(4000), "abort"],
    ids=str,
)
async def test_it_comes_back_and_goes_on(turn):
    async with serving(turn) as served:
        answers = []
        async for ws in endwell.reconnecting(served.url, policy=QUICK):
            with contextlib.suppress(endwell.ConnectionClosed):
                await ws.send("hello")
                answers.append(await ws.recv())
                break
        assert answers == ["hello"]
        assert len(served.opened) == 2
        assert (await within(served.opened[1].closed)).received == Close(1000)


@pytest.mark.parametrize("turn", [Close(1000), Close(1012), "abort"], ids=str)
@pytest.mark.parametrize("version", ["hixie-76", "hixie-75"])
async def test_without_codes_it_comes_back_whatever_it_was_and_one_more_refusal_too(version, turn):
    async with serving(turn, refusal(503)) as served:
        answers, told = [], []
        async for ws in endwell.reconnecting(
            served.url, policy=QUICK, version=version, on_ending=lambda last, verdict: told.append(last)
        ):
            with contextlib.suppress(endwell.ConnectionClosed):
                await ws.send("hello")
                answers.append(await ws.recv())
                break
        assert answers == ["hello"]
        assert (len(served.times), len(told)) == (3, 2)
        assert isinstance(told[1], HandshakeRejected)


async def test_it_comes_back_within_the_second_that_a_server_advises_whose_connections_have_a_lifetime():
    served = Served(max_lifetime=0.1)
    async with nothing_left_behind(), served.server.serving():
        began = time.monotonic()
        async for ws in endwell.reconnecting(served.url, policy=SLOW):
            ending = await within(ws.closed)
            if len(served.opened) == 2:
                break
        assert time.monotonic() - began < 0.1 + 1.0 + 0.1 + 0.5
    assert (ending.received.code, ending.ok) == (1012, True)


async def test_refusals_that_pass_are_waited_out():
    async with serving(refusal(503), refusal(429), refusal(500)) as served:
        async for ws in endwell.reconnecting(served.url, policy=QUICK):
            await ws.send("hello")
            assert await ws.recv() == "hello"
            break
        assert len(served.times) == 4


async def test_a_server_restarts_on_its_port_and_the_client_goes_on():
    numbers, first = [], Served()

    async def client(url):
        async for ws in endwell.reconnecting(url, policy=QUICK):
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
        async with first.server.serving():
            port = first.server.port
            task = asyncio.create_task(client(first.url))
            await within(third.wait())
        # For a while nobody listens there.
        await asyncio.sleep(0.1)
        restarted.set()
        await asyncio.sleep(0.1)
        async with Served().server.serving(port=port):
            await within(task)
    assert numbers == ["0", "1", "2", "3", "4", "5"]


async def test_a_server_that_is_not_there_yet_is_waited_for():
    with RawServer() as listening:
        url = listening.uri
    port = int(url.rpartition(":")[2].strip("/"))
    failures = []

    async def client():
        async for ws in endwell.reconnecting(
            url, policy=QUICK, on_ending=lambda last, verdict: failures.append(last)
        ):
            await ws.close()

    task = asyncio.create_task(client())
    while not failures:
        await asyncio.sleep(0.01)
    async with Served().server.serving(port=port):
        await within(task)
    assert isinstance(failures[0].__cause__, ConnectionRefusedError)
    assert failures[-1].cause is Cause.APP_CLOSED


async def test_every_attempt_resolves_the_name_anew(monkeypatch):
    async with serving(refusal(503), Close(1012)) as served:
        resolved = []
        dial = connecting.dial
        monkeypatch.setattr(
            connecting, "dial", lambda uri, *rest: resolved.append(uri.host) or dial(uri, *rest)
        )
        async for ws in endwell.reconnecting(served.url.replace("127.0.0.1", "localhost"), policy=QUICK):
            if len(served.opened) == 2:
                break
            await ws.wait_closed()
        assert resolved == ["localhost"] * 3


# --- not coming back --------------------------------------------------------------


async def test_a_normal_closure_ends_the_loop_quietly():
    async with serving(Close(1000, "that was all")) as served:
        endings = [await ws.closed async for ws in endwell.reconnecting(served.url, policy=QUICK)]
        assert [ending.reason for ending in endings] == ["that was all"]


@pytest.mark.parametrize("leave", ["close", "abort", "leave open"])
async def test_whoever_ends_it_himself_is_done(leave):
    async with serving() as served:
        async for ws in endwell.reconnecting(served.url, policy=QUICK):
            if leave == "close":
                await ws.close(4000, "enough")
            elif leave == "abort":
                ws.abort()
        assert ws.ending.cause is Cause.APP_CLOSED
        assert len(served.times) == 1
        if leave == "leave open":
            assert ws.ending.sent == Close(1000)
            assert ws.ending.clean


async def test_a_code_of_ones_own_closes_and_comes_back():
    policy = RetryPolicy(base=0.02, codes={4000: Retry.NOW})
    async with serving() as served:
        async for ws in endwell.reconnecting(served.url, policy=policy):
            if len(served.opened) == 3:
                break
            await ws.close(4000, "stale")
        assert [(await within(ws.closed)).code for ws in served.opened] == [4000, 4000, 1000]


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 3000, 3003])
async def test_a_code_that_says_never_is_raised(code):
    async with serving(Close(code, "no")) as served:
        with pytest.raises(endwell.ConnectionClosedError) as caught:
            await loop(endwell.reconnecting(served.url, policy=QUICK))
        assert (caught.value.code, caught.value.reason) == (code, "no")
        assert len(served.times) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_for_good_is_raised(status):
    async with serving(refusal(status, Retry_After="0")) as served:
        with pytest.raises(HandshakeRejected) as caught:
            await loop(endwell.reconnecting(served.url, policy=QUICK))
        assert caught.value.response.status == status
        assert len(served.times) == 1


async def test_used_up_retries_are_told_with_the_last_failure():
    async with serving(*[refusal(503)] * 9) as served:
        client = endwell.reconnecting(served.url, policy=RetryPolicy(base=0.01, max_retries=3))
        with pytest.raises(
            endwell.GaveUp, match=r"max_retries is used up; the last time: .* HTTP 503"
        ) as caught:
            await loop(client)
        assert caught.value.__cause__ is caught.value.last
        assert caught.value.last.response.status == 503
        assert caught.value.ending.cause is Cause.HANDSHAKE_REJECTED
        assert len(served.times) == 4


async def test_used_up_time_is_told_with_the_last_ending():
    async with serving(*[Close(1013, "full")] * 99) as served:
        policy = RetryPolicy(base=0.02, max_delay=0.02, max_time=0.2)
        with pytest.raises(endwell.GaveUp, match=r"max_time is used up; .* 'full'") as caught:
            await loop(endwell.reconnecting(served.url, policy=policy))
        assert isinstance(caught.value.last, endwell.ConnectionClosedError)
        assert caught.value.ending.code == 1013
        assert 3 <= len(served.times) <= 11
        assert served.times[-1] - served.times[0] <= 0.3


async def test_after_the_end_there_is_nothing_more():
    async with serving(Close(1008)) as served:
        turns = aiter(endwell.reconnecting(served.url, policy=QUICK))
        ws = await anext(turns)
        await ws.closed
        with pytest.raises(endwell.ConnectionClosed):
            await anext(turns)
        with pytest.raises(StopAsyncIteration):
            await anext(turns)


# --- when ---------------------------------------------------------------------------


async def test_a_server_that_accepts_and_closes_1013_gets_few_connections():
    # The first 30 s of the defaults, 50 times as fast; the 7th is due after 30 s at the soonest.
    policy = RetryPolicy(base=5 / 50, max_delay=60 / 50)
    async with serving(*[Close(1013)] * 99) as served:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30 / 50):
                async for ws in endwell.reconnecting(served.url, policy=policy):
                    await ws.closed
        assert 2 <= len(served.times) <= 6


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_obeyed(status, form):
    now = int(time.time())
    after = "1" if form == "seconds" else formatdate(now + 1, usegmt=True)
    async with serving(refusal(status, Retry_After=after, Date=formatdate(now, usegmt=True))) as served:
        async for _ in endwell.reconnecting(served.url, policy=QUICK):
            break
        first, second = served.times
        assert 1.0 <= second - first < 1.5


async def crowd(served, size, policy, end):
    """``size`` clients, cut at once by ``end()``; the seconds from then to the return of each."""
    done = asyncio.Event()

    async def client():
        async for ws in endwell.reconnecting(served.url, policy=policy, compression=None):
            if len(served.opened) <= size:
                await ws.closed
            else:
                await done.wait()
                break

    async with asyncio.TaskGroup() as group:
        for _ in range(size):
            group.create_task(client())
        while len(served.opened) < size:
            await asyncio.sleep(0.01)
        cut = time.monotonic()
        await end(served.opened[:size])
        while len(served.opened) < 2 * size:
            await asyncio.sleep(0.01)
        done.set()
    return [moment - cut for moment in served.times[size:]]


async def test_200_clients_cut_at_once_come_back_spread():
    async def cut(connections):
        for ws in connections:
            ws.abort()

    async with serving(*["idle"] * 400) as served:
        times = await crowd(served, 200, RetryPolicy(base=2.0), cut)
    assert max(times) < 3
    # 20 are to be expected in each of the 10 parts.
    assert max(Counter(int(moment / 0.2) for moment in times).values()) <= 45


async def test_200_clients_with_advice_come_back_within_its_window():
    reason = Advice(1, 2).reason("server restarting")

    async def close(connections):
        await asyncio.gather(*[ws.close(1012, reason) for ws in connections])

    async with serving(*["idle"] * 400) as served:
        # The policy's own window would be over before.
        times = await crowd(served, 200, QUICK, close)
    assert min(times) >= 1.0
    assert max(times) < 2.9
    assert max(Counter(int((moment - 1) / 0.1) for moment in times).values()) <= 45


# --- stopping from outside ------------------------------------------------------------


@contextlib.asynccontextmanager
async def at_once():
    """What runs in the block takes no time to speak of."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("how", ["stop", "aclose", "cancel"])
@pytest.mark.parametrize("when", ["waiting", "connecting", "open"])
async def test_it_is_stopped_from_outside_at_once(how, when):
    async with contextlib.AsyncExitStack() as stack:
        reached = asyncio.Event()
        if when == "connecting":
            listening = stack.enter_context(RawServer())  # takes the connection and never answers
            url = listening.uri
        else:
            served = await stack.enter_async_context(serving(*[refusal(503)] * (when == "waiting")))
            url = served.url
        client = endwell.reconnecting(url, policy=SLOW, on_ending=lambda last, verdict: reached.set())
        task = asyncio.create_task(loop(client))
        if when == "connecting":
            stack.enter_context(await listening.reached())
        elif when == "waiting":
            await within(reached.wait())
        else:
            while not served.opened:
                await asyncio.sleep(0.01)
        async with at_once():
            if how == "stop":
                client.stop()
            elif how == "aclose":
                await client.aclose()
            else:
                task.cancel()
            await asyncio.wait({task})
        assert task.cancelled() if how == "cancel" else task.result() is None
        if when == "open":
            ending = await within(served.opened[0].closed)
            assert ending.received == Close(1001 if how == "cancel" else 1000)
            assert ending.clean


async def test_stopped_before_it_began_it_connects_nowhere():
    async with serving() as served:
        client = endwell.reconnecting(served.url)
        client.stop()
        await client.aclose()
        assert [ws async for ws in client] == []
        assert served.times == []


async def test_stopped_in_the_very_turn_in_which_it_opened_it_closes_again(monkeypatch):
    dial = connecting.dial

    async def dial_and_stop(*arguments):
        ws = await dial(*arguments)
        client.stop()
        return ws

    monkeypatch.setattr(connecting, "dial", dial_and_stop)
    async with serving() as served:
        client = endwell.reconnecting(served.url)
        assert [ws async for ws in client] == []
        assert (await within(served.opened[0].closed)).received == Close(1000)


async def test_stopped_it_stays_stopped_whatever_the_policy_says_of_the_ending():
    told, policy = [], RetryPolicy(codes={1000: Retry.NOW})
    async with serving() as served:
        client = endwell.reconnecting(served.url, policy=policy, on_ending=lambda *what: told.append(what))
        async for _ in client:
            await client.aclose()
    ((ending, verdict),) = told
    assert policy.retry(ending) is Retry.NOW
    assert verdict is Stop.STOPPED


@pytest.mark.parametrize("when", ["waiting", "connecting", "open"])
async def test_it_may_be_stopped_any_number_of_times(when):
    with RawServer() as silent:
        async with serving(*[refusal(503)] * (when == "waiting")) as served:
            client = endwell.reconnecting(silent.uri if when == "connecting" else served.url, policy=SLOW)
            task = asyncio.create_task(loop(client))
            if when == "connecting":
                peer = await silent.reached()
            while when != "connecting" and not served.times:
                await asyncio.sleep(0.01)
            while not task.done():
                client.stop()
                await asyncio.sleep(0)
            assert task.result() is None
            if when == "connecting":
                peer.drop()


async def test_aclose_waits_for_the_end():
    async with serving() as served:
        client = endwell.reconnecting(served.url)
        ws = await anext(turns := aiter(client))
        await client.aclose()
        assert ws.ending.clean
        with pytest.raises(StopAsyncIteration):
            await anext(turns)


@pytest.mark.parametrize("way", ["break", "return", "raise", "cancel"])
async def test_however_the_loop_is_left_the_close_leaves_with_it(way):
    async with serving() as served:
        opened, ready = [], asyncio.Event()

        async def body():
            async for ws in endwell.reconnecting(served.url):
                opened.append(ws)
                if way == "break":
                    break
                if way == "return":
                    return
                if way == "raise":
                    raise KeyError
                ready.set()
                await asyncio.sleep(60)
            # Nothing has been awaited since, and the Close is on its way.
            assert not ws.is_open

        task = asyncio.create_task(body())
        if way == "cancel":
            await within(ready.wait())
            task.cancel()
        with contextlib.suppress(KeyError, asyncio.CancelledError):
            await task
        assert not opened[0].is_open
        ending = await within(served.opened[0].closed)
        assert ending.received == Close(1001 if way == "cancel" else 1000)
        assert ending.clean
        assert (await opened[0].closed).cause is (Cause.CANCELLED if way == "cancel" else Cause.APP_CLOSED)


PROGRAM = """
import asyncio, sys, endwell

async def main():
    async for ws in endwell.reconnecting(sys.argv[1]):
        await ws.send("bye")
        break

asyncio.run(main())
"""


async def test_a_program_that_ends_with_the_loop_has_said_its_close():
    async with serving() as served:
        program = [sys.executable, "-c", PROGRAM, served.url]
        process = await asyncio.to_thread(
            subprocess.run, program, stderr=subprocess.PIPE, timeout=20, check=False
        )
        assert (process.returncode, process.stderr) == (0, b"")
        assert (await within(served.opened[0].closed)).received == Close(1000)


async def test_an_iterator_dropped_by_another_thread_closes_too():
    async with serving() as served:
        holder = [aiter(endwell.reconnecting(served.url))]
        ws = await anext(holder[0])
        thread = threading.Thread(target=holder.clear)
        thread.start()
        thread.join()
        assert (await within(ws.closed)).sent == Close(1000)


def test_an_iterator_dropped_after_its_event_loop_is_no_fault(capsys):
    turns = None

    async def begin():
        nonlocal turns
        turns = aiter(endwell.reconnecting("ws://127.0.0.1:1/", policy=SLOW))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(turns)

    asyncio.run(begin())
    del turns
    gc.collect()
    assert capsys.readouterr().err == ""


async def test_a_wait_that_is_given_up_can_be_taken_up_again():
    async with serving(refusal(503, Retry_After="1")) as served:
        turns = aiter(endwell.reconnecting(served.url, policy=QUICK))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(turns), 0.2)
        await anext(turns)
        assert 1.0 <= served.times[1] - served.times[0] < 1.5


# --- what it tells ----------------------------------------------------------------------


async def test_attempts_and_endings_are_told_as_they_come():
    told = []
    async with serving(refusal(503), Close(1012, "a"), Close(1000, "b")) as served:
        async for ws in endwell.reconnecting(
            served.url,
            policy=QUICK,
            on_attempt=told.append,
            on_ending=lambda *what: told.append(what),
        ):
            ending = await ws.closed
            # At once: the body still runs.
            assert told[-1][0] is ending
    one, refused, two, restarted, three, closed = told
    assert [one, two, three] == [1, 2, 3]
    assert isinstance(refused[0], HandshakeRejected)
    assert 0.02 <= refused[1] <= 0.04
    assert restarted[0].received == Close(1012, "a")
    assert 0.02 <= restarted[1] <= 0.06
    assert closed[0].received == Close(1000, "b")
    assert closed[1] is Stop.DONE


async def test_an_ending_after_the_loop_was_left_is_told_too():
    told = asyncio.get_running_loop().create_future()
    async with serving() as served:
        async for _ in endwell.reconnecting(served.url, on_ending=lambda *what: told.set_result(what)):
            break
        ending, verdict = await within(told)
        assert ending.cause is Cause.APP_CLOSED
        assert verdict is Stop.STOPPED


async def test_a_callback_that_raises_is_logged_and_changes_nothing(caplog):
    def fail(*_):
        raise RuntimeError

    async with serving(Close(1012), Close(1000)) as served:
        async for ws in endwell.reconnecting(served.url, policy=QUICK, on_attempt=fail, on_ending=fail):
            await ws.wait_closed()
    assert len(served.opened) == 2
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.name for record in errors] == ["endwell.client"] * 4


async def test_the_log_says_what_happened_and_what_comes_next(caplog):
    caplog.set_level(logging.INFO, "endwell.client")
    async with serving(refusal(503), Close(1000)) as served:
        async for ws in endwell.reconnecting(served.url, policy=QUICK):
            await ws.wait_closed()
    one, two = [record.getMessage() for record in caplog.records if record.name == "endwell.client"]
    assert one == "server refused with HTTP 503 Service Unavailable; coming back in 0.0 s"
    assert two.startswith("peer closed with 1000 NORMAL_CLOSURE; clean, after ")
    assert two.endswith(" s; not coming back: it ended in an ordinary way, for good")


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
def test_an_applications_mistake_raises_at_the_call_and_names_the_argument(url, keywords, error, name):
    with pytest.raises(error, match=name):
        endwell.reconnecting(url, **keywords)


def test_the_keywords_that_are_passed_on_are_those_of_connect():
    names = set(inspect.signature(endwell.connect).parameters) - {"uri", "keywords"}
    assert set(ConnectKeywords.__annotations__) - set(endwell.options.OptionKeywords.__annotations__) == names


async def test_the_keywords_reach_every_attempt(tmp_path):
    async with serving(refusal(503), unix_path=tmp_path / "socket") as served:
        async for ws in endwell.reconnecting(
            "ws://name/", policy=QUICK, unix_path=tmp_path / "socket", additional_headers={"X-Token": "t"}
        ):
            assert ws.request.headers["X-Token"] == "t"
            break
        assert len(served.times) == 2
