"""What the page of metrics says, in both formats and of all workers, and that a peer cannot change its form."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import endwell
from endwell.metrics.exposition import OPEN_METRICS, PROMETHEUS
from tests.cli.process import PATIENCE
from tests.pair import QUIET, until, within
from tests.ports import free_port
from tests.raw import PLAIN, RawPeer, wss
from tests.server.process.test_workers import connect_to_both_workers
from tests.server.program import running, write
from tests.wire.peer import frame

ACCEPTED = "endwell_handshakes_total"


def get(port, accept="text/plain"):
    """The page: its type and its text."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


async def page(server, accept="text/plain"):
    return await asyncio.to_thread(get, server.port, accept)


def values(text):
    """The samples of a page: name and labels, and the value."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    """The sum of the samples that have these labels."""
    return sum(
        number
        for (each, *rest), number in found.items()
        if each == name and labels.items() <= dict(rest).items()
    )


def metered(face):
    server = endwell.Server(compression=None)
    server.metrics_page()

    async def echo(ws, **params):
        async for message in ws:
            if message == "fail":
                raise ValueError
            await ws.send(message)

    server.websocket("/room/{name}")(face.handler(echo))
    return server


async def test_connections_are_counted_by_route_and_ending(face, caplog):
    server = metered(face)
    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}/room/"
        first, second, third = [await endwell.connect(url + name) for name in ("a", "b", "c")]
        for message in ("one", "two"):
            await first.send(message)
            assert await within(first.recv()) == message
        found = values((await page(server))[1])
        route = {"route": "/room/{name}"}
        assert value(found, "endwell_connections", **route, state="open") == 3
        assert value(found, "endwell_messages_total", **route, direction="in") == 2
        await first.close(4001, "done")
        await second.send("fail")
        await within(second.closed)
        await until(lambda: len(server.connections) == 1)
        found = values((await page(server))[1])
        assert value(found, ACCEPTED, outcome="accepted", status="101") == 3
        endings = {"route": "/room/{name}", "clean": "true"}
        name = "endwell_endings_total"
        # The code 4001 is one that a peer has chosen.
        assert value(found, name, **endings, cause="peer_closed", initiator="peer", code="other") == 1
        assert value(found, name, **endings, cause="handler_error", initiator="local", code="1011") == 1
        assert value(found, name) == 2
        assert value(found, "endwell_connections", state="open") == 1
        # What was counted while the connection was open is not counted twice.
        assert value(found, "endwell_messages_total", **route, direction="in") == 3
        assert value(found, "endwell_messages_total", **route, direction="out") == 2
        count = "endwell_connection_duration_seconds_count"
        assert value(found, count, cause="peer_closed") == value(found, count, cause="handler_error") == 1
        rows = server.metrics["endwell_endings_total"]
        assert {row["labels"]["cause"] for row in rows} == {"peer_closed", "handler_error"}
        await third.close()


def test_the_page_works_before_the_first_websocket():
    """A scraper may come at once."""

    async def run():
        server = endwell.Server()
        server.metrics_page()
        assert metrics_of(server) == {(ACCEPTED, ("outcome", "accepted"), ("status", "101")): 0}
        async with server.serving():
            found = values((await page(server))[1])
        assert value(found, ACCEPTED) == 0
        assert value(found, "endwell_processes", state="serving") == 1
        return server, found

    server, _ = asyncio.run(run())
    # Nothing goes on after the server has stopped.
    found = metrics_of(server)
    assert value(found, "endwell_processes") == value(found, "endwell_drain_remaining_seconds") == 0
    assert value(found, "endwell_connections") == value(found, "endwell_bus_deaf") == 0


UPGRADE = (
    b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("application", ["handler", "ASGI"])
@pytest.mark.parametrize(
    "rest",
    [b"", frame(0x8, b"\x03\xe8"), b"\x83\x80\0\0\0\0"],
    ids=["nothing", "a Close", "a wrong frame"],
)
async def test_a_connection_that_ends_with_its_opening_is_counted(face, application, rest):
    """What arrives with the request may end the connection before the server can begin to count it."""
    server = endwell.Server()
    if application == "ASGI":
        server.mount("/", accepting, lifespan="off")
    else:
        server.websocket("/x")(face.handler(read_all))
    async with server.serving():
        for linger in (0, 1):
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                if linger:
                    # close() sends RST, so that the response cannot be sent.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(UPGRADE + rest)
        await until(lambda: value(metrics_of(server), ACCEPTED, status="101") == 2)
        await until(lambda: not server.connections)
        await until(lambda: value(metrics_of(server), "endwell_endings_total") == 2)
    durations = "endwell_connection_duration_seconds_count"
    assert value(metrics_of(server), durations) == 2


async def read_all(ws):
    async for _ in ws:
        pass


async def accepting(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def refusing(scope, receive, send):
    await receive()
    match scope["path"]:
        case "/close":
            await send({"type": "websocket.close"})
        case "/response":
            await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
            await send({"type": "websocket.http.response.body"})
        case "/redirect":
            await send({"type": "websocket.http.response.start", "status": 307, "headers": []})
            await send({"type": "websocket.http.response.body"})
        case "/fail":
            raise ValueError


def refuse(request):
    match request.path:
        case "/own/response":
            return endwell.Response(402)
        case "/own/fail":
            raise ValueError


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/close", 403),
        ("/response", 401),
        ("/redirect", 307),
        ("/fail", 500),
        ("/own/response", 402),
        ("/own/fail", 500),
        ("/own/limited", 429),
        ("/host", 421),
    ],
)
async def test_each_refusal_is_counted_once(path, status):
    """The server refuses, an accept function does, or an ASGI application."""
    server = endwell.Server(allowed_hosts=["127.0.0.1"])
    server.mount("/", refusing, lifespan="off")
    server.websocket("/own/{name}", accept=refuse)(lambda ws, name: None)
    server.rate_limit(
        1, per=3600, key=lambda request: request.path if "limited" in request.path else object()
    )
    async with server.serving():
        url = f"ws://{'localhost' if status == 421 else '127.0.0.1'}:{server.port}{path}"
        if status == 429:
            await (await endwell.connect(url)).close()
        with pytest.raises(endwell.HandshakeRejected, match=str(status)):
            await endwell.connect(url)
        found = metrics_of(server)
    refused = {status: 1} if status >= 400 else {}
    assert {
        int(dict(labels)["status"]): number
        for (name, *labels), number in found.items()
        if name == ACCEPTED and ("outcome", "refused") in labels
    } == refused


async def test_a_request_during_a_drain_is_counted_once():
    server = endwell.Server(**QUIET)
    release = asyncio.Event()

    @server.websocket("/")
    async def handle(ws):
        await release.wait()

    async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/"):
        drain = asyncio.create_task(server.drain(deadline=PATIENCE, window=0))
        await server.draining.wait()
        with pytest.raises(endwell.HandshakeRejected, match="503"):
            await endwell.connect(f"ws://127.0.0.1:{server.port}/")
        assert value(metrics_of(server), ACCEPTED, outcome="refused") == 1
        release.set()
        await within(drain)


async def test_the_event_loop_adds_up_for_other_threads():
    """Otherwise a connection that ends meanwhile would be counted twice: a counter would go back."""
    server = endwell.Server(**QUIET)
    found, done = [], threading.Event()

    def read():
        found.append(metrics_of(server))
        done.set()

    async with server.serving():
        thread = threading.Thread(target=read)
        thread.start()
        # The loop is here, so the thread has to wait for it.
        assert not done.wait(0.3)
        await asyncio.to_thread(thread.join, PATIENCE)
        assert found == [metrics_of(server)]
    assert await asyncio.to_thread(metrics_of, server) == metrics_of(server)


async def test_the_thread_of_a_handler_may_read_the_metrics():
    server = endwell.Server(**QUIET)

    @server.websocket("/")
    def handle(ws):
        ws.send(str(value(metrics_of(server), "endwell_connections", state="open")))

    async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
        assert await within(ws.recv()) == "1.0"


async def test_a_page_with_its_own_port_has_no_bus(monkeypatch):
    """The environment names the bus of the server. The page needs none, and nothing answers there."""
    server = endwell.Server(bus="")
    port = free_port()
    monkeypatch.setenv("ENDWELL_BUS", f"redis://127.0.0.1:{port}")
    server.metrics_page(port=port)
    async with server.serving():
        kind, _ = await asyncio.to_thread(get, port)
        assert kind == PROMETHEUS
        assert [page.rooms.is_connected for page, _, _ in server._pages] == [True]


async def test_the_format_is_the_one_that_is_asked_for(face):
    server = metered(face)
    async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/room/a"):
        kind, text = await page(server)
        assert kind == PROMETHEUS
        assert any(family.name == "endwell_handshakes" for family in parse_text(text))
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
        kind, text = await page(server, accept)
        assert (kind, text[-6:]) == (OPEN_METRICS, "# EOF\n")
        assert any(family.name == "endwell_handshakes" for family in parse_open_metrics(text))


async def test_a_peer_cannot_add_labels(face):
    """Whatever paths, codes and reasons come, the page stays small and well-formed."""
    server = metered(face)
    async with server.serving():
        for code in range(3500, 3600):
            async with endwell.connect(f"ws://127.0.0.1:{server.port}/room/a%22%7D%5C") as ws:
                await ws.close(code, '"} 1\nendwell_endings_total 7')
        for path in ("/nowhere%5C", "/%0Ax", "/%22"):
            with pytest.raises(endwell.HandshakeRejected):
                await endwell.connect(f"ws://127.0.0.1:{server.port}{path}")
        await until(lambda: not server.connections)
        _, text = await page(server)
        list(parse_text(text))
        found = values(text)
        assert value(found, ACCEPTED, outcome="refused", status="404") == 3
        assert len(text.splitlines()) < 100
        if shutil.which("promtool") is not None:  # CI has it
            checked = await asyncio.to_thread(
                subprocess.run,
                ["promtool", "check", "metrics"],
                check=False,
                input=text,
                text=True,
                capture_output=True,
            )
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


async def test_the_codes_of_peers_are_not_labels_and_those_of_the_application_are(face):
    server = endwell.Server()
    server.metrics_page()

    async def close(ws, code):
        if int(code):
            await ws.close(int(code))
        await ws.wait_closed()

    server.websocket("/{code}")(face.handler(close))
    async with server.serving():
        for code in range(4000, 4070):
            async with endwell.connect(f"ws://127.0.0.1:{server.port}/{code}") as ws:
                await within(ws.closed)
        for code in range(4100, 4110):
            async with endwell.connect(f"ws://127.0.0.1:{server.port}/0") as ws:
                await ws.close(code)
        await until(lambda: not server.connections)
        codes = Counter(row["labels"]["code"] for row in server.metrics["endwell_endings_total"])
    assert len(codes) == 65
    assert {"other", "4000"} <= codes.keys()
    assert "4109" not in codes


async def test_only_allowed_addresses_get_the_page(face):
    server = endwell.Server()
    server.metrics_page(allow=["10.0.0.0/8"])
    async with server.serving():
        with pytest.raises(urllib.error.HTTPError, match="403"):
            await page(server)


@pytest.mark.parametrize(
    ("allow", "error"), [("10.0.0.0/8", TypeError), (["everyone"], ValueError), ([5], TypeError)]
)
def test_a_wrong_allow_is_named(allow, error):
    with pytest.raises(error, match="allow must be"):
        endwell.Server().metrics_page(allow=allow)


METRICS = """server.metrics_page()

