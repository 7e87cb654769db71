"""How a connection ends in the protocols before RFC 6455: no codes in hixie-76, no Close at all in hixie-75."""

from __future__ import annotations

import errno

import pytest

from endwell.ending import Cause, Close, Ending, Initiator, TcpEnd
from endwell.errors import InvalidData, MessageTooBig, UnsupportedByProtocol
from endwell.options import Options
from endwell.protocol.closing import State
from endwell.protocol.connection import Connection
from endwell.protocol.deadline import NEVER
from endwell.wire.codec import Codec
from endwell.wire.hixie import Hixie
from endwell.wire.hybi import Hybi03

CLOSE = b"\xff\0"
ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


def opened(client: bool, codec: Codec, **options: object) -> Connection:
    core = Connection(client, Options(**options), 0.0)
    core.connected = True
    core.accept(codec, 0.0)
    return core


def hixie76(client: bool, **options: object) -> Connection:
    return opened(client, Hixie(client, max_size=10), **options)


def hixie75(client: bool, **options: object) -> Connection:
    return opened(client, Hixie(client, max_size=10, has_close=False), **options)


BOTH = pytest.mark.parametrize("old", [hixie76, hixie75])


def drain_outbox(core: Connection) -> bytes:
    data = b"".join(core.outbox.buffers())
    if data:
        core.sent(len(data), 0.0)
    return data


def summary(ending: Ending) -> tuple[object, ...]:
    return ending.cause, ending.initiator, ending.clean, ending.received, ending.sent, ending.code, ending.tcp


# -- hixie-76 -----------------------------------------------------------------------------


@ROLES
def test_hixie_76_closes_with_a_handshake_without_codes(client):
    core = hixie76(client)
    core.send("bye", 1.0)
    core.close(Close(4001, "why"), 1.0)
    assert drain_outbox(core) == b"\0bye\xff" + CLOSE
    assert core.state is State.CLOSING
    core.receive(b"\0late\xff" + CLOSE, 2.0)
    assert list(core.inbox) == ["late"]
    assert core.half_close is not client
    core.eof(3.0)
    not_transmitted = Close(4001, "why", not_transmitted=True)
    assert summary(core.ending) == (
        Cause.APP_CLOSED,
        Initiator.LOCAL,
        True,
        Close(),
        not_transmitted,
        1005,
        TcpEnd.FIN,
    )
    assert core.ending.reason == ""


@ROLES
def test_hixie_76_answers_a_close(client):
    core = hixie76(client)
    core.receive(b"\0hi\xff" + CLOSE, 1.0)
    assert drain_outbox(core) == b""
    assert core.inbox.popleft() == "hi"
    core.handled(1.0)
    assert drain_outbox(core) == CLOSE
    assert core.half_close is not client
    core.eof(2.0)
    assert summary(core.ending) == (
        Cause.PEER_CLOSED,
        Initiator.PEER,
        True,
        Close(),
        Close(),
        1005,
        TcpEnd.FIN,
    )
    assert core.ending.ok


@ROLES
def test_in_hixie_76_only_a_server_ends_tcp_before_the_answer(client):
    core = hixie76(client)
    core.close(Close(1001, ""), 1.0)
    assert drain_outbox(core) == CLOSE
    assert core.half_close is not client
    # PhantomJS 1.9 ignores the closing frame like this, and ends TCP when we do.
    core.eof(2.0)
    assert core.ending.clean is False
    assert (core.ending.sent, core.ending.tcp) == (Close(1001, "", not_transmitted=True), TcpEnd.FIN)


@ROLES
def test_a_close_without_a_code_is_transmitted_whole(client):
    core = hixie76(client)
    core.close(Close(None, ""), 1.0)
    assert drain_outbox(core) == CLOSE
    core.receive(CLOSE, 2.0)
    core.eof(2.0)
    assert core.ending.sent == Close(not_transmitted=False)


@ROLES
def test_hixie_76_without_an_answer_is_not_clean(client):
    # em-websocket and txWS end TCP instead.
    core = hixie76(client)
    core.close(Close(1000, ""), 1.0)
    drain_outbox(core)
    core.eof(2.0)
    assert (core.ending.clean, core.ending.code, core.ending.ok) == (False, 1005, False)


@ROLES
def test_a_handler_error_is_an_error_although_no_code_is_sent(client):
    core = hixie76(client)
    core.close(Close(1011, ""), 1.0, Cause.HANDLER_ERROR)
    drain_outbox(core)
    core.receive(CLOSE, 2.0)
    core.eof(2.0)
    assert (core.ending.clean, core.ending.code, core.ending.ok) == (True, 1005, False)


# -- hixie-75 -----------------------------------------------------------------------------


@ROLES
def test_hixie_75_closes_by_ending_tcp_in_either_role(client):
    core = hixie75(client)
    core.send("bye", 1.0)
    core.close(Close(4001, "why"), 1.0)
    assert drain_outbox(core) == b"\0bye\xff"
    assert core.half_close
    core.receive(b"\0late\xff", 2.0)
    core.eof(3.0)
    not_transmitted = Close(4001, "why", not_transmitted=True)
    assert summary(core.ending) == (
        Cause.APP_CLOSED,
        Initiator.LOCAL,
        None,
        None,
        not_transmitted,
        1005,
        TcpEnd.FIN,
    )
    assert not core.ending.ok  # 4001 is not a clean code


