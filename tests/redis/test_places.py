"""Where Redis is: behind TLS, and at an address that a replica takes over."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import trustme

from endwell.errors import BusUnavailable
from endwell.rooms import Gap, History
from endwell.rooms.redis import RedisBus, link
from tests.cli.process import PATIENCE
from tests.pair import until, within, write_later
from tests.ports import free_port
from tests.raw import BOUND
from tests.rooms.house import house
from tests.rooms.test_stalls import connects_with_a_busy_loop
from tests.rooms.witness import Witness

from .sentinels import Sentinels
from .server import RedisServer

KEPT = History(messages=100)


@asynccontextmanager
async def listening(url):
    """Two processes, as far as Redis sees them, which listen to the room "a"."""
    buses, witnesses = [RedisBus(url) for _ in range(2)], [Witness() for _ in range(2)]
    for bus, witness in zip(buses, witnesses, strict=True):
        await bus.start(witness)
        witness.positions["a"] = await bus.listen("a")
    yield buses, witnesses
    for bus in buses:
        await bus.stop()


async def publish(bus, message):
    position, _ = await bus.publish("a", message, KEPT, "skip", None)
    return position


# -- TLS --------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path):
    """Start a server on its TLS port, and the file of the authority that has signed its certificate."""
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    certificate = authority.issue_cert("127.0.0.1")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    redis, port = RedisServer(), free_port()

    def start():
        files = ("--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file", ca)
        redis.start("--tls-port", str(port), "--tls-auth-clients", "no", *map(str, files))

    start()
    yield redis, start, f"rediss://127.0.0.1:{port}/0", ca
    redis.close()


async def test_publications_go_through_tls_and_the_connection_comes_back(secure):
    redis, start, url, ca = secure
    async with listening(f"{url}?ssl_ca_certs={ca}") as (buses, witnesses):
        await publish(buses[0], "before")
        await until(lambda: all("before" in each.seen["a"] for each in witnesses))
        redis.kill()
        await until(lambda: not any(bus.is_connected for bus in buses))
        await asyncio.to_thread(start)
        await publish(buses[1], "after")
        await until(lambda: all("after" in each.seen["a"] for each in witnesses))
        assert [each.gaps for each in witnesses] == [[("a", None)]] * 2
        assert [each.faults for each in witnesses] == [[]] * 2


async def test_a_server_whose_certificate_is_not_trusted_gets_nothing(secure, tmp_path, refused, caplog):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    bus = RedisBus(f"{secure[2]}?ssl_ca_certs={other}")
    await bus.start(Witness())
    await until(lambda: "no connection to Redis" in caplog.text)
    with pytest.raises(BusUnavailable, match=r"CERTIFICATE_VERIFY_FAILED.*nothing was sent"):
        await publish(bus, "x")
    assert not bus.is_connected
    await bus.stop()


# -- a failover --------------------------------------------------------------------------


async def test_when_a_replica_takes_over_all_processes_are_told_and_go_on(redis):
    replica = RedisServer()
    try:
        await asyncio.to_thread(replica.start, "--replicaof", "127.0.0.1", str(redis.port))
        async with listening(redis.url) as (buses, witnesses):
            before = await publish(buses[0], "before")
            await until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
            redis.kill()
            await until(lambda: not any(bus.is_connected for bus in buses))
            assert replica.ask("REPLICAOF", "NO", "ONE") == b"+OK"
            replica.move(redis.port)
            after = await publish(buses[1], "after")
            await until(lambda: all("after" in each.seen["a"] for each in witnesses))
            assert before.epoch != after.epoch
            for witness in witnesses:
                assert (witness.gaps, witness.faults) == ([("a", None)], [])
                assert [*witness.seen["a"]] == ["before", "after"]
    finally:
        replica.close()


@pytest.fixture
def sentinels():
    made = Sentinels()
    yield made
    made.close()


@pytest.mark.parametrize("crash", [True, False])
async def test_the_sentinels_say_which_server_is_the_primary(sentinels, caplog, crash):
    first, second = sentinels.servers
    async with house(3, sentinels.url) as made:
        gaps = []
        for server in made.servers:
            server.rooms.on_gap(lambda room, gap: gaps.append(gap))
        clients = [(await made.joined(number, key=f"user{number}"))[0] for number in range(3)]
        before = (await made.room(0).publish("before")).position
        if crash:
            first.kill()
            sentinels.notice()
        else:
            sentinels.fail_over()
        receipt = None
        async with asyncio.timeout(PATIENCE):
            while receipt is None or receipt.position.epoch == before.epoch:
                # For as long as the old primary serves, it is told nothing else.
                with suppress(BusUnavailable):
                    receipt = await made.room(1).publish("after")
        await until(lambda: len(gaps) == 3)
        assert gaps == [Gap(None, 0)] * 3
        await until(lambda: sentinels.agree_on(second))
        for ws in clients:
            message = await within(ws.recv())
            while message != "after":
                assert message == "before" or not crash
                message = await within(ws.recv())
        async with asyncio.timeout(BOUND):
            while len(await made.room(2).presence()) < 3:
                await asyncio.sleep(0.02)
        assert [event for _, event, _, _ in made.events] == ["joined"] * 3
    assert "no connection to Redis at redis+sentinel://127.0.0.1" in caplog.text


async def test_a_process_that_is_connected_to_a_server_of_the_past_leaves_it(sentinels, monkeypatch):
    monkeypatch.setattr(link, "WATCH_INTERVAL", 0.05)
    _, second = sentinels.servers
    bus = RedisBus(sentinels.url)
    await bus.start(Witness())
    try:

        async def other(place):
            return ("127.0.0.1", second.port)

        monkeypatch.setattr(link, "primary", other)
        await until(lambda: not bus.is_connected)
        # It is still a replica, so it is not used.
        await until(lambda: "its role is slave" in bus._link._problem)
        assert not bus.is_connected
        monkeypatch.undo()
        await until(lambda: bus.is_connected)
    finally:
        await bus.stop()


@asynccontextmanager
async def distant(port, seconds):
    """A port from which a round trip to the server at ``port`` takes this time."""

    async def pump(reader, writer):
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                write_later(seconds / 2, writer.transport, data)
        writer.close()

    async def relay(reader, writer):
        its_reader, its_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, its_writer), pump(its_reader, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_process_connects_to_a_distant_server(redis):
    # With a round trip for each script, it would take longer than CONNECT_TIME.
    async with distant(redis.port, 0.2) as port:
        bus = RedisBus(f"redis://127.0.0.1:{port}/0")
        await bus.start(Witness())
        await until(lambda: bus.is_connected)
        assert (await publish(bus, "x")).sequence == 1
        await bus.stop()


async def test_a_process_whose_event_loop_is_busy_finds_the_primary(sentinels):
    await connects_with_a_busy_loop(sentinels.url)


async def test_a_node_of_a_cluster_is_refused_in_plain_words(refused, caplog):
    node = RedisServer()
    try:
        await asyncio.to_thread(node.start, "--cluster-enabled", "yes")
        bus = RedisBus(node.url)
        await bus.start(Witness())
        await until(lambda: "it is a node of a Redis Cluster, whose URL is redis+cluster://" in caplog.text)
        assert not bus.is_connected
        await bus.stop()
    finally:
        node.close()


async def test_without_an_answer_of_a_sentinel_the_reasons_are_told(refused, caplog):
    port = free_port()
    bus = RedisBus(f"redis+sentinel://127.0.0.1:{port},127.0.0.1:{port}/main")
    await bus.start(Witness())
    text = f"no Sentinel knows the primary of 'main' (redis://127.0.0.1:{port}: "
    await until(lambda: text in caplog.text)
    await bus.stop()
