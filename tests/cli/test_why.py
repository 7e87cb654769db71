"""``endwell why`` explains every close code, and every ending."""

import argparse
import io
import json

import pytest

from endwell import Cause, Close, Ending, TcpEnd
from endwell.cli import why
from endwell.cli.recorded import MAX_LINE
from endwell.codes import RANGES, CloseCode
from endwell.diagnosis import diagnose


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(*argv):
    parser = argparse.ArgumentParser(prog="endwell")
    why.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["why", *argv])
    return args.run(args)


def test_a_code_is_explained_with_advice(capsys):
    assert run("1006") == 0
    assert capsys.readouterr().out == (
        "1006 ABNORMAL_CLOSURE\n"
        "the connection ended without a Close frame (local only, never on the wire)\n"
        "\n"
        "usual causes         a killed process, a suspended laptop, a lost network, a\n"
        "                     proxy that cut an idle tunnel\n"
        "what to do           read ending.cause and ending.tcp, which distinguish these\n"
        "                     cases\n"
        "close() may send it  no: ValueError\n"
        "a peer may send it   no: answered with 1002\n"
        "an ordinary ending   no, a fault\n"
        "a client reconnects  yes, immediately, with jitter\n"
    )


def test_a_clean_code_may_be_sent_and_is_no_error(capsys):
    assert run("1000") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "close() may send it  yes" in lines
    assert "a peer may send it   yes" in lines
    assert "an ordinary ending   yes" in lines
    assert "a client reconnects  no" in lines


@pytest.mark.parametrize("name", ["going_away", "GOING_AWAY", "Going-Away", "going away", " going_away "])
def test_a_code_can_be_given_by_name(name, capsys):
    assert run(name) == 0
    assert capsys.readouterr().out.startswith("1001 GOING_AWAY\n")


@pytest.mark.parametrize(
    ("code", "head"),
    [
        ("0", "0 (0-999)"),
        ("1016", "1016 (1000-2999)"),
        ("3001", "3001 (3000-3999)"),
        ("4001", "4001 (4000-4999)"),
        ("65535", "65535 (5000-65535)"),
    ],
)
def test_a_code_without_a_name_is_explained_by_its_range(code, head, capsys):
    assert run(code) == 0
    assert capsys.readouterr().out.splitlines()[0] == head


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("65536", "code must be between 0 and 65535, not 65536"),
        ("-1", "code must be between 0 and 65535, not -1"),
        ("gone", "no close code is called 'gone'"),
        ("", "no close code is called ''"),
        ("1e3", "no close code is called '1e3'"),
        ("__class__", "no close code is called '__class__'"),
        ("\x1b[2J", r"no close code is called '\x1b[2J'"),
    ],
)
def test_an_unknown_code_is_an_error_with_help(code, problem, capsys):
    assert run(code) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"endwell why: {problem}; run it without an argument for a list\n"


def test_without_a_code_the_whole_table_is_printed(capsys):
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["code", "name", "reconnect", "meaning"]
    first_words = [line.split()[0] for line in lines[1:] if not line.startswith(" ")]
    codes = {str(code.value) for code in CloseCode} | {f"{row.first}-{row.last}" for row in RANGES}
    assert sorted(first_words) == sorted(codes)
    numbers = [int(word.rpartition("-")[2]) for word in first_words]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("argv", [(), *((str(code.value),) for code in CloseCode), ("3999",), ("4999",)])
def test_no_line_is_longer_than_80_columns_or_has_trailing_spaces(argv, capsys):
    run(*argv)
    for line in capsys.readouterr().out.splitlines():
        assert len(line) <= 80
        assert line == line.rstrip()


def test_a_terminal_gets_colours_and_the_same_text(monkeypatch, capsys):
    run("1006")
    run()
    plain = capsys.readouterr().out
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    run("1006")
    run()
    coloured = terminal.getvalue()
    assert "\033[1m1006 ABNORMAL_CLOSURE\033[0m" in coloured
    assert "\033[31mno, a fault\033[0m" in coloured
    for style in ("0", "1", "2", "31", "32"):
        coloured = coloured.replace(f"\033[{style}m", "")
    assert coloured == plain