@ROLES
def test_the_end_of_tcp_is_a_clean_end_in_hixie_75(client):
    core = hixie75(client)
    core.eof(1.0)
    assert summary(core.ending) == (
        Cause.PEER_VANISHED,
        Initiator.NETWORK,
        None,
        None,
        None,
        1006,
        TcpEnd.FIN,
    )
    assert core.ending.ok


@ROLES
def test_a_closing_frame_in_hixie_75_is_answered_for_perl(client):
    core = hixie75(client)
    core.receive(CLOSE, 1.0)
    assert drain_outbox(core) == CLOSE
    assert core.half_close
    core.eof(2.0)
    assert summary(core.ending) == (
        Cause.PEER_CLOSED,
        Initiator.PEER,
        None,
        Close(),
        Close(),
        1005,
        TcpEnd.FIN,
    )


@ROLES
def test_a_peer_that_keeps_tcp_open_is_aborted_after_close_timeout(client):
    core = hixie75(client, close_timeout=3)
    core.close(Close(1000, ""), 1.0)
    drain_outbox(core)
    core.tick(4.0)
    assert (core.ended, core.ending.tcp, core.ending.ok) == (True, TcpEnd.TIMEOUT, False)


# -- both -----------------------------------------------------------------------------------


@BOTH
@ROLES
@pytest.mark.parametrize(
    ("octets", "cause", "error"),
    [
        (b"\0" + b"x" * 11, Cause.MESSAGE_TOO_BIG, MessageTooBig),
        (b"\x80\xff\xff\xff\x7f", Cause.MESSAGE_TOO_BIG, MessageTooBig),
        (b"\0\xc3(\xff", Cause.INVALID_DATA, InvalidData),
    ],
)
def test_a_protocol_error_keeps_the_code_that_could_not_be_sent(old, client, octets, cause, error):
    core = old(client)
    core.receive(b"\0good\xff" + octets, 1.0)
    assert list(core.inbox) == ["good"]
    core.tick(1.01)
    assert drain_outbox(core) == (CLOSE if old is hixie76 else b"")
    core.receive(b"\0ignored\xff", 2.0)
    core.eof(2.0)
    ending = core.ending
    assert (ending.cause, ending.sent.code, ending.sent.not_transmitted) == (cause, cause.close_code, True)
    assert isinstance(ending.exception, error)
    assert (ending.clean, ending.ok, ending.messages_in) == (False if old is hixie76 else None, False, 1)


@BOTH
@ROLES
def test_a_reset_is_an_error(old, client):
    core = old(client)
    core.lost(ConnectionResetError(errno.ECONNRESET, "reset"), 1.0)
    assert (core.ending.cause, core.ending.tcp, core.ending.ok) == (Cause.CONNECTION_RESET, TcpEnd.RST, False)


@BOTH
@ROLES
def test_without_pings_no_peer_times_out(old, client):
    core = old(client, ping_interval=1, ping_timeout=1)
    assert core.deadline == NEVER
    core.tick(1000.0)
    assert core.is_open
    with pytest.raises(UnsupportedByProtocol, match="no pings"):
        core.ping(None, 1000.0)
    assert not core.outbox.size


@BOTH
@ROLES
def test_idle_timeout_bounds_a_silent_peer(old, client):
    core = old(client, idle_timeout=5)
    core.tick(5.0)
    drain_outbox(core)
    core.eof(6.0)
    assert (core.ending.cause, core.ending.sent) == (
        Cause.IDLE_TIMEOUT,
        Close(1001, Cause.IDLE_TIMEOUT.meaning, not_transmitted=True),
    )


@BOTH
@ROLES
def test_bytes_are_refused_and_the_connection_stays_open(old, client):
    core = old(client)
    with pytest.raises(UnsupportedByProtocol, match="message must be a str"):
        core.send(b"x", 1.0)
    assert not core.outbox.size
    assert core.send("x" * 20_000, 1.0)
    assert drain_outbox(core) == b"\0" + b"x" * 20_000 + b"\xff"
    assert core.is_open


# -- hybi-03 --------------------------------------------------------------------------------


@ROLES
def test_hybi_03_has_pings_and_binary_messages_and_no_codes(client):
    core = opened(client, Hybi03(client), ping_interval=1, ping_timeout=1)
    core.tick(1.0)
    payload = core.last_payload
    assert drain_outbox(core) == b"\x02\x04" + payload
    core.receive(b"\x03\x04" + payload + b"\x02\x01p" + b"\x05\x02\0\xff", 1.5)
    assert core.latency == 0.5
    assert list(core.inbox) == [b"\0\xff"]
    assert drain_outbox(core) == b"\x03\x01p"
    core.close(Close(4001, "why"), 2.0)
    assert drain_outbox(core) == b"\x01\0"
    core.receive(b"\x01\0", 2.0)
    core.eof(2.0)
    assert (core.ending.clean, core.ending.sent) == (True, Close(4001, "why", not_transmitted=True))
