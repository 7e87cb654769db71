"""The peer sent a Close: what its code and its reason say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from ..advice import RetryAdvice
from ..codes import CloseCode, describe
from ..ending import Cause, TcpEnd
from .case import Case, Clues, Rule, counted, were

__all__ = ["RULES"]

CLOSED = frozenset({Cause.PEER_CLOSED})
#: 1001 has two meanings, and 4990 is endwell's code for the first one.
LEFT = (CloseCode.GOING_AWAY, CloseCode.PAGE_LEFT)
RESTART = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)
#: Parts of the reasons with which libraries report that keepalive ended the connection.
KEEPALIVE = ("keepalive ping timeout", "did not answer a ping", "ping timed out", "pong", "heartbeat")
#: Texts of the reasons that an endwell peer sends of its own accord.
MEANINGS = {cause.meaning for cause in Cause if cause.close_code is not None}


def _said(case: Case) -> str:
    """The received Close as a sentence; the reason is escaped."""
    reason = f" and the reason {case.reason!r}" if case.reason else " and no reason"
    return (
        f"the peer closed with {case.code}{reason}" if case.code != 1005 else "the peer's Close had no code"
    )


def _text(case: Case) -> str:
    """The reason without the advice."""
    return case.reason.partition("; retry ")[0] if RetryAdvice.parse(case.reason) else case.reason


def _keepalive(case: Case) -> Clues:
    if any(text in case.reason.lower() for text in KEEPALIVE):
        yield 8, _said(case)
        if case.stalled:
            yield 1, f"this process did not run for {case.stalled:.1f} s before the end"
        if case.latency is not None:
            yield (
                1,
                f"the last ping that was answered took {case.latency * 1000:.0f} ms in the other direction",
            )


def _page_left(case: Case) -> Clues:
    if case.code not in LEFT:
        return
    other = case.role == "client" or RetryAdvice.parse(case.reason) or _text(case) in MEANINGS
    if case.code == CloseCode.GOING_AWAY and other:
        return
    yield 4, _said(case)
    if case.code == CloseCode.PAGE_LEFT:
        yield 2, "endwell.js sends this code when a page is left or hidden"
    elif "suspension" in case.reason:
        yield 2, "WebKit gives this reason when it keeps a page that was left in its cache"
    elif "killed" in case.reason:
        yield 2, "Firefox gives this reason when the process of a tab ends"
    elif not case.reason:
        yield 1, "browsers give no reason"
    if case.tcp is TcpEnd.RST or case.ending.clean is False:
        yield 1, "the peer did not wait for the answer, as Chromium does at a reload and a closed tab"


def _stopping(case: Case) -> Clues:
    advice = RetryAdvice.parse(case.reason)
    from_client = case.role == "server" and case.code == CloseCode.GOING_AWAY and not advice
    other = _text(case) in MEANINGS - {Cause.SERVER_DRAINED.meaning, Cause.SHED.meaning}
    if case.code not in RESTART or from_client or other:
        return
    if advice:
        yield 7, f"{_said(case)}, which advises to reconnect after {advice.earliest} to {advice.latest} s"
    elif case.code == CloseCode.SERVICE_RESTART or "server" in case.reason.lower():
        yield 6, _said(case)
    elif case.role == "client":
        yield 5, f"{_said(case)}, and this side is the client"
    else:
        yield 2, f"{_said(case)}: a server that stops sends it, too"


def _peer_is_endwell(case: Case) -> Clues:
    if _text(case) in MEANINGS and case.reason:
        yield 6, f"{_said(case)}: the words of endwell for this cause"


def _as_http(case: Case) -> Clues:
    code = case.code or 0
    if 4400 <= code < 4600 and code - 4000 in {status.value for status in HTTPStatus}:
        phrase = HTTPStatus(code - 4000).phrase
        yield (
            5,
            f"{_said(case)}: many applications add 4000 to an HTTP status, and {code - 4000} is {phrase!r}",
        )


def _too_big(case: Case) -> Clues:
    if case.code != CloseCode.MESSAGE_TOO_BIG:
        return
    yield 5, _said(case)
    if case.counted and case.ending.messages_out:
        mean = case.ending.bytes_out // case.ending.messages_out
        messages = were(case.ending.messages_out, "message")
        yield 1, f"{messages} sent, of {mean:,} bytes on average, after compression"


def _we_broke(case: Case) -> Clues:
    if case.code != CloseCode.PROTOCOL_ERROR:
        return
    yield 5, _said(case)
    if case.counted:
        yield 1, f"before that, {counted(case.ending.messages_out, 'message')} had been sent"


def _code(code: int, case: Case) -> Clues:
    if case.code == code:
        yield 3, _said(case)


def _application_code(case: Case) -> Clues:
    if case.code is not None and case.code >= 3000 and not isinstance(describe(case.code), CloseCode):
        yield 4, _said(case)


def _without_close(case: Case) -> Clues:
    if case.received is None:
        yield 3, "the protocol of this connection has no Close, or the record does not tell it"


def _by_code(code: CloseCode) -> Rule:
    clues: Callable[[Case], Clues] = partial(_code, int(code))
    return Rule(f"peer_sent_{code.name.lower()}", CLOSED, code.usual, code.advice, clues)


#: The codes for which the table of the codes says all.
PLAIN = [code for code in CloseCode if code.may_receive and code not in (*LEFT, *RESTART, 1002, 1009)]

RULES = (
    Rule(
        "peer_missed_pongs",
        CLOSED,
        "the peer's keepalive: it got no pong from this side in time",
        'search the log of this side for "the event loop was stalled" and "this machine slept"; otherwise the '
        "network or a proxy lost the pings. Raise the peer's ping timeout if such delays are normal",
        _keepalive,
    ),
    Rule(
        "server_stopping",
        CLOSED,
        "the server stops or is restarted: a deploy, a drain, a worker that is replaced",
        "nothing: a client reconnects after the advised time, or after a short random one",
        _stopping,
    ),
    Rule(
        "page_left",
        CLOSED,
        "a user reloaded, closed or left the page",
        "nothing: this is an ordinary ending. Wait a little before treating the user as gone, because a reloaded "
        "page reconnects at once",
        _page_left,
    ),
    Rule(
        "peer_reports_its_cause",
        CLOSED,
        "the peer is endwell, and its own Ending has the cause that the reason names",
        "look the Ending up in the peer's log, and give it to endwell why",
        _peer_is_endwell,
    ),
    Rule(
        "application_code_of_http",
        CLOSED,
        "the peer's application closed with a code made from an HTTP status",
        "treat it like this HTTP status: 401 and 403 need another login, 429 and 5xx a later attempt",
        _as_http,
    ),
    Rule(
        "message_too_big_for_peer",
        CLOSED,
        "a message of this side is above the peer's limit",
        "send smaller messages, or raise the limit of the peer: 1 MiB in endwell and websockets (max_size), "
        "4 MiB in aiohttp (max_msg_size), 16 MiB in uvicorn (--ws-max-size)",
        _too_big,
    ),
    Rule(
        "this_side_broke_the_protocol",
        CLOSED,
        "the peer found an error in what this side sent, or a proxy altered the bytes",
        "read the reason: Chromium and endwell name the rule. Log the frames (logger endwell.wire) or capture the "
        "bytes on both sides of a proxy; try without compression",
        _we_broke,
    ),
    Rule(
        "application_code",
        CLOSED,
        "an ending that the peer's application or its library defined",
        "look the code up in the peer's application; libraries register theirs between 3000 and 3999",
        _application_code,
    ),
    Rule(
        "closed_by_peer",
        CLOSED,
        "the peer closed",
        "nothing, if the application expects it",
        _without_close,
    ),
    *map(_by_code, PLAIN),
    Rule(
        "page_closed_without_code",
        CLOSED,
        "the peer's program closed without a code: close() of a page without arguments, or a library that sends "
        "none",
        "nothing: the closing handshake was done. To know more, let the peer give a code and a reason",
        partial(_code, 1005),
    ),
)
