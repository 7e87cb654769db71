"""The likely causes of endings, from the fields of the record alone."""

import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell import Cause, Close, CloseCode, Ending, Initiator, InvalidHandshake, TcpEnd
from endwell.diagnosis import RULES, diagnose
from endwell.diagnosis.network import IDLE_TIMEOUTS
from endwell.errors import UNAVAILABLE

USED = {"messages_in": 10, "messages_out": 20, "bytes_in": 1000, "bytes_out": 4000}
SENTENCE = {"cause", "initiator", "clean", "received", "sent", "exception", "duration", "stalled"}


def ending(cause, clean=False, **fields):
    return Ending(cause=cause, initiator=cause.initiator, clean=clean, **fields)


def peer_closed(code=None, reason="", **fields):
    return ending(
        Cause.PEER_CLOSED, received=Close(code, reason), sent=Close(code), **{"clean": True, **fields}
    )


def closed(cause, **fields):
    return ending(cause, **{"sent": Close(cause.close_code, cause.meaning), **fields})


def names(end, **context):
    return [each.name for each in diagnose(end, **context)]


def first(end, **context):
    return diagnose(end, **context)[0]


VANISHED, RESET, SILENT = Cause.PEER_VANISHED, Cause.CONNECTION_RESET, Cause.KEEPALIVE_TIMEOUT
RST = {"tcp": TcpEnd.RST}


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("proxy_idle_timeout", ending(VANISHED, duration=60.0)),
        ("proxy_idle_timeout", ending(VANISHED, duration=60.0, **USED)),
        ("proxy_idle_timeout", ending(RESET, duration=350.4, **RST)),
        ("forgotten_by_a_middlebox", ending(RESET, duration=1234.0, tcp=TcpEnd.RST, **USED)),
        ("proxy_lifetime", ending(VANISHED, duration=30.2, latency=0.02, bytes_in=6, bytes_out=6)),
        ("probe", ending(VANISHED, duration=0.1)),
        ("no_closing_handshake", ending(VANISHED, duration=0.1, **USED)),
        ("peer_killed", ending(VANISHED, duration=17.0, latency=0.02, **USED)),
        ("peer_killed", ending(RESET, duration=17.0, latency=0.02, tcp=TcpEnd.RST, **USED)),
        ("this_side_stalled", ending(VANISHED, duration=60.0, stalled=45.0, **USED)),
        ("peer_killed", ending(VANISHED, duration=17.0, stalled=1.5, **USED)),
        ("this_side_stalled", closed(SILENT, duration=3600.0, stalled=3000.0, latency=0.02, **USED)),
        ("peer_suspended", closed(SILENT, duration=300.0, latency=0.02, tcp=TcpEnd.ABORTED, **USED)),
        ("peer_slow_to_answer", closed(SILENT, duration=300.0, latency=14.0, **USED)),
        ("peer_answers_no_pings", closed(SILENT, duration=100.0, **USED)),
        # A peer that vanished before the first ping has answered none.
        ("peer_suspended", closed(SILENT, duration=40.0, **USED)),
        ("peer_reads_nothing", closed(SILENT, duration=40.0, unsent_bytes=99_000, latency=None, **USED)),
        ("peer_reads_nothing", ending(Cause.WRITE_TIMEOUT, duration=40.0, unsent_bytes=99_000, **USED)),
        ("network_cut", ending(Cause.NETWORK_ERROR, exception=TimeoutError(110, "Connection timed out"))),
        ("route_lost", ending(Cause.NETWORK_ERROR, exception=OSError(113, "No route to host"))),
        ("system_error", ending(Cause.NETWORK_ERROR, exception=OSError(1, "Operation not permitted"))),
        ("page_left", peer_closed(1001, clean=False, tcp=TcpEnd.RST)),
        ("page_left", peer_closed(1001, "WebSocket is closed due to suspension.")),
        ("page_left", peer_closed(1001, "Child was killed")),
        ("page_left", peer_closed(4990)),
        ("server_stopping", peer_closed(1001, "server stopping; retry 0-1s")),
        ("server_stopping", peer_closed(1001, "Server going down")),
        ("server_stopping", peer_closed(1012)),
        ("peer_missed_pongs", peer_closed(1011, "keepalive ping timeout")),
        ("peer_missed_pongs", peer_closed(1001, SILENT.meaning, stalled=4.0, latency=0.2)),
        ("peer_reports_its_cause", peer_closed(1001, Cause.IDLE_TIMEOUT.meaning)),
        ("peer_sent_normal_closure", peer_closed(1000, "bye")),
        ("page_closed_without_code", peer_closed()),
        ("this_side_broke_the_protocol", peer_closed(1002, "Invalid UTF-8 in text frame", **USED)),
        ("this_side_broke_the_protocol", peer_closed(1002, "RSV1 is set")),
        ("message_too_big_for_peer", peer_closed(1009, **USED)),
        ("message_too_big_for_peer", peer_closed(1009)),
        ("peer_sent_internal_error", peer_closed(1011)),
        ("peer_sent_policy_violation", peer_closed(1008, "no")),
        ("peer_sent_try_again_later", peer_closed(1013)),
        ("peer_sent_unauthorized", peer_closed(3000)),
        ("application_code_of_http", peer_closed(4401, "no token")),
        ("application_code", peer_closed(4499, "mine")),
        ("application_code", peer_closed(3123)),
        ("closed_by_peer", ending(Cause.PEER_CLOSED, clean=None)),
        ("handler_returned", closed(Cause.HANDLER_RETURNED, duration=20.0, **USED)),
        ("handler_returned_early", closed(Cause.HANDLER_RETURNED, duration=0.2)),
        # The closing handshake is within the duration: a peer may answer its last message first, for a second.
        ("handler_returned_early", closed(Cause.HANDLER_RETURNED, duration=1.3, messages_out=1, bytes_out=9)),
        ("not_a_websocket_peer", closed(Cause.PROTOCOL_ERROR, bytes_in=7)),
        ("peer_broke_the_protocol", closed(Cause.PROTOCOL_ERROR, exception=ValueError("RSV2 is set"), **USED)),
        ("compression_broken", closed(Cause.PROTOCOL_ERROR, exception=ValueError("compressed data is corrupt"), **USED)),
        ("message_too_big", closed(Cause.MESSAGE_TOO_BIG, exception=ValueError("message is above 9 bytes"))),
        ("policy_limit", closed(Cause.POLICY_LIMIT, duration=2.0, dropped_messages=3, **USED)),
        ("slow_peer", closed(Cause.SLOW_PEER, duration=2.0, unsent_bytes=65536, **USED)),
        ("idle_timeout", closed(Cause.IDLE_TIMEOUT, duration=60.0)),
        ("webkit_refuses_the_code", closed(Cause.SHED, clean=True, received=Close(1002))),
        ("no_such_host", ending(Cause.NETWORK_ERROR, tcp=TcpEnd.NONE, exception=socket.gaierror(-2, "unknown"))),
    ],
)  # fmt: skip
def test_the_first_cause_is_the_likeliest(name, end):
    assert names(end)[0] == name


