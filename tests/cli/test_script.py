"""``endwell demo --script`` reports every ending correctly, and would detect a wrong report."""

import re

from endwell.cli import main, script
from endwell.cli.script import CASES, STOP, Case
from endwell.ending import Cause


def lines_of(capsys):
    return capsys.readouterr().out.splitlines()


def test_the_script_reports_every_ending_correctly(capsys):
    assert main(["demo", "--script"]) == 0
    lines = lines_of(capsys)
    titles = [line.split(":")[0] for line in lines if line.startswith("\N{CHECK MARK}")]
    assert titles == [f"\N{CHECK MARK} {case.title}" for case in [*CASES, STOP]]
    assert re.fullmatch(r"11 endings, all as expected, in \d\.\d s", lines[-1])
    for expected, told in zip(lines[1:-1:3], lines[2:-1:3], strict=True):
        assert expected.replace("expected", "reported") == told


def test_a_wrongly_reported_ending_fails_the_script(capsys, monkeypatch):
    first = CASES[0]
    wrong = first.expected._replace(cause=Cause.PEER_VANISHED)
    monkeypatch.setattr(script, "CASES", [first._replace(expected=wrong)])
    assert main(["demo", "--script"]) == 1
    lines = lines_of(capsys)
    assert lines[0].startswith("\N{BALLOT X} clean close: peer closed with 1000")
    assert lines[1].split()[:2] == ["expected", "peer_vanished"]
    assert lines[2].split()[:2] == ["reported", "peer_closed"]
    assert lines[-1].startswith("2 endings, 1 wrong")


def test_an_unreported_ending_fails_the_script(capsys, monkeypatch):
    async def nothing(url):
        pass

    monkeypatch.setattr(script, "PATIENCE", 0.2)
    monkeypatch.setattr(script, "CASES", [Case("nothing", nothing, STOP.expected)])
    assert main(["demo", "--script"]) == 1
    assert lines_of(capsys)[0] == "\N{BALLOT X} nothing: no ending was reported"


def test_an_ending_reported_twice_fails_the_script(capsys, monkeypatch):
    reported_once = script._Script._on_close

    def twice(self, ws, ending):
        reported_once(self, ws, ending)
        reported_once(self, ws, ending)

    monkeypatch.setattr(script, "CASES", [])
    monkeypatch.setattr(script._Script, "_on_close", twice)
    assert main(["demo", "--script"]) == 1
    assert lines_of(capsys)[-1].startswith("1 endings, 1 wrong")
