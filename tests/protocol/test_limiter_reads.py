"""By how much one read may exceed a limit in bytes whose excess waits."""

from __future__ import annotations

import zlib

import pytest

from endwell import Deflate, Limit
from endwell.aio.reactor import READ_SIZE
from endwell.protocol.limiter import Bucket, Limiter
from endwell.protocol.pause import Pause
from endwell.wire.codec import Codec
from endwell.wire.deflate import PerMessageDeflate
from tests.protocol.core import connection
from tests.wire.peer import BINARY, CONTINUATION, frame

MAX_SIZE = 2**20


def limited(limit, compressing):
    core = connection(ping_interval=None, max_queue=2**20)
    core.connected = True
    core.limit(Limiter([Bucket(limit)]))
    deflate = PerMessageDeflate(Deflate(), client=False) if compressing else None
    core.accept(Codec(False, MAX_SIZE, deflate), 0.0)
    return core


def compressed(size, *, fin=True, opcode=BINARY, cut=None):
    """A compressed message of ``size`` zeros; ``cut``: this part of its payload."""
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(bytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    payload = data[:-4][cut or slice(None)]
    return frame(opcode, payload, fin=fin, rsv=4 if opcode == BINARY else 0)


def received(core, data):
    """The bytes that one read of ``data`` brings."""
    core.receive(data, 0.0)
    size = 0
    while core.inbox.waiting():
        size += len(core.inbox.popleft())
    return size


@pytest.mark.parametrize("burst", [1, 1000, 50_000])
def test_one_read_may_exceed_the_burst_by_a_message_and_the_read_buffer(burst):
    core = limited(Limit(bytes=1, burst_bytes=burst), compressing=False)
    # All but one byte of the bucket, and of the first message.
    assert received(core, frame(BINARY, bytes(burst - 1))) == burst - 1
    assert received(core, frame(BINARY, bytes(MAX_SIZE - 1), fin=False)) == 0
    rest, message = frame(CONTINUATION, b"x"), frame(BINARY, bytes(60_000))
    data = rest + message * ((READ_SIZE - len(rest)) // len(message))
    assert not core.pauses() & Pause.RATE
    size = received(core, data)
    assert core.pauses() & Pause.RATE, "until the bucket has refilled"
    bound = MAX_SIZE + READ_SIZE
    assert 0.9 * bound < burst - 1 + size - burst <= bound
    # The debt is paid before the next message.
    assert core.deadline >= size - burst
    assert received(core, message) == 0


def test_compressed_messages_of_one_read_may_exceed_the_burst_by_two_messages_and_512_kib():
    core = limited(Limit(bytes=1), compressing=True)
    assert received(core, compressed(MAX_SIZE, fin=False, cut=slice(-1))) == 0
    # What is not compressed, then what is 256 KiB in all, then a message in one piece.
    rest = compressed(MAX_SIZE, opcode=CONTINUATION, cut=slice(-1, None))
    small, large = compressed(60_000) * 4, compressed(MAX_SIZE)
    plain = frame(BINARY, bytes(60_000))
    room = READ_SIZE - len(rest) - len(small) - len(large)
    data = rest + plain * (room // len(plain)) + small + large
    assert not core.pauses() & Pause.RATE
    size = received(core, data)
    bound = 2 * MAX_SIZE + 2 * 2**18
    assert core.pauses() & Pause.RATE
    assert 0.9 * bound < size <= bound
    assert core.deadline >= size - 1


@pytest.mark.parametrize("excess", ["drop", "close"])
def test_no_read_exceeds_a_limit_whose_excess_does_not_wait(excess):
    core = limited(Limit(bytes=1, burst_bytes=100_000, excess=excess), compressing=False)
    assert received(core, frame(BINARY, bytes(30_000)) * 8) == 90_000
