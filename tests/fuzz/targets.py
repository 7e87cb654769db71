"""What is fuzzed: each parser of a peer's octets, as a function from octets to what it made of them.

A target is given octets, of which the first ones choose its options, and the places at which the
rest of them is cut into reads. It returns what a test can compare, and raises AssertionError
where something does not hold that has to hold for all octets. An exception other than those
that the parser documents is a find too.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
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
from endwell.protocol.heartbeat import HEARTBEAT
from endwell.protocol.uri import parse_uri
from endwell.wire import deflate
from endwell.wire.codec import Codec
from endwell.wire.deflate import PerMessageDeflate
from endwell.wire.extensions import parse_extensions
from endwell.wire.frames import MAX_CONTROL, close_payload, parse_close
from endwell.wire.head import RequestReader, ResponseReader
from endwell.wire.hixie import Hixie
from endwell.wire.hybi import Hybi03
from tests.raw import NONCE
from tests.wire.peer import receive

__all__ = ["TARGETS", "check"]

#: The longest input; what only long ones show is tested elsewhere (tests/wire, tests/hostile).
LONGEST = 4096

SIZES = (2**20, 400, 125, 1)
TIGHT = Options(max_line=60, max_headers=7, max_head=300, max_refusal=5, compression=None)

#: What may stand in no line of a head (RFC 9110 §5.5).
CONTROLS = {*range(9), *range(10, 32), 127}

Target = Callable[[bytes, list[int]], object]


def check(name: str, data: bytes, every: bool = False) -> str:
    """What the target makes of ``data``, which is the same however it is split.

    ``every``: at every single place; else in the whole, octet by octet, and at one place.
    """
    target = TARGETS[name]
    whole = target(data, [])
    places = range(len(data)) if every else [crc32(data) % (len(data) + 1)]
    for cuts in ([place] for place in places):
        split = target(data, cuts)
        assert split == whole, f"cut at {cuts}: {split!r} instead of {whole!r}"
    split = target(data, list(range(len(data))))
    assert split == whole, f"octet by octet: {split!r} instead of {whole!r}"
    return repr(whole)


def _reads(data: bytes, skipped: int, cuts: list[int]) -> list[bytes]:
    """``data`` behind the octets that choose options, in pieces; ``cuts`` count from its start."""
    edges = [skipped, *(cut for cut in cuts if cut > skipped), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def _said(error: Exception | None) -> str:
    """An error, of which nothing may reach a log or a header alive."""
    if error is None:
        return ""
    assert str(error).isprintable(), repr(error)
    assert len(str(error)) < 300
    return f"{type(error).__name__}: {error}"


# -- messages ------------------------------------------------------------------------


def _received(made: Callable[[int], Codec], data: bytes, cuts: list[int]) -> object:
    """The events and the error, the same whether long payloads are read into their room or not.

    ``made(size)`` makes a codec for messages of at most ``size`` bytes.
    """
    size = SIZES[data[0] >> 1 & 3] if data else SIZES[0]
    reads = _reads(data, 1, cuts)
    events, error = receive(made(size), *reads)
    for event in events:
        assert not isinstance(event, Close) or event is events[-1], "something follows a Close"
        assert len(_octets(event)) <= size
    again, same = receive(made(size), *reads, into_room=True)
    assert again == events
    assert (type(same), _said(same)) == (type(error), _said(error))
    if error is not None:
        assert len(error.close.reason.encode()) <= MAX_CONTROL - 2
    return events, _said(error)


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
    # zlib keeps to itself the output of a call that fails: where DEFLATE is corrupt, and what it
    # held before that was too long or no text, the pieces decide which of these is seen.
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
    """Two compressed messages of one connection; the second octet is the size of the first of them."""
    how, size, rest = data[0] if data else 0, data[1] if len(data) > 1 else 0, data[2:]
    limit = (2**20, 1000, 10, 0)[how >> 1 & 3]
    agreed = Deflate(client_max_window_bits=8 + (how >> 4 & 7), client_no_context_takeover=bool(how & 8))
    if agreed.client_max_window_bits < 15:
        # Data that reaches further back than was agreed is found by zlib only if it is no longer
        # at hand, which is a matter of the pieces. With the widest window nothing reaches further.
        cuts = []
    inflater = PerMessageDeflate(agreed, client=False)
    messages: list[bytes] = []
    for start, end in ((0, size), (size, len(rest))):
        message = bytearray()
        pieces = _reads(rest[start:end], 0, [cut - 2 - start for cut in cuts if cut - 2 - start < end])
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
    """The payload of a Close, and what is read out of its reason."""
    try:
        received = parse_close(data[:MAX_CONTROL])
    except PeerError as error:
        return _said(error)
    assert close_payload(received) == data[:MAX_CONTROL]
    assert str(received).isprintable()
    return received, RetryAdvice.parse(received.reason)


def connection(data: bytes, cuts: list[int]) -> object:
    """A whole connection: what it takes, what it answers, how it ends."""
    how = data[0] if data else 0
    client = bool(how & 1)
    options = Options(max_size=400, max_queue=3, ping_interval=None)
    core = Connection(client, options, 0.0)
    core.connected = True
    core.accept(Codec(client, 400), 0.0, control=ControlChannel(HEARTBEAT) if how & 2 else None)
    taken: list[str | bytes] = []
    for read in _reads(data, 1, cuts):
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
        core.handled(0.0)  # the application has taken what came before the Close
    said = b"".join(map(bytes, core.outbox.buffers()))
    core.sent(len(said), 0.0)
    core.tick(100.0)
    core.tick(200.0)  # the deadline of the first tick may have begun another wait
    ending = core.ending
    assert ending is not None, "it has not ended"
    assert str(ending).isprintable()
    # What is said, a peer understands.
    answers, error = receive(Codec(not client), said)
    assert error is None
    assert sum(isinstance(answer, Close) for answer in answers) <= 1
    return taken, answers, ending.cause, ending.received, ending.sent, ending.clean, ending.messages_in


# -- openings ------------------------------------------------------------------------


def request(data: bytes, cuts: list[int]) -> object:
    """A request, what is accepted of it, and the answer."""
    how = data[0] if data else 0
    base = TIGHT if how & 1 else Options()
    options = base.replace(
        legacy=bool(how & 2), origins=["*"] if how & 4 else None, subprotocols=["chat", "constructor"]
    )
    reader = RequestReader(options, ("192.0.2.1", 1), link=bool(how & 8))
    reads = iter(_reads(data, 1, cuts))
    made = None
    try:
        while made is None and (read := next(reads, None)) is not None:
            made = reader.receive(read)
        if made is None:
            return "incomplete"
        rest = reader.take_rest() + b"".join(reads)
        assert made.target.startswith("/")
        assert all(str(text).isprintable() for text in (repr(made), repr(made.path), repr(made.query)))
        accepted = opening.accept(made, options)
    except RequestRefused as error:
        _well_formed(error.response().serialize())
        return made, _said(error)
    answer = accepted.serialize()
    _well_formed(answer)
    return made, rest, answer, accepted.subprotocol, accepted.heartbeat


def _well_formed(answer: bytes) -> None:
    """No octet of a peer has broken our answer apart."""
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert not any(set(line) & CONTROLS for line in lines)
    names = [line.partition(b":")[0].decode() for line in lines[1:]]
    ours = {"Connection", "Upgrade", "Allow", "Content-Type", "Retry-After"}
    assert all(name in ours or name.startswith(("Sec-WebSocket-", "WebSocket-")) for name in names), names


def _offer(options: Options) -> Offer:
    """A request with keys that are known; those of hixie-76 are its draft's own example."""
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
    """An answer to a client, and what is agreed to."""
    how = data[0] if data else 0
    base = TIGHT if how & 1 else Options()
    version = ("13", *LEGACY)[(how >> 1) % 6]
    options = base.replace(version=version, subprotocols=["chat"])
    reader = ResponseReader(options)
    reads = iter(_reads(data, 1, cuts))
    answer = None
    try:
        while answer is None and (read := next(reads, None)) is not None:
            answer = reader.receive(read)
        answer = answer or reader.eof()
        if answer is None:
            return "incomplete"
        assert len(answer.body) <= max(options.max_refusal, 16)
        if answer.status != 101:
            return answer
        accepted = opening.confirm(_offer(options), answer)
    except InvalidHandshake as error:
        # The sentence about an answer that is not HTTP quotes what has come of it, which depends on the split.
        return _said(error).partition(": it begins with ")[0]
    assert accepted.subprotocol in (None, "chat")
    return answer, reader.rest + b"".join(reads), accepted.subprotocol, accepted.deflate is not None


