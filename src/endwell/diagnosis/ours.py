"""This side ended the connection: the cause says why, the numbers and the exception say more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..codes import CloseCode
from ..ending import Cause, Initiator, TcpEnd
from ..errors import UNAVAILABLE
from .case import Case, Clues, Rule, counted, were

__all__ = ["RULES"]

#: Codes that libsoup, the network library of WebKitGTK, does not know.
WEBKIT_REFUSES = (CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER, CloseCode.BAD_GATEWAY)
#: Causes after which the peer should answer the Close.
ASKING = frozenset(
    cause
    for cause in Cause
    if cause.initiator is Initiator.LOCAL
    and cause.close_code is not None
    and cause
    not in (
        Cause.KEEPALIVE_TIMEOUT,
        Cause.WRITE_TIMEOUT,
        Cause.PROTOCOL_ERROR,
        Cause.INVALID_DATA,
        Cause.MESSAGE_TOO_BIG,
    )
)


def _closed(case: Case) -> str:
    sent = case.sent
    if sent is None:
        return f"this side ended the connection, {case.duration:.1f} s after it was opened"
    reason = f" and the reason {sent.reason!r}" if sent.reason else ""
    code = "no code" if sent.code is None else f"the code {int(sent.code)}"
    return f"this side closed with {code}{reason}, {case.duration:.1f} s after the opening"


def _plain(case: Case) -> Clues:
    yield 3, _closed(case)


def _without_bus(case: Case) -> bool:
    sent = case.sent
    return sent is not None and sent.code == CloseCode.TRY_AGAIN_LATER and sent.reason == UNAVAILABLE


def _raised(case: Case) -> Clues:
    if not _without_bus(case):
        yield 3, _closed(case)


def _unavailable(case: Case) -> Clues:
    if _without_bus(case):
        yield 3, _closed(case)


def _error(case: Case) -> Clues:
    yield 3, _closed(case)
    if case.error:
        yield 1, f"the check of the frames reported {case.error!r}"


def _first_bytes(case: Case) -> Clues:
    if case.counted and not case.ending.messages_in:
        yield 5, f"the error was in the first {counted(case.ending.bytes_in, 'byte')}, before any message"


def _later(case: Case) -> Clues:
    if case.counted and case.ending.messages_in:
        yield 5, f"{were(case.ending.messages_in, 'message')} right before that"


def _corrupt(case: Case) -> Clues:
    if case.errs("compress", "RSV1"):
        yield 6, f"the check of the frames reported {case.error!r}"


def _early(case: Case) -> Clues:
    # The duration includes the closing handshake, for which a peer may need a second.
    if case.duration < 2 and case.counted and not case.ending.messages_in:
        yield 4, f"no message was received, and the connection lasted only {case.duration:.1f} s"


def _slow(case: Case) -> Clues:
    yield 3, _closed(case)
    if case.unsent:
        yield 1, f"{were(case.unsent, 'byte')} waiting that the peer had not taken"
    if case.counted and case.duration > 0:
        rate = case.ending.bytes_out / case.duration
        yield 1, f"{were(case.ending.messages_out, 'message')} sent, {rate:,.0f} bytes per second"


def _idle(case: Case) -> Clues:
    yield 3, _closed(case)
    if case.counted:
        came, went = case.ending.messages_in, case.ending.messages_out
        yield 1, f"in {case.duration:.1f} s, {counted(came, 'message')} came and {went:,} went"


def _limit(case: Case) -> Clues:
    yield from _error(case)
    if case.counted and case.duration > 0:
        rate = case.ending.messages_in / case.duration
        yield 1, f"{counted(case.ending.messages_in, 'message')} came, {rate:,.1f} per second"
    if case.ending.dropped_messages:
        yield 1, f"{were(case.ending.dropped_messages, 'message')} dropped"


def _unanswered(case: Case) -> Clues:
    if case.tcp is TcpEnd.TIMEOUT and case.received is None:
        yield 2, "the peer did not answer the Close within close_timeout"
        if case.unsent:
            yield 1, f"{counted(case.unsent, 'byte')} before the Close could not be sent"


def _no_answer(case: Case) -> Clues:
    if case.sent and case.received is None and case.tcp in (TcpEnd.FIN, TcpEnd.RST) and not case.ending.clean:
        end = "FIN" if case.tcp is TcpEnd.FIN else "a reset"
        yield 2, f"the peer answered the Close with {end} instead of a Close"


def _webkit(case: Case) -> Clues:
    if case.code == CloseCode.PROTOCOL_ERROR and case.sent and case.sent.code in WEBKIT_REFUSES:
        yield 4, f"this side closed with {int(case.sent.code)}, and the peer answered with 1002"


def _open(case: Case) -> Clues:
    if case.tcp is TcpEnd.OPEN:
        yield 2, "TCP was still open linger_timeout after the last Close"


class _Meaning(NamedTuple):
    says: str
    advice: str
    clues: Callable[[Case], Clues] = _plain


#: What each cause of this side means for an operator.
BY_CAUSE: Mapping[Cause, _Meaning] = {
    Cause.APP_CLOSED: _Meaning(
        "the application of this side called close(), or left the `async with` or `with` block of the connection",
        "nothing, if it was meant; the code and the reason tell which call it was. An exception in the block "
        "closes, too",
    ),
    Cause.HANDLER_RETURNED: _Meaning("the handler of this side returned", "nothing, if it was meant"),
    Cause.HANDLER_ERROR: _Meaning(
        "the handler of this side raised an exception",
        "the log has the traceback, shortly before the end: the logger endwell.server, with the path and the "
        "address; of an ASGI application under uvicorn, the logger uvicorn.error",
        _raised,
    ),
    Cause.SERVER_DRAINED: _Meaning(
        "this server was stopped: a deploy, SIGTERM, a worker that was replaced",
        "nothing: clients reconnect. Drain's window and deadline decide how fast, and the log has the report",
    ),
    Cause.SHED: _Meaning(
        "this server was asked to move a share of its connections to other servers",
        "nothing: the client reconnects, and the balancer chooses the server",
    ),
    Cause.AUTH_EXPIRED: _Meaning(
        "the authorization ended, and the client had sent no new token by then",
        "give the client a function as token: it is asked for a new one at 80 % of the token's life. Check the "
        "clocks of the machines if tokens live shorter than expected",
    ),
    Cause.AUTH_REFUSED: _Meaning(
        "the accept function refused the new token of the client",
        "look at what issues the tokens: the key, the audience, the subject and the clock",
    ),
    Cause.AUTH_REVOKED: _Meaning(
        "the application revoked the authorization of this user", "nothing, if revoke() was meant"
    ),
    Cause.REPLACED: _Meaning(
        "a newer connection of the same user or client took over: a reload, a second tab or device",
        "nothing; to allow several connections of one user, change how the application uses sessions",
    ),
    Cause.INVALID_DATA: _Meaning(
        "the peer sent text that is not UTF-8, mostly binary data as a text message",
        "let the peer send bytes as a binary message",
        _error,
    ),
    Cause.MESSAGE_TOO_BIG: _Meaning(
        "a message of the peer is above max_size of this side",
        "raise max_size of the route or the server, or let the peer send smaller messages",
        _error,
    ),
    Cause.POLICY_LIMIT: _Meaning(
        "the peer exceeded a limit of this side, mostly a Limit of messages or bytes per second",
        "raise the limit if the client is a good one; let the excess wait (excess) instead of closing",
        _limit,
    ),
    Cause.SLOW_PEER: _Meaning(
        "the peer takes messages slower than they are sent to it",
        "send less to slow peers (drop or combine messages), or raise the limit of their queue; look at the "
        "network and the CPU of the peer",
        _slow,
    ),
    Cause.ROOM_GAP: _Meaning(
        "messages of a room were lost for this process, and the membership asked to be closed then",
        "look at the bus in the log of endwell.rooms; the client reconnects and loads what it missed",
    ),
    Cause.IDLE_TIMEOUT: _Meaning(
        "no message for idle_timeout or stale_after",
        "raise the option if quiet connections are normal; otherwise look at why the peer sends nothing",
        _idle,
    ),
    Cause.LIFETIME_REACHED: _Meaning(
        "the connection reached max_lifetime", "nothing: the client reconnects within a second"
    ),
    Cause.CANCELLED: _Meaning(
        "the task that held the connection was cancelled: a timeout around it, a failed TaskGroup, the end of "
        "the program",
        "look for asyncio.timeout() and TaskGroup around the connection",
    ),
}

RULES = (
    *(
        Rule(cause.value, frozenset({cause}), meaning.says, meaning.advice, meaning.clues)
        for cause, meaning in BY_CAUSE.items()
    ),
    Rule(
        "bus_unavailable",
        frozenset({Cause.HANDLER_ERROR}),
        "the bus of the rooms was away, and the handler of this side did not catch BusUnavailable",
        "look at the bus in the log of endwell.rooms; the client reconnects later. A handler that catches "
        "BusUnavailable keeps its connection",
        _unavailable,
    ),
    Rule(
        "handler_returned_early",
        frozenset({Cause.HANDLER_RETURNED}),
        "the handler returned at once: it does not wait for messages",
        "receive in a loop (async for message in ws), or wait with ws.wait_closed() for as long as the "
        "connection should live",
        _early,
    ),
    Rule(
        "not_a_websocket_peer",
        frozenset({Cause.PROTOCOL_ERROR}),
        "the peer does not speak WebSocket, or a proxy writes something else into the connection",
        "look at the address; log the frames (logger endwell.wire) or capture the bytes on both sides of a proxy",
        _first_bytes,
    ),
    Rule(
        "peer_broke_the_protocol",
        frozenset({Cause.PROTOCOL_ERROR}),
        "an error in the peer's library, often two threads or tasks that write at the same time",
        "give the reason to the peer's developers: it names the rule of RFC 6455",
        _later,
    ),
    Rule(
        "compression_broken",
        frozenset({Cause.PROTOCOL_ERROR}),
        "the peer or a proxy handles compression wrongly",
        "try without compression (compression=None); a proxy must not alter Sec-WebSocket-Extensions",
        _corrupt,
    ),
    Rule(
        "protocol_error",
        frozenset({Cause.PROTOCOL_ERROR}),
        "the peer broke a rule of the protocol",
        "give the reason to the peer's developers: it names the rule of RFC 6455",
        _error,
    ),
    Rule(
        "webkit_refuses_the_code",
        ASKING,
        "the peer is WebKit, which takes the codes 1012, 1013 and 1014 for an error",
        "close pages with 1001 or a code of 4000 to 4999; the page itself sees 1006",
        _webkit,
    ),
    Rule(
        "close_not_answered",
        ASKING,
        "the peer did not answer the Close: it does not read, it is gone, or its network is",
        "nothing for single connections. If it is usual, look for peers that stopped reading, and check that "
        "ping_interval and ping_timeout are set",
        _unanswered,
    ),
    Rule(
        "closed_without_an_answer",
        ASKING,
        "the peer ended TCP instead of answering the Close: its program ended, or does not do the closing handshake",
        "nothing, if the peer is a program that ends at the same time; messages sent last may be lost",
        _no_answer,
    ),
    Rule(
        "tcp_left_open",
        frozenset(Cause),
        "the peer, or a proxy, did not end TCP after the closing handshake",
        "nothing: the server reads on until close_timeout. Proxies that keep half-open connections do this",
        _open,
    ),
)