if __name__"""


async def test_one_page_has_all_workers_also_those_that_were_killed(tmp_path):
    program = write(tmp_path, **{"if __name__": METRICS})
    with running(program) as program:
        clients = await connect_to_both_workers(program)
        opened = ACCEPTED

        async def counted(condition):
            async with asyncio.timeout(PATIENCE):
                while not condition(found := values((await asyncio.to_thread(get, program.port))[1])):
                    await asyncio.sleep(0.05)
                return found

        found = await counted(lambda found: value(found, "endwell_connections", state="open") == 2)
        count = value(found, opened)
        killed, other = clients
        os.kill(killed, signal.SIGKILL)
        await within(clients[killed].closed, PATIENCE)
        ended = "endwell_endings_total"
        found = await counted(lambda found: value(found, ended, cause="process_exited") == 1)
        assert value(found, opened) >= count
        await counted(lambda found: value(found, "endwell_connections", state="open") == 1)
        program.send(signal.SIGHUP)
        await within(clients[other].closed, PATIENCE)
        found = await counted(lambda found: value(found, ended, cause="server_drained") == 1)
        assert value(found, opened) >= count
        assert value(found, opened) == value(found, ended)
        program.send(signal.SIGTERM)
        status, _ = await asyncio.to_thread(program.finish, None)
    assert status == 0


OWN_PORT = """server.metrics_page(port=PORT)

