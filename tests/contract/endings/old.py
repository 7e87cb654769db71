"""The truth table for the protocols before RFC 6455.

In hybi-08 all is as in RFC 6455. In hixie-76 the codes are missing, in hixie-75 the Close too.
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

from .truth import ENDINGS, MAX_SIZE, OURS, End, Told, answers, closes, resets, sends, vanishes

__all__ = ["CLOSING", "OLD", "TRUTH", "TRUTH_OF_OURS"]

OK, ERROR = ConnectionClosedOK, ConnectionClosedError
OLD = ("hybi-08", "hixie-76", "hixie-75")


def _told(
    cause: Cause,
    clean: bool | None,
    received: Close | None,
    sent: int | None,
    raises: type[ConnectionClosed],
    tcp: TcpEnd = TcpEnd.FIN,
) -> Told:
    """``sent`` is a code that could not be said, or 1005 for the echo of a closing frame."""
    return Told(
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
    # As em-websocket and txWS do in hixie-76, and everybody in hixie-75.
    await peer.read_frame()
    peer.fin()
    return await peer.read_to_the_end()


_BAD, _LONG = sends(TEXT, b"\xc3("), sends(TEXT, b"x" * (MAX_SIZE + 1))
#: There are no pings to find out by.
_IDLE = {"idle_timeout": 0.3}

# fmt: off
#: What a peer, or the network, can do to a server and to a client alike.
TRUTH: dict[str, dict[str, End]] = {
    "hybi-08": ENDINGS,
    "hixie-76": {
        "a closing frame": End(closes(None), _told(Cause.PEER_CLOSED, True, Close(), 1005, OK)),
        "FIN": End(vanishes, _told(Cause.PEER_VANISHED, False, None, None, ERROR)),
        "RST": End(resets, _told(Cause.CONNECTION_RESET, False, None, None, ERROR, TcpEnd.RST), ConnectionError),
        "a length without end": End(_sends_an_endless_length, _told(Cause.PROTOCOL_ERROR, False, None, 1002, ERROR), ProtocolError),
        "bad UTF-8": End(_BAD, _told(Cause.INVALID_DATA, False, None, 1007, ERROR), InvalidData),
        "message too big": End(_LONG, _told(Cause.MESSAGE_TOO_BIG, False, None, 1009, ERROR), MessageTooBig),
        "silent peer": End(answers, _told(Cause.IDLE_TIMEOUT, True, Close(), 1001, OK), options=_IDLE),
    },
    "hixie-75": {
        "a closing frame, as Perl sends it": End(closes(None), _told(Cause.PEER_CLOSED, None, Close(), 1005, OK)),
        "FIN": End(vanishes, _told(Cause.PEER_VANISHED, None, None, None, OK)),
        "RST": End(resets, _told(Cause.CONNECTION_RESET, None, None, None, ERROR, TcpEnd.RST), ConnectionError),
        "a length without end": End(_sends_an_endless_length, _told(Cause.PROTOCOL_ERROR, None, None, 1002, ERROR), ProtocolError),
        "bad UTF-8": End(_BAD, _told(Cause.INVALID_DATA, None, None, 1007, ERROR), InvalidData),
        "message too big": End(_LONG, _told(Cause.MESSAGE_TOO_BIG, None, None, 1009, ERROR), MessageTooBig),
        "silent peer": End(answers, _told(Cause.IDLE_TIMEOUT, None, None, 1001, OK), options=_IDLE),
    },
}

#: What a server does by itself.
TRUTH_OF_OURS: dict[str, dict[str, End]] = {
    "hybi-08": OURS,
    "hixie-76": {
        "handler returns": End(answers, _told(Cause.HANDLER_RETURNED, True, Close(), 1000, OK)),
        "handler raises": End(answers, _told(Cause.HANDLER_ERROR, True, Close(), 1011, ERROR)),
        "stop": End(answers, _told(Cause.SERVER_DRAINED, True, Close(), 1001, OK)),
    },
    "hixie-75": {
        "handler returns": End(answers, _told(Cause.HANDLER_RETURNED, None, None, 1000, OK)),
        "handler raises": End(answers, _told(Cause.HANDLER_ERROR, None, None, 1011, ERROR)),
        "stop": End(answers, _told(Cause.SERVER_DRAINED, None, None, 1001, OK)),
    },
}

#: What we close with, what the peer does then, and what is told.
CLOSING: dict[str, dict[str, tuple[tuple[int, str], End]]] = {
    "hixie-76": {
        "1000": ((1000, ""), End(answers, _told(Cause.APP_CLOSED, True, Close(), 1000, OK))),
        "4001": ((4001, "why"), End(answers, _told(Cause.APP_CLOSED, True, Close(), 4001, ERROR))),
        "1000, and FIN is the answer": ((1000, ""), End(_answers_with_fin, _told(Cause.APP_CLOSED, False, None, 1000, ERROR))),
    },
    "hixie-75": {
        "1000": ((1000, ""), End(answers, _told(Cause.APP_CLOSED, None, None, 1000, OK))),
        "4001": ((4001, "why"), End(answers, _told(Cause.APP_CLOSED, None, None, 4001, ERROR))),
    },
}
# fmt: on
