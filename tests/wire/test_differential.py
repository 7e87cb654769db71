"""No request is read in two ways: what this library accepts, h11 reads as the same requests or refuses."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from endwell.errors import RequestRefused
from endwell.options import Options
from endwell.wire.body import BodyReader, body_length
from endwell.wire.head import RequestReader
from tests.wire.h11_reader import comparable, read_by_h11

LIMIT = 2**16

LINES = [
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: 05",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length:\t5 ",
    b"Content-Length : 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: CHUNKED",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Expect: 100-continue",
    b"X: y",
    b"X:",
    b" folded: 1",
    b"Host: other",
]
BODIES = [
    b"",
    b"hello",
    b"hello!",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=b\r\nhello\r\n0;c\r\nX: y\r\n\r\n",
    b"5 ;a\r\nhello\r\n0\r\n\r\n",
    b"00000005\r\nhello\r\n000\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello!\r\n0\r\n\r\n",
    b"a\r\nhello\r\n0\r\n\r\n",
]
STARTS = [
    b"GET / HTTP/1.1",
    b"POST / HTTP/1.1",
    b"POST /?a=b HTTP/1.0",
    b"PUT /a%20b HTTP/1.1",
    b"DELETE / HTTP/1.1",
]


#: Lines with the bodies that they announce.
MATCHING = [
    ([b"Content-Length: 5"], b"hello"),
    ([b"Content-Length: 05"], b"hello"),
    ([b"Content-Length: 0"], b""),
    ([], b""),
    *(
        ([line], body)
        for line in (b"Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED")
        for body in BODIES
        if body.endswith(b"\r\n\r\n")
    ),
]


@st.composite
def octets(draw):
    """A few requests, of which some have a wrong field or body, or changed bytes."""
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        lines, body = draw(st.sampled_from(MATCHING))
        if draw(st.integers(0, 5)) == 0:
            lines = [*lines, draw(st.sampled_from(LINES))]
        if draw(st.integers(0, 5)) == 0:
            body = draw(st.sampled_from(BODIES))
        start = draw(st.sampled_from(STARTS))
        data += b"\r\n".join([start, b"Host: localhost", *lines, b"", b""]) + body
    changed = bytearray(data)
    if draw(st.integers(0, 2)) == 0:
        at = draw(st.integers(0, len(changed)))
        pieces = [b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b"0", b";", b"\x0b", b"\xff"]
        changed[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from(pieces))
    return bytes(changed)


def ours(data):
    """The requests of ``data``, until the first one that is refused or incomplete."""
    found = []
    while data:
        reader = RequestReader(Options())
        try:
            request = reader.receive(data)
            if request is None:
                break
            body = BodyReader(body_length(request.method, request.version, request.headers), LIMIT)
            rest = reader.take_rest()
            content = b""
            if body.complete:
                data = rest
            else:
                content = body.receive(rest)
                if not body.complete:
                    break
                data = body.rest
        except RequestRefused:
            break
        found.append((request.method, request.target, comparable(request.headers), content))
    return found


@settings(max_examples=500)
@given(octets())
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n")
def test_h11_reads_accepted_requests_alike(data):
    found, reference = ours(data), read_by_h11(data)
    # h11 may refuse more: then it has read all requests before.
    assert found[: len(reference)] == reference[: len(found)]