if __name__"""


async def test_a_worker_that_is_stopped_takes_no_request_for_the_page_on_its_own_port(tmp_path):
    port = free_port()

    def drained():
        return value(values(get(port)[1]), "endwell_endings_total", cause="server_drained")

    program = write(tmp_path, **{"if __name__": OWN_PORT.replace("PORT", str(port))})
    with running(program) as program:
        clients = await connect_to_both_workers(program)
        stopped = next(iter(clients))
        opened = value(values((await asyncio.to_thread(get, port))[1]), ACCEPTED)
        os.kill(stopped, signal.SIGSTOP)
        try:
            # If each worker had a queue of its own, all would find that of the other one with a probability of 2^-40.
            for _ in range(40):
                _, text = await asyncio.to_thread(get, port)
                assert value(values(text), ACCEPTED) == opened
        finally:
            os.kill(stopped, signal.SIGCONT)
        # New workers have the page, too.
        program.send(signal.SIGHUP)
        for client in clients.values():
            await within(client.closed, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            # A client may learn of its end before the worker has counted it.
            while (ended := await asyncio.to_thread(drained)) < 2:
                pass
        for _ in range(10):
            assert await asyncio.to_thread(drained) == ended == 2
        program.send(signal.SIGTERM)
        status, _ = await asyncio.to_thread(program.finish, None)
    assert status == 0
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(get, port)


#: The supervisor was started before an update: it shares no counts with its workers, and does not have the page.
OLD_SUPERVISOR = """
if "ENDWELL_WORKER" in os.environ:
    import json
    config = json.loads(os.environ["ENDWELL_WORKER"])
    os.environ["ENDWELL_WORKER"] = json.dumps({**config, "counts": -1})
    server.metrics_page(port=PORT)

