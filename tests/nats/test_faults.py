"""Four processes publish while NATS and their leader fail in every way: each loss is told, and nothing repeats."""

from __future__ import annotations

from endwell.rooms.nats import NatsBus
from tests.pair import until
from tests.rooms.witness import Witnesses

from .faults import cut, follower_of, leader_of


async def crash(nats, buses):
    nats.kill()
    nats.start()


async def stand_still(nats, buses):
    nats.pause()
    await until(lambda: not any(bus.is_connected for bus in buses))
    nats.go_on()


async def cut_the_leader(nats, buses):
    cut(leader_of(buses))


async def cut_a_follower(nats, buses):
    cut(follower_of(buses))


async def take_over(nats, buses):
    """A process begins to lead, though the leader is well."""
    follower_of(buses)._leadership._claim()


async def lead_both(nats, buses):
    """Two processes lead, as after a cut between two servers of NATS. One does not hear of the other."""
    leader, follower = leader_of(buses), follower_of(buses)
    hear = leader._leadership._on_beat
    rank = leader._leadership.rank

    def hear_only_itself(name, reply, data, nobody):
        if rank.process.encode() in data:
            hear(name, reply, data, nobody)

    leader._link.subscribe("endwell.leader", hear_only_itself)
    before = follower._leadership.rank
    follower._leadership._claim()
    await until(lambda: bool(follower._leadership._serves))
    numbered = leader._leadership._sequencer
    count = {room: numbered._hub.position(room, 0.0).sequence for room in ("long", "none")}
    await until(
        lambda: all(numbered._hub.position(room, 0.0).sequence > number for room, number in count.items())
    )
    assert before == rank
    leader._link.subscribe("endwell.leader", hear)
    await until(lambda: not leader._leadership._serves)


FAULTS = [crash, stand_still, cut_the_leader, cut_a_follower, take_over, lead_both]


async def test_no_fault_loses_or_repeats_a_publication_silently(nats):
    buses = [NatsBus(nats.url, 64 << 20) for _ in range(4)]
    witnesses = Witnesses(buses)
    await witnesses.start()
    for fault in FAULTS:
        await witnesses.progress()
        await fault(nats, buses)
        witnesses.check(fault.__name__)
        await until(lambda: sum(bool(bus._leadership._serves) for bus in buses) == 1)
    await witnesses.end()