def test_a_terminal_without_colours_gets_none(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    run("1000")
    assert "\033" not in terminal.getvalue()


# -- an ending ----------------------------------------------------------------

CUT = Ending(cause=Cause.PEER_VANISHED, initiator=Cause.PEER_VANISHED.initiator, clean=False, duration=60.0)
CLOSED = Ending(
    cause=Cause.PEER_CLOSED,
    initiator=Cause.PEER_CLOSED.initiator,
    clean=False,
    received=Close(1001, "\x1b[2J"),
    tcp=TcpEnd.RST,
    duration=12.4,
)


def test_an_ending_is_explained_with_evidence_and_advice(capsys):
    assert run(str(CUT)) == 0
    answer = capsys.readouterr().out
    assert answer.startswith(
        "the peer ended TCP without a Close; not clean, after 60.0 s\n"
        "\n"
        "1.  the idle timeout of a proxy or load balancer between the peers\n"
        "    because     the connection lasted 60.0 s, and 60 s is the idle timeout of\n"
        "                nginx (proxy_read_timeout), AWS ALB\n"
        "    what to do  set ping_interval below the proxy's idle timeout (half of it is\n"
        "                usual), and check that pings are on and pass the proxy; or raise\n"
        "                the timeout of the proxy\n"
        "\n"
        "2.  "
    )


def test_a_whole_ending_gives_more_evidence_than_its_sentence(capsys):
    assert run(json.dumps(CUT.as_dict())) == 0
    assert "nothing was sent or received for 60.0 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        str(CLOSED),
        f"2026-11-30 00:00:00,000 INFO    endwell.endings: 127.0.0.1:9 on '/chat': {CLOSED}",
        json.dumps(CLOSED.as_dict()),
        json.dumps({"level": "INFO", "message": str(CLOSED), "ending": CLOSED.as_dict()}),
        json.dumps({"ending": CLOSED.as_dict()}, indent=2),
    ],
)
def test_every_way_to_give_an_ending_is_understood(text, tmp_path, monkeypatch, capsys):
    file = tmp_path / "line"
    file.write_text(text + "\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(text + "\n"))
    for argument in (text, f"@{file}", "-"):
        assert run(argument) == 0
        answer = capsys.readouterr().out
        assert answer.startswith("peer closed with 1001 GOING_AWAY")
        assert "1.  a user reloaded, closed or left the page" in answer
        for line in answer.splitlines():
            assert len(line) <= 80
            assert line.isprintable()


def test_each_line_of_a_file_with_an_ending_is_answered(tmp_path, capsys):
    file = tmp_path / "log"
    file.write_text(
        f"INFO listening\n\n127.0.0.1:1 on '/': {CUT}\n{json.dumps({'ending': CLOSED.as_dict()})}\n"
    )
    assert run(f"@{file}") == 0
    answer = capsys.readouterr().out
    assert answer.startswith(str(CUT))
    assert "\n\npeer closed with 1001" in answer
    assert run(f"@{file}", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ending"]["cause"] for row in rows] == ["peer_vanished", "peer_closed"]


def test_a_file_may_contain_a_code(tmp_path, capsys):
    file = tmp_path / "code"
    file.write_text("1006\n")
    assert run(f"@{file}") == 0
    assert capsys.readouterr().out.startswith("1006 ABNORMAL_CLOSURE\n")


def test_json_has_the_known_fields_and_the_causes_in_order(capsys):
    assert run("--json", json.dumps(CUT.as_dict())) == 0
    row = json.loads(capsys.readouterr().out)
    assert Ending.from_dict(row["ending"]) == CUT
    assert [each["name"] for each in row["causes"]] == [each.name for each in diagnose(CUT)]
    assert set(row["causes"][0]) == {"name", "cause", "evidence", "advice"}
    assert run("--json", str(CUT)) == 0
    assert "messages_in" not in json.loads(capsys.readouterr().out)["ending"]


def test_json_of_codes(capsys):
    assert run("--json", "1006") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["code"], row["name"], row["clean"], row["retry"]) == (1006, "ABNORMAL_CLOSURE", False, "now")
    assert run("--json", "4000") == 0
    assert json.loads(capsys.readouterr().out)["name"] is None
    assert run("--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CloseCode)


def test_a_refused_handshake_is_explained_by_its_status(capsys):
    end = Ending(cause=Cause.HANDSHAKE_REJECTED, initiator=Cause.PEER_CLOSED.initiator, clean=False)
    assert run(json.dumps({"failure": "HTTP 403", "status": 403, "ending": end.as_dict()})) == 0
    assert "403 Forbidden" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '{"cause": "weather", "initiator": "peer"}',
            "this ending is not valid: cause has an unknown value: 'weather'",
        ),
        ("{}", "this is neither a close code nor an ending: '{}'..."),
        ("x" * 41, f"this is neither a close code nor an ending: '{'x' * 40}'..."),
        ("@/nowhere", "[Errno 2] No such file or directory: '/nowhere'"),
        ("@", "[Errno 21] Is a directory: '.'"),
    ],
)
def test_a_text_that_is_not_understood_is_an_error(text, problem, capsys):
    assert run(text) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"endwell why: {problem}\n"


