"""``endwell replay`` steps through the record of an ending, and refuses files that have none."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys

import pytest

from endwell.cli import replay
from endwell.ending import Close
from endwell.options import Options
from endwell.protocol.connection import Connection
from endwell.wire.codec import Codec
from tests.cli.process import PATIENCE

BEGAN = 1000.5


def run(*argv):
    parser = argparse.ArgumentParser(prog="endwell")
    replay.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["replay", *map(str, argv)])
    return args.run(args)


def recorded(reason="bye"):
    """A server's ending: a ping, then a Close that the peer does not answer."""
    core = Connection(False, Options(recorder=True), BEGAN, opened_at=1e9)
    core.accept(Codec(False), BEGAN)
    core.tick(BEGAN + 20)
    core.outbox.buffers()
    core.sent(core.outbox.size, BEGAN + 20)
    core.close(Close(4001, reason), BEGAN + 21)
    core.outbox.buffers()
    core.sent(core.outbox.size, BEGAN + 21)
    core.tick(BEGAN + 31)
    return core.ending.as_dict()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ending.json"

    def write(values):
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return path

    return write


def test_each_row_of_the_closing_table_is_explained(file, capsys):
    assert run(file(recorded())) == 0
    assert capsys.readouterr().out == (
        "a server's connection; times in seconds since it began\n"
        "     0.000  the opening handshake succeeded\n"
        "            OPENING -> OPEN, because of ACCEPTED: the opening handshake succeeded\n"
        "    20.000  a ping was sent\n"
        "            6 bytes sent\n"
        "    21.000  this side closes: the application closed\n"
        "            OPEN -> CLOSING, because of WE_CLOSE: the local application or this library closes the "
        "connection; the application closed; this side sends Close 4001 'bye'\n"
        "            7 bytes sent\n"
        "    31.000  the time of the state is over\n"
        "            CLOSING -> ENDED, because of TIME_UP: the deadline of this state passed; close_timeout is 10 s; "
        "this side aborts TCP\n"
        "\n"
        "the application closed; we closed with 4001 'bye', unanswered; not clean, after 31.0 s\n"
        "identical to the recorded ending\n"
    )


def test_an_ending_that_the_code_no_longer_gives_is_a_failure_that_names_each_field(file, capsys):
    values = recorded()
    values["cause"] = "handler_returned"
    assert run(file(values)) == 1
    out = capsys.readouterr().out
    assert "differs from the recorded ending:\n" in out
    assert "  cause: recorded 'handler_returned', replayed 'app_closed'\n" in out


def test_a_record_whose_cues_do_not_end_the_connection_is_a_failure(file, capsys):
    values = recorded()
    del values["record"]["cues"][2:]
    assert run(file(values)) == 1
    assert "\nthe connection has not ended\n" in capsys.readouterr().out


def test_a_record_comes_from_standard_input_too(monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(recorded()).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert run("-") == 0
    assert "identical" in capsys.readouterr().out


HOSTILE = "'''\"\"\"\\\n{0}\x1b[2J" + "import os; os.abort()"


def test_text_of_a_peer_cannot_control_the_terminal(file, capsys):
    assert run(file(recorded(HOSTILE))) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert all(
        "os.abort" not in line or line.startswith((" ", "the application")) for line in out.splitlines()
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_the_written_test_is_a_module_whatever_the_encoding_of_the_output_is(encoding, file, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", output)
    assert run(file(recorded("déjà vu")), "--as-test") == 0
    output.flush()
    names = {}
    exec(compile(output.buffer.getvalue(), "written", "exec"), names)  # bytes: decoded as UTF-8
    assert names["RECORDED"]["reason"] == "déjà vu"


@pytest.mark.parametrize("reason", ["bye", HOSTILE])
def test_the_written_test_passes_and_text_of_a_peer_stays_text(reason, file, capsys):
    assert run(file(recorded(reason)), "--as-test") == 0
    written = capsys.readouterr().out
    names = {}
    exec(compile(written, "written", "exec"), names)
    names["test_the_recorded_connection_ends_with_app_closed"]()
    assert names["RECORDED"]["reason"] == reason


def test_the_written_test_fails_if_the_ending_changes(file, capsys):
    values = recorded()
    values["duration"] += 1
    assert run(file(values), "--as-test") == 1
    names = {}
    exec(compile(capsys.readouterr().out, "written", "exec"), names)
    with pytest.raises(AssertionError):
        names["test_the_recorded_connection_ends_with_app_closed"]()


def without_a_record(values):
    del values["record"]


def of_a_later_format(values):
    values["record"]["format"] = 2


def with_an_unknown_cue(values):
    values["record"]["cues"][1][1] = "__init__"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_record, "record is absent: the option recorder was off"),
        (of_a_later_format, "record.format 2 is unknown: this version of endwell reads format 1"),
        (with_an_unknown_cue, "record.cues[1]: unknown cue '__init__'"),
    ],
)
def test_a_record_that_cannot_be_replayed_is_refused_with_one_line(change, message, file, capsys):
    values = recorded()
    change(values)
    assert run(file(values)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is not JSON: Expecting value"),
        ("[]", "an ending must be a dict, not list"),
        ("null", "an ending must be a dict"),
        ("\xff", "Expecting value"),
        ("[" * 60_000, "the JSON is nested too deeply"),
        ('{"duration": NaN}', "NaN is not JSON"),
        (" " * 70_000, "the file has more than 65536 bytes"),
        ('{"duration": ' + "9" * 10_000 + "}", "Exceeds the limit"),
    ],
)
def test_a_file_that_is_no_ending_is_refused(content, message, file, capsys):
    assert run(file(content)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("tenths", range(10))
def test_a_truncated_file_is_refused(tenths, file, capsys):
    content = json.dumps(recorded())
    assert run(file(content[: len(content) * tenths // 10])) == 2
    assert capsys.readouterr().err.startswith("endwell replay: ")


def test_a_missing_file_is_refused(tmp_path, capsys):
    assert run(tmp_path / "none.json") == 2
    assert "No such file" in capsys.readouterr().err


def test_the_command_replays(file):
    done = subprocess.run(
        [sys.executable, "-m", "endwell", "replay", file(recorded())],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("identical to the recorded ending\n")
