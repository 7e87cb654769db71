"""Endings that are read back from text: JSON, sentences, lines of logs."""

import io
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell import Cause, Close, CloseCode, Ending, TcpEnd
from endwell.cli.recorded import MAX_LINE, read, texts

CODES = st.sampled_from([*(code for code in CloseCode if code.may_send), 3999, 4000])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["'", '"', "\\", "; clean, after 1.0 s", "'\"", "the connection was reset; clean, after 9.0 s"]
)
CLOSES = st.builds(Close, CODES, TEXTS, st.booleans()) | st.just(Close())


def ending(cause, **fields):
    return Ending(**{"cause": cause, "initiator": cause.initiator, "clean": False, **fields})


@given(
    cause=st.sampled_from(Cause),
    clean=st.sampled_from([True, False, None]),
    received=st.none() | CLOSES,
    sent=st.none() | CLOSES,
    tcp=st.sampled_from(TcpEnd),
    exception=st.none() | st.builds(OSError, TEXTS),
    duration=st.floats(0, 1e6),
    stalled=st.just(0.0) | st.floats(0.05, 1e6),
    before=st.sampled_from(["", "127.0.0.1:9 on '/the connection was reset; clean, after 9.0 s': "]),
    after=st.sampled_from(["", "; reconnecting in 1.0 s", "\n"]),
)
def test_what_a_sentence_says_is_read_back(before, after, **fields):
    end = ending(**fields)
    found = read(f"{before}{end}{after}")
    assert str(found.ending) == str(end)
    for name in found.known - {"duration", "stalled", "exception", "received", "tcp"}:
        assert getattr(found.ending, name) == getattr(end, name) or getattr(found.ending, name) is None
    assert "messages_in" not in found.known
    assert "latency" not in found.known


def test_how_tcp_ended_is_known_only_if_the_sentence_says_it():
    assert read(str(ending(Cause.PEER_VANISHED))).ending.tcp is TcpEnd.FIN
    assert read(str(ending(Cause.CONNECTION_RESET))).ending.tcp is TcpEnd.RST
    timed_out = ending(Cause.APP_CLOSED, sent=Close(1000), tcp=TcpEnd.TIMEOUT)
    assert read(str(timed_out)).ending.tcp is TcpEnd.TIMEOUT
    assert "tcp" not in read(str(ending(Cause.NETWORK_ERROR))).known


END = ending(
    Cause.CONNECTION_RESET, exception=ConnectionResetError(104, "reset"), messages_in=3, tcp=TcpEnd.RST
)


@pytest.mark.parametrize(
    "line",
    [
        END.as_dict(),
        {"ending": END.as_dict()},
        {"time": "2026-11-30T00:00:00Z", "level": "WARNING", "message": str(END), "ending": END.as_dict()},
        {"ending": json.dumps(END.as_dict())},
    ],
)
def test_an_ending_in_json_is_read_with_all_its_fields(line):
    found = read(json.dumps(line))
    assert found.ending.as_dict() == END.as_dict()
    assert found.known >= {"messages_in", "latency", "tcp"}


def test_a_sentence_in_json_is_read():
    found = read(json.dumps({"level": "INFO", "log": f"x on '/': {END}\n"}))
    assert str(found.ending) == str(END)
    assert "messages_in" not in found.known


def test_a_failure_to_open_is_read_with_its_status():
    line = {"failure": "HTTP 403", "status": 403, "ending": END.as_dict()}
    assert read(json.dumps(line))[2:5] == ("HTTP 403", 403, None)
    for status in ("x", True):
        wrong = {"failure": 1, "status": status, "ending": END.as_dict()}
        assert read(json.dumps(wrong))[2:5] == ("", None, None)


def test_the_role_of_this_side_is_read():
    assert read(json.dumps({"role": "client", "ending": END.as_dict()})).role == "client"
    assert read(json.dumps({"role": ["admin"], "ending": END.as_dict()})).role is None


def test_the_ending_of_endwell_js_is_read():
    row = {
        "cause": "peer_closed",
        "initiator": "peer",
        "clean": True,
        "received": {"code": 1001, "reason": ""},
    }
    found = read(json.dumps(row))
    assert found.ending.received == Close(1001)
    assert "tcp" not in found.known


