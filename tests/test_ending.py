"""An Ending as a sentence, as numbers and as JSON."""

import copy
import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.codes import CloseCode
from endwell.ending import Cause, Close, Ending, Initiator, TcpEnd


def ending(cause=Cause.PEER_CLOSED, initiator=None, clean=True, **fields):
    return Ending(cause=cause, initiator=initiator or cause.initiator, clean=clean, **fields)


@pytest.mark.parametrize(
    ("initiator", "received", "sent", "code", "reason"),
    [
        (Initiator.PEER, Close(1001, "theirs"), Close(1000, "ours"), 1001, "theirs"),
        (Initiator.LOCAL, Close(1001, "theirs"), Close(1000, "ours"), 1000, "ours"),
        (Initiator.NETWORK, Close(1001, "theirs"), Close(1000, "ours"), 1001, "theirs"),
        (Initiator.PEER, None, Close(1000, "ours"), 1000, "ours"),
        (Initiator.LOCAL, Close(1001, "theirs"), None, 1001, "theirs"),
        (Initiator.NETWORK, None, Close(4000), 4000, ""),
        (Initiator.PEER, Close(), Close(), 1005, ""),
        (Initiator.NETWORK, None, None, 1006, ""),
        (Initiator.LOCAL, None, None, 1006, ""),
        # hixie-76 has no codes.
        (Initiator.LOCAL, Close(), Close(4001, "ours", not_transmitted=True), 1005, ""),
    ],
)
def test_code_and_reason_are_those_of_the_first_close(initiator, received, sent, code, reason):
    end = ending(initiator=initiator, received=received, sent=sent)
    assert (end.code, end.reason) == (code, reason)


@pytest.mark.parametrize(
    ("ok", "end"),
    [
        (True, ending(received=Close(1000), sent=Close(1000))),
        (True, ending(received=Close(), sent=Close())),
        # A page that reloads does not wait for the server's Close.
        (True, ending(received=Close(1001), clean=False, tcp=TcpEnd.RST)),
        (True, ending(Cause.SERVER_DRAINED, received=Close(1001), sent=Close(1001))),
        # hixie-75 has no closing handshake: an orderly end of TCP is the Close.
        (True, ending(clean=None)),
        (True, ending(Cause.PEER_VANISHED, clean=None, tcp=TcpEnd.FIN)),
        (True, ending(Cause.APP_CLOSED, clean=None, sent=Close(1000, not_transmitted=True))),
        (
            False,
            ending(Cause.APP_CLOSED, clean=None, sent=Close(1000, not_transmitted=True), tcp=TcpEnd.TIMEOUT),
        ),
        (False, ending(Cause.HANDLER_ERROR, clean=None, sent=Close(1011, not_transmitted=True))),
        (False, ending(Cause.CONNECTION_RESET, clean=None, tcp=TcpEnd.RST)),
        (False, ending(Cause.INVALID_DATA, clean=None, exception=ValueError())),
        # Our own code counts, whether transmitted or not.
        (True, ending(Cause.HANDLER_RETURNED, received=Close(), sent=Close(1000, not_transmitted=True))),
        (False, ending(Cause.HANDLER_ERROR, received=Close(), sent=Close(1011, not_transmitted=True))),
        # We sent a Close and received no answer.
        (False, ending(Cause.APP_CLOSED, sent=Close(1000), clean=False, tcp=TcpEnd.TIMEOUT)),
        (False, ending(received=Close(1011), sent=Close(1011))),
        (False, ending(received=Close(4001), sent=Close(4001))),
        # Answered, except in an error.
        (False, ending(Cause.PROTOCOL_ERROR, received=Close(1002), sent=Close(1002))),
        (False, ending(Cause.PEER_VANISHED, clean=False)),
        # WebKit answers a 1012 like this, and reports 1006 to its page.
        (False, ending(Cause.APP_CLOSED, received=Close(1002), sent=Close(1012))),
        # Both sides closed at the same time: no answer.
        (True, ending(Cause.APP_CLOSED, received=Close(4001), sent=Close(1000))),
    ],
    ids=str,
)
def test_an_ending_is_ok_if_the_peer_closed_with_an_ordinary_code(ok, end):
    assert end.ok is ok