def test_the_idle_timeout_of_a_proxy_is_told_with_the_numbers():
    found = first(ending(VANISHED, duration=60.04))
    assert found.evidence == (
        "the connection lasted 60.0 s, and 60 s is the idle timeout of nginx (proxy_read_timeout), AWS ALB",
        "nothing was sent or received for 60.0 s, and then TCP ended with FIN",
    )
    assert "ping_interval below" in found.advice


@pytest.mark.parametrize("seconds", IDLE_TIMEOUTS)
def test_each_usual_idle_timeout_is_recognized_also_a_little_later(seconds):
    for duration in (seconds, seconds + 0.9):
        assert names(ending(VANISHED, duration=duration, **USED))[0] == "proxy_idle_timeout"


@pytest.mark.parametrize("duration", [10.0, 75.0, 57.0])
def test_a_used_connection_that_ended_at_another_time_is_not_a_proxys_idle_timeout(duration):
    assert names(ending(VANISHED, duration=duration, **USED))[0] == "peer_killed"


def test_answered_pings_rule_out_the_idle_timeout_of_a_proxy():
    assert "proxy_idle_timeout" not in names(ending(VANISHED, duration=60.0, latency=0.01, **USED))


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("certificate_expired", "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired"),
        ("wrong_host_name", "[SSL: CERTIFICATE_VERIFY_FAILED] Hostname mismatch, certificate is not valid for 'x'"),
        ("certificate_not_trusted", "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"),
        ("certificate_refused", "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca"),
        ("no_tls", "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
        ("no_common_tls", "[SSL: NO_SHARED_CIPHER] no shared cipher"),
        ("bytes_altered", "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed or bad record mac"),
        ("tls_truncated", "EOF occurred in violation of protocol"),
        ("tls_error", "[SSL: WEATHER]"),
    ],
)  # fmt: skip
def test_the_error_of_tls_is_explained(name, texts):
    found = first(ending(Cause.TLS_ERROR, exception=ssl.SSLError(1, texts)))
    assert found.name == name
    assert texts[:20] in found.evidence[0]


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (302, "redirected"),
        (400, "upgrade_lost"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "no_such_path"),
        (426, "upgrade_lost"),
        (429, "too_many_requests"),
        (500, "server_error"),
        (503, "server_away"),
        (599, "handshake_refused"),
        (None, "handshake_refused"),
    ],
)
def test_the_status_of_a_refusal_is_explained(status, name):
    end = Ending(cause=Cause.HANDSHAKE_REJECTED, initiator=Initiator.PEER, clean=False)
    assert names(end, failure="HTTP", status=status)[0] == name


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("nothing_listens", ending(Cause.NETWORK_ERROR, exception=ConnectionRefusedError(111, "x"), tcp=TcpEnd.NONE)),
        ("no_answer_in_time", ending(Cause.NETWORK_ERROR, exception=TimeoutError(110, "x"), tcp=TcpEnd.NONE)),
        ("no_answer_in_time", ending(Cause.HANDSHAKE_FAILED, duration=10.0)),
        ("ended_in_the_opening", ending(Cause.PEER_VANISHED)),
        ("ended_in_the_opening", ending(Cause.CONNECTION_RESET)),
        ("system_error", ending(Cause.NETWORK_ERROR)),
        ("cancelled", ending(Cause.CANCELLED)),
    ],
)  # fmt: skip
def test_a_connection_that_was_never_open_is_explained_by_its_opening(name, end):
    found = diagnose(end, failure="the server did not answer")
    assert found[0].name == name
    assert not {"probe", "peer_killed"} & {each.name for each in found}


