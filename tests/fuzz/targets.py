"""The fuzz targets: each parser of a peer's octets, as a function from octets to its result.

A target receives octets, the first of which select its options, and the places at which the rest is split
into reads. It returns a comparable result, and raises AssertionError if a property is violated that must
hold for all octets. An exception that the parser does not document is a find too.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from endwell.advice import RetryAdvice
from endwell.ending import Close
from endwell.errors import InvalidHandshake, PeerError, RequestRefused
from endwell.http import Headers, Request, set_challenge
from endwell.options import LEGACY, Deflate, Options
from endwell.protocol import opening
from endwell.protocol.connection import Connection
from endwell.protocol.control import ControlChannel
from endwell.protocol.handshake import Offer
from endwell.protocol.heartbeat import ANSWER, HEARTBEAT
from endwell.protocol.uri import parse_uri
from endwell.wire import deflate
from endwell.wire.body import BodyReader, body_length
from endwell.wire.codec import Codec
from endwell.wire.deflate import PerMessageDeflate
from endwell.wire.extensions import parse_extensions
from endwell.wire.frames import MAX_CONTROL, close_payload, parse_close
from endwell.wire.head import RequestReader, ResponseReader
from endwell.wire.hixie import Hixie
from endwell.wire.hybi import Hybi03
from tests.fuzz.pieces import reads, said
from tests.fuzz.requests import body, forwarded, preamble
from tests.raw import NONCE
from tests.wire.h11_reader import comparable, read_by_h11
from tests.wire.peer import receive

__all__ = ["TARGETS", "check"]

#: The longest input; other tests cover effects of long input (tests/wire, tests/hostile).
LONGEST = 4096

SIZES = (2**20, 400, 125, 1)
TIGHT = Options(max_line=60, max_headers=7, max_head=300, max_refusal=5, compression=None)

#: The octets that are forbidden in a line of a head (RFC 9110 §5.5).
CONTROLS = {*range(9), *range(10, 32), 127}

#: Targets whose input comes from a parser that another target splits. Their result costs more than others'.
NOT_SPLIT = {"forwarded"}

Target = Callable[[bytes, list[int]], object]


def check(name: str, data: bytes, every: bool = False) -> str:
    """The result of the target for ``data``, which must be the same for any split.

    ``every``: split at every single place; otherwise whole, octet by octet, and at one place.
    """
    target = TARGETS[name]
    whole = target(data, [])
    if name in NOT_SPLIT:
        return repr(whole)
    places = range(len(data)) if every else [crc32(data) % (len(data) + 1)]
    for cuts in ([place] for place in places):
        split = target(data, cuts)
        assert split == whole, f"cut at {cuts}: {split!r} instead of {whole!r}"
    split = target(data, list(range(len(data))))
    assert split == whole, f"octet by octet: {split!r} instead of {whole!r}"
    return repr(whole)


# -- messages ------------------------------------------------------------------------


def _received(made: Callable[[int], Codec], data: bytes, cuts: list[int]) -> object:
    """The events and the error, the same whether long payloads are read into the codec's room or not.

    ``made(size)`` makes a codec for messages of at most ``size`` bytes.
    """
    size = SIZES[data[0] >> 1 & 3] if data else SIZES[0]
    pieces = reads(data, 1, cuts)
    events, error = receive(made(size), *pieces)
    for event in events:
        assert not isinstance(event, Close) or event is events[-1], "something follows a Close"
        assert len(_octets(event)) <= size
    again, same = receive(made(size), *pieces, into_room=True)
    assert again == events
    assert (type(same), said(same)) == (type(error), said(error))
    if error is not None:
        assert len(error.close.reason.encode()) <= MAX_CONTROL - 2
    return events, said(error)


def frames(data: bytes, cuts: list[int]) -> object:
    """Frames of RFC 6455, in both roles, with and without compression."""
    how = data[0] if data else 0
    client, compressed = bool(how & 1), bool(how & 8)
    # The widest window: see inflate().
    agreed = Deflate(
        server_max_window_bits=15, client_max_window_bits=15, client_no_context_takeover=bool(how & 128)
    )

    def made(size: int) -> Codec:
        return Codec(client, size, PerMessageDeflate(agreed, client) if compressed else None)

    events, error = _received(made, data, cuts)  # type: ignore[misc]
    # zlib does not return the output of a call that fails. If the DEFLATE data is corrupt and the text
    # before that is too long or not UTF-8, the split decides which error is raised.
    return events, "a fault" if compressed and error else error


def _octets(event: object) -> bytes:
    return event.encode() if isinstance(event, str) else event if isinstance(event, bytes) else b""


def hixie(data: bytes, cuts: list[int]) -> object:
    """Frames of hixie-75 and hixie-76."""
    how = data[0] if data else 0
    return _received(lambda size: Hixie(bool(how & 1), size, bool(how & 8)), data, cuts)


def hybi(data: bytes, cuts: list[int]) -> object:
    """Frames of hybi-03."""
    how = data[0] if data else 0
    return _received(lambda size: Hybi03(bool(how & 1), size), data, cuts)


def inflate(data: bytes, cuts: list[int]) -> object:
    """Two compressed messages of one connection; the second octet is the size of the first message."""
    how, size, rest = data[0] if data else 0, data[1] if len(data) > 1 else 0, data[2:]
    limit = (2**20, 1000, 10, 0)[how >> 1 & 3]
    agreed = Deflate(client_max_window_bits=8 + (how >> 4 & 7), client_no_context_takeover=bool(how & 8))
    if agreed.client_max_window_bits < 15:
        # zlib detects a distance beyond the negotiated window only if the data is no longer in its buffer,
        # which depends on the split. With the widest window no distance is too far.
        cuts = []
    inflater = PerMessageDeflate(agreed, client=False)
    messages: list[bytes] = []
    for start, end in ((0, size), (size, len(rest))):
        message = bytearray()
        pieces = reads(rest[start:end], 0, [cut - 2 - start for cut in cuts if cut - 2 - start < end])
        try:
            for number, piece in enumerate(pieces, 1):
                inflater.decompress(piece, number == len(pieces), message, limit)
                assert len(message) <= limit + 1
                if len(message) > limit:
                    return messages, "a fault"
        except PeerError:
            return messages, "a fault"
        messages.append(bytes(message))
    return messages, ""


def close(data: bytes, cuts: list[int]) -> object:
    """The payload of a Close, and the advice in its reason."""
    try:
        received = parse_close(data[:MAX_CONTROL])
    except PeerError as error:
        return said(error)
    assert close_payload(received) == data[:MAX_CONTROL]
    assert str(received).isprintable()
    return received, RetryAdvice.parse(received.reason)


def connection(data: bytes, cuts: list[int]) -> object:
    """A whole connection: what it receives, what it answers, how it ends."""
    how = data[0] if data else 0
    client = bool(how & 1)
    options = Options(max_size=400, max_queue=3, ping_interval=None)
    core = Connection(client, options, 0.0)
    core.connected = True
    core.accept(Codec(client, 400), 0.0, control=ControlChannel(HEARTBEAT) if how & 2 else None)
    taken: list[str | bytes] = []
    for read in reads(data, 1, cuts):
        core.receive(read, 0.0)
        while core.has_unparsed():
            core.feed(bytearray(), 0, 0.0)
        while core.inbox and not core.wants_read():
            taken.append(core.inbox.popleft())
    if how & 4:
        core.close(Close(1000, ""), 0.0)
    core.eof(0.0)
    while core.inbox:
        taken.append(core.inbox.popleft())
    if core.answering:
        core.handled(0.0)  # the application has received the messages before the Close
    octets = b"".join(map(bytes, core.outbox.buffers()))
    core.sent(len(octets), 0.0)
    core.tick(100.0)
    core.tick(200.0)  # the deadline of the first tick may have started another wait
    ending = core.ending
    assert ending is not None, "it has not ended"
    assert str(ending).isprintable()
    # The peer can parse what is sent.
    answers, error = receive(Codec(not client), octets)
    assert error is None
    assert sum(isinstance(answer, Close) for answer in answers) <= 1
    # One answer is enough for all heartbeats of a read, so their number depends on the split.
    answers = [
        answer
        for answer, last in zip(answers, [None, *answers], strict=False)
        if answer != ANSWER or last != ANSWER
    ]
    return taken, answers, ending.cause, ending.received, ending.sent, ending.clean, ending.messages_in


# -- openings ------------------------------------------------------------------------


def request(data: bytes, cuts: list[int]) -> object:
    """A request, what is negotiated for it, and the response."""
    how = data[0] if data else 0
    base = TIGHT if how & 1 else Options()
    options = base.replace(
        legacy=bool(how & 2), origins=["*"] if how & 4 else None, subprotocols=["chat", "constructor"]
    )
    reader = RequestReader(options, ("192.0.2.1", 1), link=bool(how & 8))
    pieces = iter(reads(data, 1, cuts))
    made = None
    try:
        while made is None and (read := next(pieces, None)) is not None:
            made = reader.receive(read)
        if made is None:
            return "incomplete"
        rest = reader.take_rest() + b"".join(pieces)
        assert made.target.startswith("/")
        assert all(str(text).isprintable() for text in (repr(made), repr(made.path), repr(made.query)))
        accepted = opening.accept(made, options)
    except RequestRefused as error:
        _well_formed(error.response().serialize())
        return made, said(error)
    answer = accepted.serialize()
    _well_formed(answer)
    return made, rest, answer, accepted.subprotocol, accepted.heartbeat


def requests(data: bytes, cuts: list[int]) -> object:
    """Requests with bodies, one behind the other, as a kept-alive connection has them. h11 reads them alike."""
    found: list[tuple[Request, bytes]] = []
    error: Exception | None = None
    try:
        _read_requests(reads(data, 1, cuts), LIMITS[data[0] % 2] if data else 0, found)
    except RequestRefused as exc:
        error = exc
    if not cuts:
        ours = [(made.method, made.target, comparable(made.headers), content) for made, content in found]
        theirs = read_by_h11(data[1:])
        # This library rewrites a target in absolute-form, and the Host with it.
        if any("://" in target for _, target, _, _ in theirs):
            return found, said(error)
        assert ours[: len(theirs)] == theirs[: len(ours)]
    return found, said(error)


#: The largest bodies of :func:`requests`.
LIMITS = (2**20, 10)


def _read_requests(pieces: list[bytes], limit: int, found: list[tuple[Request, bytes]]) -> None:
    head, body, content = RequestReader(Options()), None, b""
    made: Request | None = None
    for read in pieces:
        held = read
        while held or (body is not None and body.complete):
            if body is None:
                made = head.receive(held)
                if made is None:
                    break
                body = BodyReader(body_length(made.method, made.version, made.headers), limit)
                held = head.take_rest()
            elif not body.complete:
                content += body.receive(held)
                held = body.rest
            if body.complete and made is not None:
                found.append((made, content))
                head, body, content = RequestReader(Options()), None, b""


def _well_formed(answer: bytes) -> None:
    """No octet of a peer breaks the framing of our response."""
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert not any(set(line) & CONTROLS for line in lines)
    names = [line.partition(b":")[0].decode() for line in lines[1:]]
    ours = {"Connection", "Upgrade", "Allow", "Content-Type", "Retry-After"}
    assert all(name in ours or name.startswith(("Sec-WebSocket-", "WebSocket-")) for name in names), names


def _offer(options: Options) -> Offer:
    """A request with known keys; those of hixie-76 are the example of its draft."""
    fields = {
        "Host": "localhost",
        "Origin": "http://localhost",
        "Sec-WebSocket-Key1": "4 @1  46546xW%0l 1 5",
        "Sec-WebSocket-Key2": "12998 5 Y3 1  .P00",
        "Sec-WebSocket-Protocol": "chat",
        "WebSocket-Protocol": "chat",
    }
    made = Request("GET", "/", Headers(fields))
    set_challenge(made, b"^n:ds[4U")
    return Offer(made, NONCE, options)


def response(data: bytes, cuts: list[int]) -> object:
    """A response to a client, and what is negotiated."""
    how = data[0] if data else 0
    base = TIGHT if how & 1 else Options()
    version = ("13", *LEGACY)[(how >> 1) % 6]
    options = base.replace(version=version, subprotocols=["chat"])
    reader = ResponseReader(options)
    pieces = iter(reads(data, 1, cuts))
    answer = None
    try:
        while answer is None and (read := next(pieces, None)) is not None:
            answer = reader.receive(read)
        answer = answer or reader.partial()
        if answer is None:
            return "incomplete"
        assert len(answer.body) <= max(options.max_refusal, 16)
        if answer.status != 101:
            return answer
        accepted = opening.confirm(_offer(options), answer)
    except InvalidHandshake as error:
        # The error about a response that is not HTTP quotes the octets received so far, which depends on
        # the split.
        return said(error).partition(": it begins with ")[0]
    assert accepted.subprotocol in (None, "chat")
    return answer, reader.rest + b"".join(pieces), accepted.subprotocol, accepted.deflate is not None


def extensions(data: bytes, cuts: list[int]) -> object:
    """The lines of Sec-WebSocket-Extensions: their parameters, and what a server and a client negotiate."""
    lines = data.decode("latin-1").split("\n")
    try:
        parsed = parse_extensions(lines)
    except ValueError as error:
        return said(error)
    narrow = Deflate(server_max_window_bits=9, client_max_window_bits=10, server_no_context_takeover=True)
    agreed = []
    for settings in (Deflate(), narrow):
        accepted = deflate.accept(parsed, settings)
        agreed.append(accepted and accepted[0])
        # A client accepts the response of our server.
        if accepted is not None:
            parse_extensions([accepted[0]])
        try:
            agreed.append(str(deflate.confirm(parsed, settings) is not None))
        except InvalidHandshake as error:
            agreed.append(said(error))
    return parsed, agreed


def uri(data: bytes, cuts: list[int]) -> object:
    """A URI, for example from a redirect."""
    try:
        parsed = parse_uri(data.decode("utf-8", "replace"))
    except ValueError as error:
        return said(error)
    made = opening.offer(parsed.host, parsed.port, parsed.secure, parsed.target, Headers(), TIGHT)
    head = made.request.serialize()
    # A server accepts what a client sends.
    again = RequestReader(Options(max_line=4 * LONGEST)).receive(head)
    assert again is not None
    assert again.target == parsed.target
    return parsed, parsed.authorization


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(frames, inflate, close, connection, request, requests, response, extensions, uri, hixie, hybi),
        *(body, preamble, forwarded),
    )
}
