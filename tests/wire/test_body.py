"""The length of a request's body, and the chunked coding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.errors import BadRequest, BodyTooLarge, LengthRequired, RequestRefused, UnsupportedCoding
from endwell.http import Headers
from endwell.wire.body import MAX_LINE, MAX_TRAILERS, BodyReader, body_length

CHUNKED = [("Transfer-Encoding", "chunked")]


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([], 0),
        ([("Content-Length", "0")], 0),
        ([("Content-Length", "007")], 7),
        (CHUNKED, None),
        ([("Transfer-Encoding", " Chunked ")], None),
    ],
)
def test_the_length_of_a_body(fields, length):
    assert body_length("POST", "1.1", Headers(fields)) == length


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ([("Content-Length", "1"), ("Content-Length", "1")], BadRequest),
        ([("Content-Length", "1, 1")], BadRequest),
        ([("Content-Length", "+1")], BadRequest),
        ([("Content-Length", "-1")], BadRequest),
        ([("Content-Length", "0x1")], BadRequest),
        ([("Content-Length", "1_0")], BadRequest),
        ([("Content-Length", "")], BadRequest),
        ([("Content-Length", "\xb2")], BadRequest),
        ([("Content-Length", "9" * 19)], BadRequest),
        ([*CHUNKED, ("Content-Length", "1")], BadRequest),
        ([*CHUNKED, *CHUNKED], BadRequest),
        ([("Transfer-Encoding", "chunked, chunked")], BadRequest),
        ([("Transfer-Encoding", "chunked, gzip")], BadRequest),
        ([("Transfer-Encoding", "identity")], BadRequest),
        ([("Transfer-Encoding", "")], BadRequest),
        ([("Transfer-Encoding", "xchunked")], BadRequest),
        ([("Transfer-Encoding", "gzip, chunked")], UnsupportedCoding),
    ],
)
def test_a_length_that_two_parsers_could_read_differently_is_refused(fields, error):
    with pytest.raises(error):
        body_length("POST", "1.1", Headers(fields))


def test_http_1_0_has_no_chunked_coding_and_needs_a_length():
    with pytest.raises(BadRequest):
        body_length("POST", "1.0", Headers(CHUNKED))
    with pytest.raises(LengthRequired):
        body_length("POST", "1.0", Headers())
    assert body_length("DELETE", "1.0", Headers()) == 0


def outcome(data, cuts, length=None, limit=1000):
    """What the reader makes of ``data`` that arrives in pieces: the content and whether it is complete, or the error."""
    reader = BodyReader(length, limit)
    content = b""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    try:
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            content += reader.receive(data[start:end])
    except RequestRefused as exc:
        return type(exc), str(exc)
    return content, reader.complete


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\n1\r\n\n\r\n000\r\n\r\n", b"0123456789\n"),
        (b'1;name=value;q="x"\r\na\r\n0 ; last\r\n\r\n', b"a"),
        (b"1\r\na\r\n0\r\nX-Trailer: 1\r\nY:\r\n\r\n", b"a"),
        (b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n", b"a"),
    ],
)
def test_a_chunked_body_is_decoded(data, content):
    assert outcome(data, []) == (content, True)
    assert outcome(data, range(len(data))) == (content, True)


@pytest.mark.parametrize(
    "data",
    [
        b"g\r\n",
        b"\r\n",
        b" 1\r\na\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1\na\r\n",
        b"1\r\r\na",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1;\x00\r\n",
        b"1;a\rb\r\n",
        b"1" * 17 + b"\r\n",
        b"1;" + b"x" * MAX_LINE + b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n: no name\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\nX: \0\r\n\r\n",
        b"0\r\nX: 1\r\n folded: 2\r\n\r\n",
        b"0\r\nX: " + b"x" * MAX_TRAILERS + b"\r\n\r\n",
        b"0\r\n" + b"X: 1\r\n" * (MAX_TRAILERS // 6 + 1) + b"\r\n",
    ],
)
def test_a_malformed_chunked_body_is_refused_however_it_is_split(data):
    error = outcome(data, [])
    assert error[0] is BadRequest
    assert outcome(data, range(len(data)))[0] is BadRequest


def test_a_body_above_the_limit_is_refused_before_it_is_read():
    with pytest.raises(BodyTooLarge):
        BodyReader(1001, 1000)
    assert outcome(b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n", [])[1] is True
    assert outcome(b"3e9\r\n", [])[0] is BodyTooLarge
    assert outcome(b"ffffffffffffffff\r\n", [])[0] is BodyTooLarge


def test_bytes_after_a_body_of_known_length_are_no_content():
    assert outcome(b"hello GET", [], length=5) == (b"hello", True)
    assert outcome(b"hell", [], length=5) == (b"hell", False)


@given(
    data=st.lists(
        st.sampled_from(
            [
                b"0\r\n",
                b"1\r\n",
                b"a\r\n",
                b"\r\n",
                b"5\r\nhello\r\n",
                b"X: y\r\n",
                b"\n",
                b"\r",
                b"2;q\r\nhi\r\n",
            ]
        ),
        max_size=12,
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_the_reading_does_not_depend_on_how_the_bytes_were_split(data, cuts):
    whole, split = outcome(data, []), outcome(data, cuts)
    # The content before an error may differ; whether there is an error may not.
    assert (whole[0] is BadRequest) == (split[0] is BadRequest)
    if whole[0] is not BadRequest:
        assert whole == split
