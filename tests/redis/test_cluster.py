"""The bus by a Redis Cluster whose nodes fail, and whose slots move: only the rooms of that node are told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import redis
import trustme
from redis.crc import key_slot

from endwell.errors import BusUnavailable
from endwell.rooms import Gap
from endwell.rooms.redis import ClusterBus, presence
from endwell.rooms.redis.cluster import PARTITIONS, partitions
from endwell.rooms.redis.nodes import SLOTS
from endwell.rooms.redis.place import Place
from tests.pair import until, within
from tests.ports import free_port
from tests.raw import BOUND
from tests.rooms.house import KEPT, house
from tests.rooms.witness import Witness, Witnesses

from .clusters import RedisCluster, shared_cluster
from .server import RedisServer

#: A room for each of several partitions, in all nodes.
ROOMS = [f"room{number}" for number in range(12)]


@pytest.fixture
def cluster():
    """A cluster of its own, whose first primary has a replica."""
    made = RedisCluster(replica=True)
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch):
    """Leases are renewed often, so that a process without publications notices a change."""
    monkeypatch.setattr(presence, "RENEW_INTERVAL", 0.05)


@asynccontextmanager
async def listening(url):
    """Two processes, as far as the nodes see them, which listen to all rooms."""
    buses, witnesses = [ClusterBus(url) for _ in range(2)], [Witness() for _ in range(2)]
    for bus, witness in zip(buses, witnesses, strict=True):
        await bus.start(witness)
        for room in ROOMS:
            witness.positions[room] = await available(lambda bus=bus, room=room: bus.listen(room))
    yield buses, witnesses
    for bus in buses:
        await bus.stop()


async def publish(bus, message, rooms=ROOMS):
    """Publish in some rooms, each until there is a receipt."""
    for room in rooms:
        await available(lambda room=room: bus.publish(room, message, KEPT, "skip", None))


async def available(call):
    """The result of ``call()``, as soon as the bus is available: a busy machine connects slowly."""
    async with asyncio.timeout(BOUND):
        while True:
            with suppress(BusUnavailable):
                return await call()


def link_of(bus, room):
    return bus._of(room)._link


def slot_of(bus, room):
    return link_of(bus, room)._slot


def rooms_of(node, cluster, bus):
    """The rooms in the slots that a node owns at the start."""
    return [room for room in ROOMS if cluster.first_owner(slot_of(bus, room)) is node]


def client(node):
    return redis.Redis("127.0.0.1", node.port)


def all_copied(replica, bus, rooms):
    """Whether a replica has a message in the history of each room."""
    with redis.Redis("127.0.0.1", replica.port, single_connection_client=True) as asked:
        asked.readonly()
        return all(asked.xlen(bus._of(room)._keys(room)[1]) for room in rooms)


def shard_channels(node):
    return {each.decode() for each in client(node).execute_command("PUBSUB", "SHARDCHANNELS")}


@asynccontextmanager
async def members(url):
    """Two servers, with a member of each room, and what ``on_gap`` was told."""
    gaps = []
    async with house(2, url) as made:
        for number, server in enumerate(made.servers):
            server.rooms.on_gap(lambda room, gap, number=number: gaps.append((number, room.name, gap)))
            for room in ROOMS:
                await made.joined(number, room, key=f"user{number}")
        yield made, gaps


# -- where the rooms are -----------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["endwell:", "", "1", "é"])
def test_each_partition_is_in_a_sixteenth_of_the_slots_with_all_that_belongs_to_it(prefix):
    place = Place.parse(f"redis+cluster://host?prefix={prefix}")
    found = partitions(place)
    for number, each in enumerate(found):
        keys = [each.key(room, "room") for room in ("a", "{b}", "}", "{}")]
        slots = {key_slot(key.encode()) for key in [*keys, f"{each.prefix}processes"]}
        assert len(slots) == 1
        assert slots.pop() * PARTITIONS // SLOTS == number
    assert found == partitions(place)


async def test_the_rooms_are_in_all_nodes_and_their_channels_are_sharded():
    cluster = shared_cluster()
    async with listening(f"{cluster.url}?prefix=sharded:") as (buses, witnesses):
        owners = {room: cluster.first_owner(slot_of(buses[0], room)) for room in ROOMS}
        assert {*owners.values()} == {*cluster.nodes}
        for room, owner in owners.items():
            topic = buses[0]._of(room)._topic(room).decode()
            assert [node for node in cluster.nodes if topic in shard_channels(node)] == [owner]
            _, workers = await buses[0].publish(room, "x", KEPT, "skip", None)
            assert workers == 2
        # publish() waits for its own process only.
        await until(lambda: [{*each.seen} for each in witnesses] == [{*ROOMS}] * 2)
        for node in cluster.nodes:
            assert not [each for each in client(node).pubsub_channels() if b"sharded:" in each]
            # Each partition has a canary in its own slot, from each of the two processes.
            canaries = [each for each in shard_channels(node) if "{sharded:" in each and ":canary:" in each]
            slots = [key_slot(each.encode()) for each in canaries]
            own = [each._link._slot for each in buses[0]._partitions]
            assert sorted(slots) == sorted(2 * [s for s in own if cluster.first_owner(s) is node])


# -- one node fails ----------------------------------------------------------------------


def check_only(witnesses, affected):
    """Only these rooms have lost their epoch, and nothing else was told."""
    for witness in witnesses:
        assert {*witness.gaps} == {(room, None) for room in affected}
        assert witness.faults == []


async def test_when_a_primary_is_killed_its_replica_takes_over_and_only_its_rooms_are_told(cluster, caplog):
    first, replica = cluster.nodes[0], cluster.nodes[-1]
    # The other nodes are learned from this one.
    url = f"redis+cluster://127.0.0.1:{first.port}"
    async with listening(url) as (buses, witnesses), members(url) as (made, gaps):
        affected = rooms_of(first, cluster, buses[0])
        assert 0 < len(affected) < len(ROOMS)
        await publish(buses[0], "before")
        await until(lambda: all("before" in each.seen[room] for each in witnesses for room in ROOMS))
        await until(lambda: all_copied(replica, buses[0], affected))
        first.kill()
        cluster.notice()
        await publish(buses[1], "after")
        await until(lambda: all("after" in each.seen[room] for each in witnesses for room in ROOMS))
        check_only(witnesses, affected)
        await until(lambda: all(bus.is_connected for bus in buses))
        assert {link_of(buses[0], room)._primary[1] for room in affected} == {replica.port}
        for room in affected:
            page = await buses[0].page(room, None, None)
            assert [each.message for each in page.publications] == ["before", "after"]
        await until(lambda: all(server.rooms.is_connected for server in made.servers))
        # With another prefix, other rooms are in this node.
        told = rooms_of(first, cluster, made.servers[0].rooms._registry.bus)
        await until(lambda: len(gaps) == 2 * len(told))
        assert {*gaps} == {(number, room, Gap(None, 0)) for number in (0, 1) for room in told}
        for room in ROOMS:
            async with asyncio.timeout(BOUND):
                while len(await made.room(0, room).presence()) < 2:
                    await asyncio.sleep(0.02)
        assert [event for _, event, _, _ in made.events] == ["joined"] * 2 * len(ROOMS)
    assert f"(slot {slot_of(buses[0], affected[0])}): " in caplog.text


async def test_a_node_that_has_lost_its_data_has_lost_only_its_rooms():
    cluster = shared_cluster()
    async with listening(f"{cluster.url}?prefix=flushed:") as (buses, witnesses):
        node = cluster.nodes[1]
        affected = rooms_of(node, cluster, buses[0])
        await publish(buses[0], "before")
        assert node.ask("FLUSHALL") == b"+OK"
        await publish(buses[1], "after")
        await until(lambda: all("after" in each.seen[room] for each in witnesses for room in ROOMS))
        check_only(witnesses, affected)
        assert all(bus.is_connected for bus in buses)


async def test_a_full_node_refuses_the_publications_in_its_rooms():
    cluster = shared_cluster()
    node = cluster.nodes[1]
    async with listening(f"{cluster.url}?prefix=full:") as (buses, witnesses):
        full = rooms_of(node, cluster, buses[0])
        others = [room for room in ROOMS if room not in full]
        assert node.ask("CONFIG", "SET", "maxmemory", 1) == b"+OK"
        try:
            for room in full:
                with pytest.raises(BusUnavailable, match="nothing was sent"):
                    await buses[0].publish(room, "x", KEPT, "skip", None)
                await buses[1].page(room, None, None)
            await publish(buses[0], "meanwhile", others)
        finally:
            assert node.ask("CONFIG", "SET", "maxmemory", 0) == b"+OK"
        await publish(buses[0], "after")
        await until(lambda: all("after" in each.seen[room] for each in witnesses for room in ROOMS))
        assert [(each.gaps, each.faults) for each in witnesses] == [([], [])] * 2


async def test_a_process_that_does_not_hear_its_canary_in_one_slot_reconnects_there_alone(caplog):
    cluster = shared_cluster()
    async with listening(f"{cluster.url}?prefix=deaf:") as (buses, witnesses):
        link = link_of(buses[1], ROOMS[0])
        served = []
        for each in buses[1]._partitions:
            changed = each._link._changed
            each._link._changed = lambda there, each=each, changed=changed: (
                served.append((each._link, there)),
                changed(there),
            )
        canary, link._canary = link._canary, link._canary + b" unheard"
        heard, link._heard = link._heard, lambda channel, data: None
        await publish(buses[0], "missed")
        await until(lambda: (link, False) in served)
        link._canary, link._heard = canary, heard
        await until(lambda: all("missed" in each.seen[room] for each in witnesses for room in ROOMS))
        assert {each for each, _ in served} == {link}
        assert [(each.gaps, each.faults) for each in witnesses] == [([], [])] * 2
    assert f"(slot {link._slot}): what this process publishes is not heard for 2 s" in caplog.text


async def test_a_cluster_that_goes_down_and_comes_back_loses_nothing(quick):
    node = RedisServer()
    try:
        await asyncio.to_thread(node.start, "--cluster-enabled", "yes")
        assert node.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1) == b"+OK"
        await until(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
        async with listening(f"redis+cluster://127.0.0.1:{node.port}") as (buses, witnesses):
            # A node that is separated from the others is down in the same way. It still passes canaries on.
            assert node.ask("CLUSTER", "DELSLOTS", 0) == b"+OK"
            links = [each._link for bus in buses for each in bus._partitions]
            await until(lambda: not any(link.connected for link in links))
            await until(lambda: all("cluster is down" in link._problem for link in links))
            waiting = asyncio.create_task(publish(buses[0], "x"))
            assert node.ask("CLUSTER", "ADDSLOTS", 0) == b"+OK"
            await within(waiting)
            await until(lambda: all("x" in each.seen[room] for each in witnesses for room in ROOMS))
            assert [(each.gaps, each.faults) for each in witnesses] == [([], [])] * 2
    finally:
        node.close()


# -- a slot moves ------------------------------------------------------------------------


def begin_to_move(cluster, slot, source, target):
    assert target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source)) == b"+OK"
    assert source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target)) == b"+OK"


def end_to_move(cluster, slot, source, target):
    """Move the keys, and give the slot to the target. Both go on to serve meanwhile."""
    with client(source) as asked:
        while keys := asked.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            asked.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source):
        assert node.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(target)) == b"+OK"


async def test_when_a_slot_moves_with_its_keys_its_rooms_follow_and_only_they_are_told(quick):
    cluster = shared_cluster()
    source, target = cluster.nodes[2], cluster.nodes[1]
    async with listening(f"{cluster.url}?prefix=moved:") as (buses, witnesses):
        slot = next(s for room in ROOMS if cluster.first_owner(s := slot_of(buses[0], room)) is source)
        affected = [room for room in ROOMS if slot_of(buses[0], room) == slot]
        await publish(buses[0], "before")
        begin_to_move(cluster, slot, source, target)
        try:
            # While its keys are in two nodes, neither numbers a message.
            links = [link_of(bus, affected[0]) for bus in buses]
            await until(lambda: not any(link.connected for link in links))
            await until(lambda: all("the slot is being moved" in link._problem for link in links))
            waiting = asyncio.create_task(publish(buses[0], "waits", affected))
            others = [room for room in ROOMS if room not in affected]
            await publish(buses[1], "meanwhile", others)
            assert not waiting.done()
        finally:
            end_to_move(cluster, slot, source, target)
        try:
            await within(waiting)
            await publish(buses[1], "after")
            await until(lambda: all("after" in each.seen[room] for each in witnesses for room in ROOMS))
            check_only(witnesses, affected)
            assert {link._primary[1] for link in links} == {target.port}
            topic = buses[0]._of(affected[0])._topic(affected[0]).decode()
            assert topic in shard_channels(target)
            page = await buses[0].page(affected[0], None, None)
            assert [each.message for each in page.publications] == ["before", "waits", "after"]
        finally:
            begin_to_move(cluster, slot, target, source)
            end_to_move(cluster, slot, target, source)
        # Without a publication, the end of the subscription or the next renewal of the lease tells it.
        await until(lambda: {link._primary[1] for link in links} == {source.port})


# -- all at once -------------------------------------------------------------------------


def kill_connections(node):
    for kind in ("normal", "pubsub"):
        node.ask("CLIENT", "KILL", "TYPE", kind)


def move(cluster, slot, target):
    source = cluster.first_owner(slot)
    begin_to_move(cluster, slot, source, target)
    end_to_move(cluster, slot, source, target)


def crash(node, *, data):
    node.kill(data=data)
    node.start(*node.arguments)


async def test_no_fault_of_a_cluster_loses_or_repeats_a_publication_silently(cluster):
    nodes = cluster.nodes
    witnesses = Witnesses([ClusterBus(cluster.url) for _ in range(2)])
    slots = {room: slot_of(witnesses.buses[0], room) for room in ("long", "none", "short")}
    # The first node has one of these rooms, and so has another one.
    others = [room for room, slot in slots.items() if cluster.first_owner(slot) is not nodes[0]]
    assert 0 < len(others) < 3
    moved = slots[others[0]]
    owner = cluster.first_owner(moved)
    faults = {
        "the connections to a node are killed": lambda: kill_connections(nodes[0]),
        "all data of a node is deleted": lambda: owner.ask("FLUSHALL"),
        "a slot moves": lambda: move(cluster, moved, nodes[0]),
        "an orderly failover": lambda: nodes[-1].ask("CLUSTER", "FAILOVER"),
        "a crash with its data": lambda: crash(owner, data=True),
        "a crash of the primary that has a replica": lambda: (nodes[-1].kill(), cluster.notice()),
    }
    await witnesses.start()
    for name, fault in faults.items():
        await witnesses.progress()
        await asyncio.to_thread(fault)
        witnesses.check(name)
    await witnesses.end()


# -- what is no cluster ------------------------------------------------------------------


async def problem_of(url, caplog, text):
    """What is logged of a bus that cannot connect."""
    bus = ClusterBus(url)
    await bus.start(Witness())
    await until(lambda: text in caplog.text)
    with pytest.raises(BusUnavailable, match="nothing was sent"):
        await bus.publish("a", "x", KEPT, "skip", None)
    assert not bus.is_connected
    await bus.stop()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--cluster-enabled", "yes"), "says that the cluster is down"),
        ((), "cluster support disabled"),
    ],
)
async def test_a_cluster_that_is_down_and_a_server_that_is_none_are_told(refused, caplog, arguments, text):
    node = RedisServer()
    try:
        await asyncio.to_thread(node.start, *arguments)
        await problem_of(f"redis+cluster://127.0.0.1:{node.port}", caplog, text)
    finally:
        node.close()


async def test_a_cluster_by_tls_with_a_password(tmp_path):
    authority = trustme.CA()
    ca, key, chain = (tmp_path / name for name in ("ca.pem", "key.pem", "chain.pem"))
    authority.cert_pem.write_to_path(ca)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    node = RedisServer()
    port = free_port()
    files = ("--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file", ca)
    try:
        await asyncio.to_thread(
            node.start,
            *("--cluster-enabled", "yes", "--tls-cluster", "yes", "--tls-port", str(port)),
            *("--tls-auth-clients", "no", *map(str, files)),
        )
        assert node.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1) == b"+OK"
        await until(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
        assert node.ask("CONFIG", "SET", "requirepass", "secret") == b"+OK"
        url = f"rediss+cluster://default:secret@127.0.0.1:{port}?ssl_ca_certs={ca}"
        async with listening(url) as (buses, witnesses):
            await publish(buses[0], "x")
            await until(lambda: all("x" in each.seen[room] for each in witnesses for room in ROOMS))
    finally:
        node.close()