if __name__"""


async def test_workers_of_an_older_supervisor_share_the_port_of_the_page(tmp_path):
    port = free_port()
    program = write(tmp_path, **{"if __name__": OLD_SUPERVISOR.replace("PORT", str(port))})
    with running(program) as program:
        clients = await connect_to_both_workers(program)
        # One of the two answers, with its own counts.
        _, text = await asyncio.to_thread(get, port)
        assert value(values(text), "endwell_connections", state="open") == 1
        assert len(clients) == 2


@pytest.fixture(params=["ws", "wss"])
def transport(request):
    return PLAIN if request.param == "ws" else wss()


#: More than the kernel accepts for a peer that does not read.
HUGE = bytes(2 * 2**20)


async def test_what_a_connection_suffers_is_counted(transport):
    """Round trips of pings, slow connections, bytes that were not sent, and messages that no handler got."""
    server = endwell.Server(**{**QUIET, "close_timeout": 0.2})
    entered = asyncio.Queue()

    @server.websocket("/", limits=endwell.Limit(messages=1, per=3600.0, excess="drop"))
    async def handle(ws):
        entered.put_nowait(ws)
        await ws.wait_closed()

    async with server.serving(ssl=transport.server, grace=0):
        url = f"ws{'s' * (transport.server is not None)}://localhost:{server.port}/"
        async with endwell.connect(url, ssl=transport.client) as client:
            ws = await within(entered.get())
            await within(ws.ping())
            await client.send("taken")
            await client.send("dropped")
            await until(lambda: ws.messages_in == 2)
        await within(ws.closed)
        with await RawPeer.connect(server.port, transport.client) as peer:
            ws = await within(entered.get())
            server.broadcast([ws], HUGE)
            assert server.broadcast([ws], "skipped").slow
            assert server.broadcast([ws], "too much", slow="close").slow
            ending = await within(ws.closed)
            peer.drop()
        found = metrics_of(server)
    route = {"route": "/"}
    assert value(found, "endwell_latency_seconds_count", **route) == 1
    assert 0 < value(found, "endwell_latency_seconds_sum", **route) < PATIENCE
    assert value(found, "endwell_slow_total", **route, policy="skip") == 1
    assert value(found, "endwell_slow_total", **route, policy="close") == 1
    assert value(found, "endwell_unsent_bytes_total", **route) == ending.unsent_bytes > 0
    assert value(found, "endwell_dropped_messages_total", **route) == 1


def metrics_of(server):
    """The same as :func:`values`, from the property."""
    return {
        (name, *sorted(row["labels"].items())): row["value"]
        for name, rows in server.metrics.items()
        for row in rows
    }


async def test_the_process_is_described(face):
    server = endwell.Server(**QUIET)
    started, release = asyncio.Event(), asyncio.Event()

    @server.websocket("/")
    async def handle(ws):
        started.set()
        await release.wait()

    async with server.serving():
        client = await endwell.connect(f"ws://127.0.0.1:{server.port}/")
        await within(started.wait())
        found = metrics_of(server)
        assert value(found, "endwell_processes", state="serving") == 1
        assert value(found, "endwell_bus_deaf", bus="local") == 0
        before = value(found, "endwell_stalled_seconds_total")
        time.sleep(3.5)  # noqa: ASYNC251  (stalls the loop)
        await until(lambda: value(metrics_of(server), "endwell_stalled_seconds_total") >= before + 2.4)
        drain = asyncio.create_task(server.drain(deadline=PATIENCE, window=0))
        await until(lambda: value(metrics_of(server), "endwell_processes", state="draining") == 1)
        found = metrics_of(server)
        assert value(found, "endwell_processes", state="serving") == 0
        assert 0 < value(found, "endwell_drain_remaining_seconds") <= PATIENCE
        release.set()
        await within(drain)
        await client.close()


async def test_the_page_can_have_its_own_port(face, caplog):
    caplog.set_level(logging.INFO)
    port = free_port()
    server = metered(face)
    server.metrics_page("/own", port=port)
    async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/room/a"):
        url = f"http://127.0.0.1:{port}/own"
        answer = await asyncio.to_thread(urllib.request.urlopen, url, timeout=PATIENCE)
        assert value(values(answer.read().decode()), "endwell_connections", state="open") == 1
        with pytest.raises(urllib.error.HTTPError, match="404"):
            await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{server.port}/own")
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(urllib.request.urlopen, url, timeout=PATIENCE)
    # The end of the page's own server is not logged: its report would seem to be that of the application.
    assert caplog.text.count("drained") == 1


async def test_a_page_answers_a_request_whose_connection_it_has_accepted_before_the_stop(monkeypatch):
    monkeypatch.setattr("endwell.server.app.HANDSHAKE_TIME", PATIENCE)
    port, server = free_port(), endwell.Server()
    server.metrics_page(port=port)
    async with server.serving(grace=2 * PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        listener = server._pages[0][0]._listener
        await until(lambda: listener.openings)

        async def ask():
            await until(lambda: not listener.socks)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            return await reader.read()

        asking = asyncio.create_task(ask())
    assert (await asking).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize(
    ("port", "error"), [("80", TypeError), (True, TypeError), (0, ValueError), (65536, ValueError)]
)
def test_a_wrong_port_is_named(port, error):
    with pytest.raises(error, match="port must be"):
        endwell.Server().metrics_page(port=port)