@pytest.mark.parametrize(
    ("sentence", "end"),
    [
        (
            "peer closed with 1001 GOING_AWAY 'tab closed'; clean, after 12.4 s",
            ending(received=Close(1001, "tab closed"), sent=Close(1001), duration=12.4),
        ),
        ("peer closed with no code; clean, after 0.0 s", ending(received=Close())),
        (
            "peer closed with 4001 'custom'; not clean, after 0.0 s",
            ending(received=Close(4001, "custom"), clean=False),
        ),
        (
            "the peer closed; without a closing handshake, after 3.0 s",
            ending(clean=None, duration=3.0),
        ),
        (
            "the application closed; we closed with 1000 NORMAL_CLOSURE 'user quit'; clean, after 1.0 s",
            ending(Cause.APP_CLOSED, received=Close(1000), sent=Close(1000, "user quit"), duration=1),
        ),
        (
            "the application closed; we closed with 4001 'why' (not transmitted); clean, after 0.0 s",
            ending(Cause.APP_CLOSED, received=Close(), sent=Close(4001, "why", not_transmitted=True)),
        ),
        (
            "the application closed; we closed with 1012 SERVICE_RESTART, answered with 1002 PROTOCOL_ERROR; clean, after 0.0 s",
            ending(Cause.APP_CLOSED, received=Close(1002), sent=Close(1012)),
        ),
        (
            "no message for too long; we closed with 1001 GOING_AWAY, unanswered; not clean, after 9.0 s",
            ending(Cause.IDLE_TIMEOUT, clean=False, sent=Close(1001), tcp=TcpEnd.TIMEOUT, duration=9),
        ),
        (
            "the peer ended TCP without a Close; not clean, after 0.1 s",
            ending(Cause.PEER_VANISHED, clean=False, duration=0.1),
        ),
        (
            "the connection was reset (ConnectionResetError: '[Errno 104] reset'); not clean, after 0.0 s",
            ending(Cause.CONNECTION_RESET, clean=False, exception=ConnectionResetError(104, "reset")),
        ),
        (
            "the peer did not answer a ping; not clean, after 9.0 s; before that, this side was stalled for 6.2 s",
            ending(Cause.KEEPALIVE_TIMEOUT, clean=False, duration=9.0, stalled=6.2),
        ),
    ],
)
def test_the_text_of_an_ending_is_one_sentence(sentence, end):
    assert str(end) == sentence


HOSTILE = "\x1b[2J\r\n\0\u202e"


@pytest.mark.parametrize(
    "end",
    [
        ending(received=Close(4000, HOSTILE)),
        ending(Cause.APP_CLOSED, sent=Close(1000, HOSTILE), received=Close(1000)),
        ending(Cause.NETWORK_ERROR, clean=False, exception=OSError(HOSTILE)),
    ],
    ids=lambda end: end.cause.value,
)
def test_control_characters_from_the_peer_are_escaped_in_the_sentence(end):
    assert str(end).isprintable()
    assert "\\x1b[2J" in str(end)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_meaning_and_an_initiator(cause):
    assert cause.meaning
    assert isinstance(cause.initiator, Initiator)
    assert Cause(cause.value) is cause
    assert cause.value == cause.name.lower()


@pytest.mark.parametrize("cause", Cause)
def test_only_local_causes_have_a_close_code_to_send(cause):
    if cause.close_code is not None:
        assert cause.close_code.may_send
        assert cause.initiator is Initiator.LOCAL


def test_endings_compare_by_value_and_are_immutable():
    assert ending(received=Close(1000)) == ending(received=Close(1000, ""))
    with pytest.raises(dataclasses.FrozenInstanceError):
        ending().cause = Cause.CANCELLED


def test_as_dict_has_every_field_and_is_json():
    end = ending(
        Cause.CONNECTION_RESET,
        clean=False,
        received=Close(1001, "späť"),
        tcp=TcpEnd.RST,
        exception=ConnectionResetError("gone"),
        opened_at=1.7e9,
        duration=2.5,
        messages_in=3,
        latency=0.01,
    )
    row = json.loads(json.dumps(end.as_dict()))
    assert set(row) == {field.name for field in dataclasses.fields(Ending)} | {"code", "reason", "text"}
    assert row == {
        "code": 1001,
        "reason": "späť",
        "text": str(end),
        "cause": "connection_reset",
        "initiator": "network",
        "clean": False,
        "received": {"code": 1001, "reason": "späť", "not_transmitted": False},
        "sent": None,
        "tcp": "rst",
        "exception": "ConnectionResetError: gone",
        "opened_at": 1.7e9,
        "duration": 2.5,
        "messages_in": 3,
        "messages_out": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "unsent_bytes": 0,
        "dropped_messages": 0,
        "latency": 0.01,
        "stalled": 0.0,
    }


def test_as_dict_has_numbers_instead_of_codes_of_the_enum():
    close = Close(CloseCode.GOING_AWAY)
    row = ending(Cause.SERVER_DRAINED, clean=True, sent=close, received=close).as_dict()
    for code in (row["code"], row["sent"]["code"], row["received"]["code"]):
        assert (type(code), code) == (int, 1001)


def test_as_dict_without_a_close_is_json():
    row = json.loads(json.dumps(ending(Cause.PEER_VANISHED, clean=False).as_dict()))
    assert row["code"] == CloseCode.ABNORMAL_CLOSURE