def extensions(data: bytes, cuts: list[int]) -> object:
    """The lines of Sec-WebSocket-Extensions: what they say, what a server and a client agree to."""
    lines = data.decode("latin-1").split("\n")
    try:
        parsed = parse_extensions(lines)
    except ValueError as error:
        return _said(error)
    narrow = Deflate(server_max_window_bits=9, client_max_window_bits=10, server_no_context_takeover=True)
    agreed = []
    for settings in (Deflate(), narrow):
        accepted = deflate.accept(parsed, settings)
        agreed.append(accepted and accepted[0])
        # An answer that a server of ours gives is one that a client may get.
        if accepted is not None:
            parse_extensions([accepted[0]])
        try:
            agreed.append(str(deflate.confirm(parsed, settings) is not None))
        except InvalidHandshake as error:
            agreed.append(_said(error))
    return parsed, agreed


def uri(data: bytes, cuts: list[int]) -> object:
    """A URI, as a redirect may name one."""
    try:
        parsed = parse_uri(data.decode("utf-8", "replace"))
    except ValueError as error:
        return _said(error)
    made = opening.offer(parsed.host, parsed.port, parsed.secure, parsed.target, Headers(), TIGHT)
    head = made.request.serialize()
    # What a client sends, a server takes.
    again = RequestReader(Options(max_line=4 * LONGEST)).receive(head)
    assert again is not None
    assert again.target == parsed.target
    return parsed, parsed.authorization


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (frames, inflate, close, connection, request, response, extensions, uri, hixie, hybi)
}