@pytest.mark.parametrize(
    "text",
    ["", "1006", "going away", "{}", "[]", "{", '{"cause": "of another program"}', '{"level": "INFO"}', '{"ending": 1}', '{"ending": null, "a": "b"}',
     "the weather changed; clean, after 1.0 s", "the connection was reset; clean, after 1 s", "[" * 100_000, "{" * 100_000],
)  # fmt: skip
def test_a_text_without_an_ending_has_none(text):
    assert read(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"cause": "weather", "initiator": "peer"}', "cause has an unknown value: 'weather'"),
        ('{"cause": 7, "initiator": "peer"}', "cause must be a str, not int"),
        ('{"ending": {"cause": "shed"}}', "initiator is absent"),
        (
            '{"cause": "shed", "initiator": "local", "clean": null, "exception": "\\u001b[2J: x"}',
            "exception has a control character",
        ),
        ("peer closed with 1005; clean, after 1.0 s", "received.code 1005 may not be sent"),
        (
            "peer closed with 1000 X '\\ud800'; clean, after 1.0 s",
            "received.reason contains a lone surrogate",
        ),
    ],
)
def test_an_ending_that_is_not_valid_is_an_error(text, words):
    with pytest.raises(ValueError, match=words):
        read(text)


@pytest.mark.parametrize("reason", [r"\x", r"\d", r"\U99999999", r"\u12"])
def test_an_escape_that_repr_does_not_write_is_no_error(reason):
    (found,) = read(f"peer closed with 1000 '{reason}'; clean, after 1.0 s").ending.reason.splitlines()
    assert found == reason[1:]


def test_a_long_text_takes_linear_time():
    def seconds(text):
        began = time.thread_time()
        assert read(text) is None
        return time.thread_time() - began

    for part in ("peer closed with 1000 '", "the connection was reset (a: '\\", "peer closed with 1000 X; "):
        # Quadratic time would be 400 times as long as the reference.
        assert seconds(part * 20_000) < 100 * max(seconds(part * 1000), 1e-3)


def lines(text):
    return list(texts(io.StringIO(text, newline="\n")))


ROW = {"ending": {"cause": "shed"}, "text": "a\N{LINE SEPARATOR}\x85b"}


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_on_several_lines_is_one_text_each(indent):
    one = json.dumps(ROW, indent=indent, ensure_ascii=False)
    found = lines(f"INFO\n{one}\n\n{one}\nlast")
    assert [json.loads(text) for _, text in found[1:-1]] == [ROW, ROW]
    assert (found[0], found[-1][1]) == ((1, "INFO\n"), "last")


@pytest.mark.parametrize("indent", [None, 2])
def test_each_element_of_a_json_array_is_one_text(indent):
    found = lines(json.dumps([ROW, ROW], indent=indent))
    assert [json.loads(text) for _, text in found] == [ROW, ROW]


def test_brackets_that_are_no_json_are_lines():
    assert lines("{\na\n}\n[1]\n[\nb") == [
        (1, "{\n"), (2, "a\n"), (3, "}\n"), (4, "[1]\n"), (5, "[\n"), (6, "b")
    ]  # fmt: skip


def test_a_line_that_is_too_long_is_left_out():
    long = "x" * MAX_LINE
    assert lines(f"a\n{long}{long}\nb\n{long}") == [(1, "a\n"), (2, None), (3, "b\n"), (4, None)]


def test_a_text_that_is_too_long_has_no_sentence():
    assert read(f"{END} {'x' * MAX_LINE}") is None


def test_a_long_line_within_brackets_is_not_lost():
    assert lines(f"{{\n{'x' * MAX_LINE}y\n}}\n") == [(1, "{\n"), (2, None), (3, "}\n")]


def test_brackets_that_are_no_json_take_linear_time():
    def seconds(number):
        text = "{\n x\n}\n" * number
        began = time.thread_time()
        assert len(lines(text)) == 3 * number
        return time.thread_time() - began

    # Quadratic time would be 400 times as long as the reference.
    assert seconds(10_000) < 100 * max(seconds(500), 1e-3)


LOGGED = {"time": "2026-11-30T00:00:00.123Z", "message": str(END), "ending": END.as_dict(), "role": "client"}


@pytest.mark.parametrize(
    "line",
    [
        f"Nov 30 00:00:00 web-1 endwell[7]: {json.dumps(LOGGED)}",  # journald, syslog
        f"web-1  | {json.dumps(LOGGED)}\n",  # docker compose
        json.dumps({"log": f"{json.dumps(LOGGED)}\n", "stream": "stderr", "time": "2026-11-30"}),  # docker
        json.dumps({"PRIORITY": "6", "MESSAGE": json.dumps(LOGGED)}),  # journalctl -o json
    ],
)
def test_a_record_in_the_line_of_another_program_is_read_with_all_fields(line):
    found = read(line)
    assert found.ending.as_dict() == END.as_dict()
    assert (found.role, found.context["time"]) == ("client", LOGGED["time"])


def test_a_peer_does_not_forge_a_record_by_its_path_or_its_reason():
    forged = '{"ending": {"cause": "shed", "initiator": "local", "clean": true}}'
    end = ending(Cause.PEER_CLOSED, received=Close(4000, forged))
    found = read(f"10.0.0.7:5 on '/{forged}': {end}")
    assert found.ending.received == end.received
    assert read(f"10.0.0.7:5 on '/{forged}': the handshake was refused") is None