def test_an_invalid_answer_to_the_handshake_is_no_answer_of_a_websocket_server():
    end = ending(Cause.HANDSHAKE_FAILED, exception=InvalidHandshake("no Upgrade"))
    assert names(end, failure="x")[0] == "invalid_answer"


@pytest.mark.parametrize(
    ("end", "role", "name"),
    [
        (peer_closed(1001), "server", "page_left"),
        (peer_closed(1001), "client", "server_stopping"),
        (peer_closed(1012), "client", "server_stopping"),
        (ending(VANISHED, duration=0.1), "server", "probe"),
        (ending(VANISHED, duration=0.1), "client", "no_closing_handshake"),
        (ending(VANISHED, duration=17.0, **USED), "client", "no_closing_handshake"),
    ],
)
def test_the_role_of_this_side_decides_between_causes(end, role, name):
    assert names(end, role=role)[0] == name


def test_a_server_that_gets_1012_still_has_a_cause():
    assert names(peer_closed(1012), role="server")


def test_how_the_closing_went_is_a_further_cause():
    assert names(closed(Cause.SERVER_DRAINED, tcp=TcpEnd.TIMEOUT, unsent_bytes=9)) == [
        "server_drained",
        "close_not_answered",
    ]
    assert names(closed(Cause.APP_CLOSED, tcp=TcpEnd.RST))[1] == "closed_without_an_answer"
    assert (
        names(closed(Cause.APP_CLOSED, clean=True, received=Close(1000), tcp=TcpEnd.OPEN))[1]
        == "tcp_left_open"
    )


def test_unknown_fields_are_no_evidence():
    # The default of a counter is 0, and that of tcp is FIN.
    found = diagnose(ending(VANISHED, duration=60.0), SENTENCE)
    assert found[0].name == "proxy_idle_timeout"
    assert len(found[0].evidence) == 1
    assert "probe" not in names(ending(VANISHED, duration=0.1), known=SENTENCE)
    assert "handler_returned_early" not in names(closed(Cause.HANDLER_RETURNED), known=SENTENCE)
    assert "closed_without_an_answer" not in names(closed(Cause.APP_CLOSED), known=SENTENCE)
    assert "not_a_websocket_peer" not in names(closed(Cause.PROTOCOL_ERROR), known=SENTENCE)
    assert names(closed(SILENT, duration=200.0), known=SENTENCE) == ["peer_suspended", "peer_slow_to_answer"]


CLOSES = st.none() | st.builds(
    Close, st.sampled_from([code for code in CloseCode if code.may_send] + [3500, 4000, 4404]), st.text("a '\n", max_size=9)
)  # fmt: skip
SMALL = st.integers(0, 1000)


