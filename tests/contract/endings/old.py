"""The truth table for the protocols before RFC 6455.

hybi-08 is like RFC 6455. hixie-76 has no codes, hixie-75 no Close either.
"""

from __future__ import annotations

from endwell import (
    Cause,
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidData,
    MessageTooBig,
    ProtocolError,
    TcpEnd,
)
from tests.raw import RawPeer, Seen
from tests.wire.peer import TEXT

from .truth import ENDINGS, MAX_SIZE, OURS, End, Report, answers, closes, resets, sends, vanishes

__all__ = ["CLOSING", "OLD", "TRUTH", "TRUTH_OF_OURS"]

OK, ERROR = ConnectionClosedOK, ConnectionClosedError
OLD = ("hybi-08", "hixie-76", "hixie-75")


def _expected(
    cause: Cause,
    clean: bool | None,
    received: Close | None,
    sent: int | None,
    raises: type[ConnectionClosed],
    tcp: TcpEnd = TcpEnd.FIN,
) -> Report:
    """``sent`` is a code that could not be transmitted, or 1005 for the echo of a closing frame."""
    return Report(
        cause,
        cause.initiator,
        clean,
        received,
        sent,
        1006 if received is None and sent is None else 1005,
        1006 if received is None else 1005,
        tcp,
        raises,
        not_transmitted=sent not in (None, 1005),
    )


async def _sends_an_endless_length(peer: RawPeer) -> Seen:
    await peer.write(b"\x80" * 12)
    return await peer.read_to_the_end()


async def _answers_with_fin(peer: RawPeer) -> Seen:
    # em-websocket and txWS do this in hixie-76, and every implementation in hixie-75.
    await peer.read_frame()
    peer.fin()
    return await peer.read_to_the_end()


_BAD, _LONG = sends(TEXT, b"\xc3("), sends(TEXT, b"x" * (MAX_SIZE + 1))
#: Without pings, idle_timeout detects a silent peer.
_IDLE = {"idle_timeout": 0.3}

# fmt: off
#: What a peer or the network can do to both a server and a client.
TRUTH: dict[str, dict[str, End]] = {
    "hybi-08": ENDINGS,
    "hixie-76": {
        "a closing frame": End(closes(None), _expected(Cause.PEER_CLOSED, True, Close(), 1005, OK)),
        "FIN": End(vanishes, _expected(Cause.PEER_VANISHED, False, None, None, ERROR)),
        "RST": End(resets, _expected(Cause.CONNECTION_RESET, False, None, None, ERROR, TcpEnd.RST), ConnectionError),
        "a length without end": End(_sends_an_endless_length, _expected(Cause.PROTOCOL_ERROR, False, None, 1002, ERROR), ProtocolError),
        "bad UTF-8": End(_BAD, _expected(Cause.INVALID_DATA, False, None, 1007, ERROR), InvalidData),
        "message too big": End(_LONG, _expected(Cause.MESSAGE_TOO_BIG, False, None, 1009, ERROR), MessageTooBig),
        "silent peer": End(answers, _expected(Cause.IDLE_TIMEOUT, True, Close(), 1001, OK), options=_IDLE),
    },
    "hixie-75": {
        "a closing frame, as Perl sends it": End(closes(None), _expected(Cause.PEER_CLOSED, None, Close(), 1005, OK)),
        "FIN": End(vanishes, _expected(Cause.PEER_VANISHED, None, None, None, OK)),
        "RST": End(resets, _expected(Cause.CONNECTION_RESET, None, None, None, ERROR, TcpEnd.RST), ConnectionError),
        "a length without end": End(_sends_an_endless_length, _expected(Cause.PROTOCOL_ERROR, None, None, 1002, ERROR), ProtocolError),
        "bad UTF-8": End(_BAD, _expected(Cause.INVALID_DATA, None, None, 1007, ERROR), InvalidData),
        "message too big": End(_LONG, _expected(Cause.MESSAGE_TOO_BIG, None, None, 1009, ERROR), MessageTooBig),
        "silent peer": End(answers, _expected(Cause.IDLE_TIMEOUT, None, None, 1001, OK), options=_IDLE),
    },
}

#: Endings that a server initiates.
TRUTH_OF_OURS: dict[str, dict[str, End]] = {
    "hybi-08": OURS,
    "hixie-76": {
        "handler returns": End(answers, _expected(Cause.HANDLER_RETURNED, True, Close(), 1000, OK)),
        "handler raises": End(answers, _expected(Cause.HANDLER_ERROR, True, Close(), 1011, ERROR)),
        "stop": End(answers, _expected(Cause.SERVER_DRAINED, True, Close(), 1001, OK)),
    },
    "hixie-75": {
        "handler returns": End(answers, _expected(Cause.HANDLER_RETURNED, None, None, 1000, OK)),
        "handler raises": End(answers, _expected(Cause.HANDLER_ERROR, None, None, 1011, ERROR)),
        "stop": End(answers, _expected(Cause.SERVER_DRAINED, None, None, 1001, OK)),
    },
}

#: The Close that we send, the action of the peer, and the ending reported to the application.
CLOSING: dict[str, dict[str, tuple[tuple[int, str], End]]] = {
    "hixie-76": {
        "1000": ((1000, ""), End(answers, _expected(Cause.APP_CLOSED, True, Close(), 1000, OK))),
        "4001": ((4001, "why"), End(answers, _expected(Cause.APP_CLOSED, True, Close(), 4001, ERROR))),
        "1000, and FIN is the answer": ((1000, ""), End(_answers_with_fin, _expected(Cause.APP_CLOSED, False, None, 1000, ERROR))),
    },
    "hixie-75": {
        "1000": ((1000, ""), End(answers, _expected(Cause.APP_CLOSED, None, None, 1000, OK))),
        "4001": ((4001, "why"), End(answers, _expected(Cause.APP_CLOSED, None, None, 4001, ERROR))),
    },
}
# fmt: on
