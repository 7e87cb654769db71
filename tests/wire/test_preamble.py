"""The preamble of the PROXY protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.wire.preamble import PreambleReader

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command=0x21, family=0x11, block=bytes([192, 0, 2, 1, 10, 0, 0, 1, 0x16, 0x2E, 0, 80]), length=None):
    return (
        SIGNATURE
        + bytes([command, family])
        + (len(block) if length is None else length).to_bytes(2, "big")
        + block
    )


V6 = bytes.fromhex("20010db8000000000000000000000001") + bytes(15) + b"\1" + b"\x16\x2e\0\x50"

PREAMBLES = [
    (b"PROXY TCP4 192.0.2.1 10.0.0.1 5678 80\r\n", ("192.0.2.1", 5678)),
    (b"PROXY TCP6 2001:DB8::1 ::1 5678 80\r\n", ("2001:db8::1", 5678, 0, 0)),
    (
        b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        (":".join(["ffff"] * 8), 65535, 0, 0),
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", None),
    (v2(), ("192.0.2.1", 5678)),
    (v2(family=0x21, block=V6), ("2001:db8::1", 5678, 0, 0)),
    (v2(family=0x31, block=bytes(216)), ""),
    (v2(block=v2()[16:] + b"\x04\0\1x" * 100), ("192.0.2.1", 5678)),
    (v2(command=0x20), None),
    (v2(command=0x20, family=0, block=b""), None),
    (v2(family=0, block=b""), None),
]


def read(data, sizes):
    """Read as the server does: at most what may belong to the preamble; ``sizes`` are what the kernel has."""
    reader, at = PreambleReader(), 0
    sizes = iter(sizes)
    while not reader.complete and at < len(data):
        available = data[at : at + min(reader.wanted(), max(1, next(sizes, len(data))))]
        at += reader.receive(available)
    return reader, data[at:]


@pytest.mark.parametrize(("preamble", "address"), PREAMBLES)
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"])
@pytest.mark.parametrize("sizes", [(), [1] * 5000], ids=["whole", "bytewise"])
def test_a_preamble_names_the_client_and_no_byte_after_it_is_taken(preamble, address, rest, sizes):
    reader, left = read(preamble + rest, sizes)
    assert (reader.complete, reader.address, left) == (True, address, rest)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\0\1\0\1\xfc\x03\x03aaaaaa",
        b"PROXY",
        b"PROXY\r\n",
        b"PROXY TCP4\r\n and more than a line of the least length",
        b"PROXY UNKNOWN\n and more",
        b"PROXY TCP5 192.0.2.1 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
        b"PROXY TCP4 192.0.2.1  10.0.0.1 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 1 \xb2\r\n",
        b"PROXY UNKNOWN" + b" " * 200,
        b"proxy TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
        SIGNATURE[:11] + b"X",
        v2(command=0x11),
        v2(command=0x22),
        v2(block=bytes(11)),
        v2(family=0x21),
        v2(block=bytes(4097)),
    ],
)
def test_anything_else_is_refused(data):
    if data == b"PROXY":
        reader, _ = read(data, ())
        assert not reader.complete
        return
    with pytest.raises(ValueError, match="preamble"):
        read(data, ())
    with pytest.raises(ValueError, match="preamble"):
        read(data, [1] * 5000)


@given(
    data=st.one_of(st.sampled_from([preamble for preamble, _ in PREAMBLES]), st.binary(max_size=60)),
    change=st.tuples(st.integers(0, 300), st.integers(0, 255)),
    sizes=st.lists(st.integers(1, 40), max_size=20),
)
def test_the_reading_does_not_depend_on_how_the_bytes_arrive(data, change, sizes):
    data = bytearray(data + b"rest")
    if change[0] < len(data):
        data[change[0]] = change[1]

    def outcome(sizes):
        try:
            reader, rest = read(bytes(data), sizes)
        except ValueError:
            return "refused"
        return reader.complete, reader.address, rest

    assert outcome(()) == outcome(sizes) == outcome([1] * len(data))