def test_lines_without_an_ending_are_an_error(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    assert run("-") == 2
    assert "there is no ending in standard input" in capsys.readouterr().err


UNKNOWN = json.dumps({"ending": {**CUT.as_dict(), "cause": "of a later version"}})


def test_a_line_that_is_not_valid_does_not_hide_the_others(tmp_path, capsys):
    file = tmp_path / "log"
    file.write_text(f"{json.dumps(CUT.as_dict())}\n{UNKNOWN}\n{json.dumps(CLOSED.as_dict())}\n")
    assert run(f"@{file}", "--json") == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["ending"]["cause"] for line in out.splitlines()] == [
        "peer_vanished",
        "peer_closed",
    ]
    assert (
        err
        == "endwell why: line 2: this ending is not valid: cause has an unknown value: 'of a later version'\n"
    )


def test_lines_that_are_all_not_valid_are_an_error(tmp_path, capsys):
    file = tmp_path / "log"
    file.write_text(f"{UNKNOWN}\n{UNKNOWN}\n")
    assert run(f"@{file}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("not valid") == 2


def test_a_line_is_answered_before_the_next_one_is_read(monkeypatch, capsys):
    answered = []

    class Followed(io.StringIO):  # `tail -f`
        def readline(self, size=-1, /):
            answered.append(capsys.readouterr().out)
            return super().readline(size)

    monkeypatch.setattr("sys.stdin", Followed(f"{CUT}\n{CLOSED}\n"))
    assert run("-") == 0
    assert str(CUT) in answered[1]
    assert "peer closed with 1001" in answered[2]


RECORD = {
    "time": "2026-11-30T00:00:00.123Z",
    "message": str(CUT),
    "ending": CUT.as_dict(),
    "role": "server",
    "address": "10.0.0.7:5",
    "path": "/chat\x1b[2J",
    "route": "/{path}",
    "subject": "4711",
    "key": None,
}


def test_an_answer_says_which_connection_it_is_for(capsys):
    assert run(json.dumps(RECORD)) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        r"2026-11-30T00:00:00.123Z, server, 10.0.0.7:5 on /chat\x1b[2J, subject 4711"
    )
    assert run(f"Nov 30 web endwell: 10.0.0.7:5 on '/chat': {CUT}") == 0
    assert capsys.readouterr().out.splitlines()[1] == "Nov 30 web endwell: 10.0.0.7:5 on '/chat':"
    assert run(str(CUT)) == 0
    assert capsys.readouterr().out.splitlines()[1] == ""
    assert run("--json", json.dumps(RECORD)) == 0
    record = json.loads(capsys.readouterr().out)["record"]
    assert record == {name: RECORD[name] for name in ("time", "role", "address", "path", "route", "subject")}


def test_json_with_texts_from_a_peer_is_ascii(capsys):
    row = {**CLOSED.as_dict(), "received": {"code": 4000, "reason": "\x9b31m\N{RIGHT-TO-LEFT OVERRIDE}"}}
    row["exception"] = "OSError: \udc80"
    assert run("--json", json.dumps(row)) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out)["ending"]["exception"] == "OSError: \udc80"


@pytest.mark.parametrize("number", [10**400, 2**64])
@pytest.mark.parametrize("cause", [Cause.POLICY_LIMIT, Cause.SLOW_PEER])
def test_a_number_that_no_connection_can_have_is_an_error(cause, number, capsys):
    row = {**CUT.as_dict(), "cause": cause.value, "messages_in": number, "bytes_out": number}
    assert run(json.dumps(row)) == 2
    assert "messages_in must be below 2**64" in capsys.readouterr().err


def test_a_file_without_one_line_with_an_ending_says_so(tmp_path, capsys):
    file = tmp_path / "log"
    for text in ("", "INFO: this line of another program is longer than a code\n", "\0\xff" * 100):
        file.write_text(text)
        assert run(f"@{file}") == 2
        assert capsys.readouterr().err == f"endwell why: there is no ending in {str(file)!r}\n"


def test_a_reader_that_has_enough_ends_the_command_without_a_message(tmp_path, monkeypatch, capsys):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    file = tmp_path / "log"
    file.write_text(f"{CUT}\n{CUT}\n")
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):  # `endwell.cli.main` handles it
        run(f"@{file}")
    assert capsys.readouterr().err == ""


def test_a_file_with_one_line_that_is_too_long_says_so(tmp_path, capsys):
    file = tmp_path / "log"
    file.write_text("x" * (MAX_LINE + 1))
    assert run(f"@{file}") == 2
    assert capsys.readouterr().err == (
        "endwell why: line 1 is longer than 1,048,576 characters, so it is not read\n"
        f"endwell why: there is no ending in {str(file)!r}\n"
    )