@given(
    st.builds(
        Ending,
        cause=st.sampled_from(Cause),
        initiator=st.sampled_from(Initiator),
        clean=st.sampled_from([True, False, None]),
        received=CLOSES,
        sent=CLOSES,
        tcp=st.sampled_from(TcpEnd),
        exception=st.none() | st.just(OSError("\x1b[2J\n")),
        duration=st.floats(0, 4000),
        latency=st.none() | st.floats(0, 100),
        stalled=st.sampled_from([0.0, 9.0]),
        **dict.fromkeys(["messages_in", "messages_out", "bytes_in", "bytes_out", "unsent_bytes"], SMALL),
    ),
    st.sampled_from([None, SENTENCE]),
    st.sampled_from(["", "failed"]),
    st.none() | st.integers(100, 600),
    st.sampled_from([None, "server", "client"]),
)
def test_every_ending_has_a_cause_with_evidence_and_advice(end, known, failure, status, role):
    found = diagnose(end, known, failure, status, role)
    assert found
    for each in found:
        assert each.cause
        assert each.evidence
        assert each.advice
        assert all(text.isprintable() for text in (each.cause, each.advice, *each.evidence))
    assert len({each.name for each in found}) == len(found)


@pytest.mark.parametrize("code", [*(code for code in CloseCode if code.may_receive), 3500, 4404])
def test_every_code_that_a_peer_may_send_has_a_cause(code):
    reasons = ["", "bye", "bye; retry 5-10s", Cause.SERVER_DRAINED.meaning, Cause.PROTOCOL_ERROR.meaning]
    for reason in reasons:
        for role in (None, "server", "client"):
            assert names(peer_closed(code, reason), role=role), (reason, role)


@pytest.mark.parametrize("cause", Cause)
def test_the_text_of_an_error_is_escaped_in_the_evidence(cause):
    for tcp in TcpEnd:
        for text in ("\x1b[2J\n", "timed out\x1b[2J", "No route to host\n", "CERTIFICATE_VERIFY_FAILED\n"):
            for failure in ("", "failed"):
                end = ending(cause, tcp=tcp, exception=OSError(text))
                evidence = [said for each in diagnose(end, failure=failure) for said in each.evidence]
                assert all(said.isprintable() for said in evidence), evidence


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_rule(cause):
    assert names(ending(cause))
    assert any(cause in rule.causes for rule in RULES)


def test_no_rule_ends_its_phrases_with_a_full_stop():
    for rule in RULES:
        assert not rule.says.endswith(".")
        assert not rule.advice.endswith(".")
        assert rule.says[0].islower() or rule.says.startswith(("TCP", "TLS"))


def test_a_peer_that_answers_no_ping_may_also_be_blocked():
    silent = closed(SILENT, duration=300.0, latency=0.02, tcp=TcpEnd.ABORTED, **USED)
    assert names(silent, role="server") == ["peer_suspended", "peer_slow_to_answer"]
    # A server is no laptop.
    assert names(silent, role="client") == ["peer_slow_to_answer", "peer_suspended"]
    assert "SIGSTOP" in first(silent, role="client").advice


def test_a_reason_of_another_cause_is_no_stop_of_the_server():
    for cause in (SILENT, Cause.IDLE_TIMEOUT, Cause.WRITE_TIMEOUT):
        assert "server_stopping" not in names(peer_closed(1001, cause.meaning), role="client")
    assert names(peer_closed(1001, Cause.SERVER_DRAINED.meaning), role="client")[0] == "server_stopping"


def test_a_long_connection_without_pings_may_have_met_the_idle_timeout_of_a_proxy():
    end = ending(VANISHED, duration=337.0, **USED)
    assert names(end, role="server")[:2] == ["peer_killed", "proxy_idle_timeout"]
    assert "pings are off" in diagnose(end)[1].evidence[0]


def test_one_message_is_in_the_singular():
    end = peer_closed(1009, messages_in=1, messages_out=1, bytes_in=9, bytes_out=9)
    assert "1 message was sent, of 9 bytes on average, after compression" in first(end).evidence
    end = closed(Cause.SLOW_PEER, duration=1.0, unsent_bytes=1, messages_out=1, bytes_out=10)
    assert "1 byte was waiting that the peer had not taken" in first(end).evidence


def test_the_traceback_of_a_handler_is_looked_for_in_the_log_of_each_kind_of_application():
    advice = first(closed(Cause.HANDLER_ERROR)).advice
    assert "endwell.server" in advice
    assert "uvicorn.error" in advice


def test_a_handler_that_was_left_without_the_bus_has_no_traceback():
    end = closed(Cause.HANDLER_ERROR, sent=Close(1013, UNAVAILABLE))
    assert names(end)[0] == "bus_unavailable"
    assert not any("traceback" in cause.advice for cause in diagnose(end))
    assert names(closed(Cause.HANDLER_ERROR, sent=Close(1013, "later")))[0] == "handler_error"


def test_a_program_that_aborts_is_the_second_cause_of_a_reset():
    end = ending(RESET, duration=17.0, latency=0.02, tcp=TcpEnd.RST, **USED)
    assert names(end)[:2] == ["peer_killed", "no_closing_handshake"]
    assert "aborts" in diagnose(end)[1].evidence[0]