# -- a Close is valid, or is not made -----------------------------------------


@pytest.mark.parametrize(
    "code", [None, 1000, CloseCode.GOING_AWAY, *range(1007, 1015), 3000, 3999, 4000, 4999]
)
def test_a_close_has_no_code_or_one_allowed_in_a_frame(code):
    assert Close(code).code == code


# Autobahn's 7.9.*, and the ranges of RFC 6455 §7.4.2.
@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_code_not_allowed_in_a_frame_is_refused(code):
    with pytest.raises(ValueError, match=rf"^code {code} "):
        Close(code)


@pytest.mark.parametrize("code", [-1, 65536, 10**9])
def test_a_close_code_that_does_not_fit_two_octets_is_refused(code):
    with pytest.raises(ValueError, match=r"^code must be between 0 and 65535"):
        Close(code)


def test_a_reason_may_have_at_most_123_bytes_of_utf8():
    reason = "ü" * 61 + "x"
    assert Close(1000, reason).reason == reason
    with pytest.raises(ValueError, match=r"^reason must be at most 123 bytes of UTF-8, not 124"):
        Close(1000, "ü" * 62)


@pytest.mark.parametrize(
    ("code", "reason", "error", "words"),
    [
        (None, "bye", ValueError, "^reason needs a code"),
        (1000, "\ud800", ValueError, "^reason contains a lone surrogate"),
        ("1000", "", TypeError, "^code must be an int or None, not str"),
        (1000.0, "", TypeError, "^code must be an int or None, not float"),
        (1000, b"bye", TypeError, "^reason must be a str, not bytes"),
        (None, None, TypeError, "^reason must be a str, not NoneType"),
        (True, "", ValueError, "^code 1 "),
    ],
)
def test_wrong_arguments_of_a_close_are_named(code, reason, error, words):
    with pytest.raises(error, match=words):
        Close(code, reason)


def test_replace_validates_the_copy():
    with pytest.raises(ValueError, match=r"^code 1005 "):
        dataclasses.replace(Close(1000, "bye"), code=1005)


# -- an Ending from a dict ----------------------------------------------------

COUNTS = ("messages_in", "messages_out", "bytes_in", "bytes_out", "unsent_bytes", "dropped_messages")
SECONDS = st.floats(0, allow_infinity=False)
CODES = st.sampled_from([*(code for code in CloseCode if code.may_send), 3999, 4000, 4999])
# At most 30 characters: MAX_REASON is 123 bytes, and a character has at most four.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CLOSES = st.builds(Close, CODES, TEXTS, st.booleans()) | st.builds(Close, not_transmitted=st.booleans())
EXCEPTIONS = (
    st.builds(OSError, st.integers(0, 200), TEXTS) | st.builds(ValueError, TEXTS) | st.just(OSError())
)
ENDINGS = st.builds(
    Ending,
    cause=st.sampled_from(Cause),
    initiator=st.sampled_from(Initiator),
    clean=st.sampled_from([True, False, None]),
    received=st.none() | CLOSES,
    sent=st.none() | CLOSES,
    tcp=st.sampled_from(TcpEnd),
    exception=st.none() | EXCEPTIONS,
    opened_at=st.floats(allow_infinity=False, allow_nan=False),
    duration=SECONDS,
    latency=st.none() | SECONDS,
    stalled=SECONDS,
    **dict.fromkeys(COUNTS, st.integers(0, 2**64 - 1)),
)


@given(ENDINGS)
def test_an_ending_from_the_dict_of_another_one_is_the_same(end):
    row = end.as_dict()
    read = Ending.from_dict(json.loads(json.dumps(row)))
    assert read.as_dict() == row
    assert str(read) == str(end)
    assert (read.ok, read.code, read.reason) == (end.ok, end.code, end.reason)
    assert read == Ending.from_dict(row) == pickle.loads(pickle.dumps(read))
    assert hash(read) == hash(Ending.from_dict(row))
    if end.exception is None:
        assert read == end


def test_an_exception_from_a_dict_has_the_text_and_the_type_name():
    end = ending(Cause.CONNECTION_RESET, clean=False, exception=ConnectionResetError(104, "reset: now"))
    read = Ending.from_dict(end.as_dict())
    assert str(read.exception) == "[Errno 104] reset: now"
    assert str(read).startswith("the connection was reset (ConnectionResetError: '[Errno 104] reset: now')")
    assert read != end  # the exception is of another type
    assert read.exception != end.exception


def test_only_three_fields_are_necessary():
    row = {"cause": "peer_vanished", "initiator": "network", "clean": False}
    assert Ending.from_dict(row) == ending(Cause.PEER_VANISHED, clean=False)
    for name in row:
        with pytest.raises(ValueError, match=f"^{name} is absent"):
            Ending.from_dict({key: value for key, value in row.items() if key != name})


