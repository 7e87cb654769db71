"""The first bytes of a response: another protocol is found at once, whatever the reads are."""

from __future__ import annotations

import pytest

from endwell.errors import InvalidHandshake
from endwell.options import Options
from endwell.wire.head import ResponseReader


def outcome(reads):
    """The status of the response, or the text of the error."""
    reader = ResponseReader(Options())
    try:
        for read in reads:
            if (response := reader.receive(read)) is not None:
                return response.status
    except InvalidHandshake as error:
        return str(error).partition(": it begins with ")[0]
    return None


RESPONSE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("octets", "result"),
    [
        (RESPONSE, 404),
        (b"\r\n" * 60 + RESPONSE, 404),
        (b"\nX: y\r\n\r\n", "the response is not HTTP"),
        (b"\r\n\nX: y\r\n\r\n", "the response is not HTTP"),
        (b"\rX: y\r\n\r\n", "the response is not HTTP"),
        (b"SSH-2.0-x\r\n", "the response is not HTTP"),
        (b"\r\n\r", None),
        (b"HTT", None),
    ],
)
def test_the_start_of_a_response_is_judged_alike_however_it_is_split(octets, result):
    assert outcome([octets]) == result
    assert outcome([octets[at : at + 1] for at in range(len(octets))]) == result
    for cut in range(len(octets)):
        assert outcome([octets[:cut], octets[cut:]]) == result
