"""``endwell why`` explains every close code."""

import argparse
import io

import pytest

from endwell.cli import why
from endwell.codes import RANGES, CloseCode


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
