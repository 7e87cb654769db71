"""The command itself: its arguments, its version, its exit status."""

import subprocess
import sys

import pytest

import endwell
from endwell import cli
from endwell.cli import main
from tests.cli.process import PATIENCE, command, finish


def test_without_a_command_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demo", "serve", "connect", "why"])
def test_each_command_has_a_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: endwell {name}" in capsys.readouterr().out


def test_the_version_names_package_and_python(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    out = capsys.readouterr().out
    assert out.startswith(f"endwell {endwell.__version__} (")
    assert ".".join(map(str, sys.version_info[:3])) in out


def test_the_version_reports_a_failed_compilation(capsys, monkeypatch):
    monkeypatch.setattr(cli, "compiled", tuple)
    monkeypatch.setattr(cli, "failure", lambda: "command 'cc' failed")
    with pytest.raises(SystemExit):
        main(["--version"])
    out = " ".join(capsys.readouterr().out.split())  # argparse breaks the line
    assert "(pure Python, because it could not be compiled when it was installed: command 'cc' failed)" in out


def test_the_package_runs_as_a_module():
    with command("why", "1006") as process:
        status, out, _ = finish(process)
    assert status == 0
    assert out.startswith("1006 ABNORMAL_CLOSURE\n")


def test_a_broken_pipe_prints_no_traceback():
    with command("why", stdout=subprocess.PIPE) as process:
        process.stdout.close()
        status = process.wait(PATIENCE)
        assert process.stderr.read() == ""
    assert status == 1


@pytest.mark.parametrize("argv", [["-v", "why", "1000"], ["why", "-v", "1000"]])
def test_verbose_may_stand_before_or_after_the_command(argv, capsys):
    assert main(argv) == 0


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_an_invalid_port_is_refused(port, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "app:server", "--port", port])
    assert ended.value.code == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("connect", "-v, --verbose show the handshake, without credentials; -vv: also each frame"),
        ("serve", "-v, --verbose more log output, with tracebacks"),
        ("demo", "-v, --verbose more log output, with tracebacks"),
    ],
)
def test_the_help_of_a_command_names_verbose(command, text, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert text in " ".join(capsys.readouterr().out.split())