def test_unknown_fields_of_a_later_version_are_ignored():
    end = ending(received=Close(1000), sent=Close(1000))
    row = end.as_dict()
    row["weather"] = {"rain": True}
    row["received"]["weather"] = "rain"
    assert Ending.from_dict(row) == end


def test_the_fields_that_follow_from_others_are_not_read():
    end = ending(received=Close(1000), sent=Close(1000))
    assert Ending.from_dict({**end.as_dict(), "code": 4000, "reason": 7, "text": None}) == end


def test_a_program_may_write_a_float_as_an_int():
    read = Ending.from_dict({**ending().as_dict(), "duration": 60, "latency": 0})
    assert (type(read.duration), read.duration, type(read.latency)) == (float, 60.0, float)


CLOSE = {"code": 1000, "reason": "", "not_transmitted": False}


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"cause": "weather"}, ValueError, "cause has an unknown value: 'weather'"),
        ({"cause": None}, TypeError, "cause must be a str, not NoneType"),
        ({"cause": Cause.PEER_CLOSED}, TypeError, "cause must be a str, not Cause"),
        ({"initiator": "moon"}, ValueError, "initiator has an unknown value"),
        ({"tcp": "FIN"}, ValueError, "tcp has an unknown value"),
        ({"clean": 1}, TypeError, "clean must be a bool, not int"),
        ({"received": 1000}, TypeError, "received must be a dict, not int"),
        ({"received": {**CLOSE, "code": 1005}}, ValueError, "received.code 1005 may not be sent"),
        ({"received": {**CLOSE, "code": "1000"}}, TypeError, "received.code must be an int or None, not str"),
        ({"sent": {**CLOSE, "reason": None}}, TypeError, "sent.reason must be a str, not NoneType"),
        ({"sent": {**CLOSE, "reason": "x" * 124}}, ValueError, "sent.reason must be at most 123 bytes"),
        ({"sent": {**CLOSE, "not_transmitted": 0}}, TypeError, "sent.not_transmitted must be a bool"),
        ({"exception": "OSError"}, ValueError, "exception must be the name of a type, a colon and a text"),
        ({"exception": ["OSError", "x"]}, TypeError, "exception must be a str, not list"),
        ({"opened_at": "now"}, TypeError, "opened_at must be a number, not str"),
        ({"opened_at": float("nan")}, ValueError, "opened_at must be a finite number"),
        ({"duration": -0.5}, ValueError, "duration must be 0 or more, not -0.5"),
        ({"duration": True}, TypeError, "duration must be a number, not bool"),
        ({"duration": None}, TypeError, "duration must be a number, not NoneType"),
        ({"duration": 10**400}, ValueError, "duration must be a finite number"),
        ({"latency": float("inf")}, ValueError, "latency must be a finite number"),
        ({"bytes_in": -1}, ValueError, "bytes_in must be 0 or more, not -1"),
        ({"bytes_in": 2**64}, ValueError, r"bytes_in must be below 2\*\*64"),
        ({"exception": "\x1b[2J: x"}, ValueError, "exception has a control character"),
        ({"bytes_in": 1.0}, TypeError, "bytes_in must be an int, not float"),
        ({"messages_out": False}, TypeError, "messages_out must be an int, not bool"),
    ],
)
def test_wrong_fields_of_a_dict_are_named(fields, error, words):
    with pytest.raises(error, match=f"^{words}"):
        Ending.from_dict({**ending().as_dict(), **fields})


@pytest.mark.parametrize("values", [None, [], "peer_closed", 1000])
def test_only_a_dict_is_an_ending(values):
    with pytest.raises(TypeError, match=r"^an ending must be a dict, not "):
        Ending.from_dict(values)


def test_a_record_is_in_the_dict_if_there_is_one_and_does_not_count_for_equality():
    record = {"format": 1, "cues": [[1.5, "eof"]]}
    assert ending().record is None
    with_record = Ending.from_dict({**ending().as_dict(), "record": record})
    assert with_record == ending()
    assert hash(with_record) == hash(ending())
    assert "cues" not in repr(with_record)
    row = json.loads(json.dumps(with_record.as_dict()))
    assert row["record"] == record
    for copied in (
        Ending.from_dict(row),
        copy.deepcopy(with_record),
        pickle.loads(pickle.dumps(with_record)),
    ):
        assert copied == with_record
        assert copied.record == record
    assert copy.copy(ending()).record is None
    with pytest.raises(AttributeError, match="'Ending' object has no attribute 'records'"):
        ending().records  # noqa: B018  (the access raises)
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        with_record.record = None
    with pytest.raises(TypeError, match="record must be a dict, not list"):
        Ending.from_dict({**row, "record": []})
