"""``endwell serve`` runs a Server or an application, and stops on a signal."""

import asyncio
import dataclasses
import json
import re
import signal
import socket
import stat
import sys

import pytest
import trustme

import endwell
from endwell.cli import main
from tests.cli.process import PATIENCE, command, finish, interrupt, listening

APP = """
import endwell
import neighbour
number = 3
server = endwell.Server()

@server.websocket("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)

@server.websocket("/crash")
async def crash(ws):
    raise RuntimeError
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with a Server in app.py; imported modules are removed afterwards."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "neighbour.py").write_text("")
    (tmp_path / "misses.py").write_text("import not_there_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("target", ["misses:server", "misses.py:server"])
def test_a_failing_import_keeps_its_traceback(target):
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        main(["serve", target])


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--keyfile", "key.pem"], "--keyfile needs --certfile"),
        (["--cafile", "ca.pem"], "--cafile needs --certfile"),
        (["--certfile", "missing.pem"], "there is no file 'missing.pem'"),
    ],
)
def test_a_missing_certificate_is_an_error(argv, problem, capsys):
    assert main(["serve", "app:server", *argv]) == 2
    assert capsys.readouterr().err == f"endwell serve: {problem}\n"


def test_a_port_in_use_is_an_error(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "app:server", "--port", str(port)]) == 1
    assert f"endwell serve: cannot listen on 127.0.0.1:{port}: " in capsys.readouterr().err


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_a_metrics_port_in_use_is_an_error(workers):
    # Workers share the port with SO_REUSEPORT, but not with another program that allows it.
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with command("serve", "app.py:server", "--port", "0", "--metrics-port", taken, *workers) as process:
            status, _, err = finish(process)
    assert status == 1
    assert f"endwell serve: cannot listen on {taken}: Address already in use\n" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_closes_every_connection_and_ends_with_status_0(number):
    with command("serve", "app.py:server", "--port", "0") as process:
        url = f"ws://127.0.0.1:{listening(process)}/echo"
        async with asyncio.timeout(PATIENCE):
            ws = await endwell.connect(url, open_timeout=PATIENCE)
            await ws.send("hello")
            assert await ws.recv() == "hello"
            process.send_signal(number)
            ending = await ws.closed
        status, out, err = finish(process)
    assert ending.received == endwell.Close(1001, "server stopping; retry 1-2s")
    assert (status, out) == (0, "")
    assert re.search(
        r"INFO +endwell.endings: 127\.0\.0\.1:\d+ on '/echo': the server is stopping; we closed", err
    )


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
async def test_it_listens_on_a_unix_socket_and_drains_by_its_options(workers, tmp_path):
    path = tmp_path / "app.sock"
    how = ["--unix", str(path), "--unix-mode", "600", *workers]
    drain = [
        "--drain-deadline",
        "30",
        "--drain-window",
        "0",
        "--drain-code",
        "1012",
        "--drain-reason",
        "back soon",
    ]
    with command("serve", "app.py:server", *how, *drain, "--drain-rate", "none") as process:
        ready = await asyncio.to_thread(_line, process, f"listening on {path}")
        assert ready
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with asyncio.timeout(PATIENCE):
            ws = await endwell.connect("ws://localhost/echo", unix_path=path, open_timeout=PATIENCE)
            await ws.send("hello")
            assert await ws.recv() == "hello"
            crashed = await endwell.connect("ws://localhost/crash", unix_path=path, open_timeout=PATIENCE)
            await crashed.closed
            process.send_signal(signal.SIGTERM)
            ending = await ws.closed
        status, _, err = await asyncio.to_thread(finish, process)
    assert "handler crash of '/crash' for a Unix socket failed" in err
    assert ending.received == endwell.Close(1012, "back soon")
    if not workers:
        assert "endwell.endings: a Unix socket on '/echo': the server is stopping; we closed with 1012" in err
    assert status == 0
    assert not path.exists()


def _line(process, text):
    """Wait for a line of its log that contains ``text``."""
    return any(text in line for line in process.stderr)


async def test_a_unix_socket_name_starting_with_an_at_sign_is_abstract(tmp_path):
    name = f"endwell-test-{tmp_path}"[-100:]
    with command("serve", "app.py:server", "--unix", f"@{name}") as process:
        assert await asyncio.to_thread(_line, process, f"listening on @{name}")
        async with (
            asyncio.timeout(PATIENCE),
            endwell.connect("ws://localhost/echo", unix_path=f"\0{name}", open_timeout=PATIENCE) as ws,
        ):
            await ws.send("hello")
            assert await ws.recv() == "hello"


def test_a_unix_socket_in_use_is_an_error_that_mentions_no_port(tmp_path, capsys):
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        assert main(["serve", "app:server", "--unix", path]) == 1
    err = capsys.readouterr().err
    assert err == (
        f"endwell serve: cannot listen on {path}: Address already in use: another process listens on it\n"
    )


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--unix-mode", "660"], "--unix-mode needs --unix"),
        (["--unix", "@name", "--unix-mode", "660"], "--unix-mode needs a file"),
        (["--unix", "x.sock", "--port", "0"], "--unix and --port exclude each other"),
        (["--unix", "x.sock", "--host", "::1"], "--unix and --host exclude each other"),
        (["--fd", "0", "--port", "0"], "--fd and --port exclude each other"),
        (["--root-path", "/api"], "--root-path is for an ASGI application, not for a Server"),
        (["--lifespan", "on"], "--lifespan is for an ASGI application, not for a Server"),
        (["--ws-max-queue", "none"], "--ws-max-queue: max_queue must not be None"),
        (["--limit-concurrency", "0"], "--limit-concurrency: max_connections must be positive"),
        (["--origin", "a b"], "--origin: origins must be"),
        (["--recorder", ""], "--recorder: recorder must be the path of a directory"),
        (["--forwarded-allow-ips", "proxy"], "--forwarded-allow-ips: proxy_headers must be"),
        (["--no-proxy-headers", "--forwarded-allow-ips", "unix"], "exclude each other"),
        (["--reload", "--workers", "2"], "--reload and --workers exclude each other"),
        (["--reload", "--reload-dir", "missing"], "there is no folder 'missing'"),
        (["--reload-dir", "."], "--reload-dir needs --reload"),
        (["--bus", "amqp://host"], "--bus: bus must be a URL with one of the schemes redis"),
        (["--env-file", "missing.env"], "there is no file 'missing.env'"),
        (["--log-config", "missing.ini"], "there is no file 'missing.ini'"),
        (
            ["--log-config", "x.ini", "--log-format", "json"],
            "--log-config and --log-format exclude each other",
        ),
        (["--log-level", "info", "-v"], "--log-level and -v exclude each other"),
        (["--drain-deadline", "-1"], "--drain-deadline: deadline must be positive and finite, not -1.0"),
        (["--drain-code", "1006"], "--drain-code: code 1006 may not be sent"),
    ],
)
def test_invalid_option_values_are_an_error(argv, problem, capsys):
    assert main(["serve", "app:server", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("endwell serve: ")
    assert problem in err


def test_a_missing_watchfiles_is_named_with_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert main(["serve", "app:server", "--reload"]) == 2
    assert capsys.readouterr().err == (
        "endwell serve: --reload needs the package watchfiles: pip install 'endwell[reload]'\n"
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["--unix-mode", "9"],
        ["--unix-mode", "1000"],
        ["--drain-rate", "much"],
        ["--port", "x"],
        ["--port", "-1"],
        ["--workers", "x"],
        ["--ws-max-size", "1.5"],
    ],
    ids=str,
)
def test_an_option_that_is_not_a_number_is_named(argv, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "app:server", *argv])
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {argv[0]}: " in error
    assert error.endswith(f", not {argv[1]!r}")


def test_each_field_of_drain_has_an_option(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for field in dataclasses.fields(endwell.Drain):
        assert f"--drain-{'no-' if field.name == 'listen' else ''}{field.name}" in text


async def test_workers_share_one_port_and_log_their_names():
    with command("serve", "app.py:server", "--port", "0", "--workers", "2") as process:
        url = f"ws://127.0.0.1:{listening(process)}/echo"
        async with asyncio.timeout(PATIENCE):
            connections = [await endwell.connect(url, open_timeout=PATIENCE) for _ in range(8)]
            process.send_signal(signal.SIGTERM)
            endings = [await ws.closed for ws in connections]
        status, out, err = finish(process)
    assert {ending.received.code for ending in endings} == {1001}
    assert (status, out) == (0, "")
    named = set(re.findall(r"INFO +(\d+) endwell.endings: \S+ on '/echo': the server is stopping", err))
    assert 1 <= len(named) <= 2
    assert str(process.pid) not in named
    assert re.search(rf"INFO +{process.pid} endwell.server: workers exited: 2; drained 8 connections", err)


@pytest.mark.parametrize(
    ("options", "listens", "ends"),
    [(["--no-ending-log"], True, False), (["--log-level", "WARNING"], False, False), (["-v"], True, True)],
    ids=str,
)
async def test_the_log_level_can_be_chosen(options, listens, ends, tmp_path):
    # A path, because a port that was free a moment ago may belong to another process.
    path = str(tmp_path / "socket")
    with command("serve", "app.py:server", "--unix", path, *options) as process:
        async with asyncio.timeout(PATIENCE):
            # It does not log its address.
            async for ws in endwell.reconnecting(
                "ws://localhost/echo", unix_path=path, policy=endwell.RetryPolicy(base=0.05)
            ):
                await ws.close()
        process.send_signal(signal.SIGTERM)
        status, _, err = await asyncio.to_thread(finish, process)
    assert status == 0
    assert ("listening on" in err) is listens
    assert ("on '/echo': peer closed with 1000" in err) is ends
    assert ("DEBUG" in err) is (options == ["-v"])


async def test_json_has_the_fields_of_each_ending_also_of_workers():
    options = ["--port", "0", "--workers", "1", "--log-format", "json"]
    with command("serve", "app.py:server", *options) as process:
        url = f"ws://127.0.0.1:{listening(process)}/echo"
        async with asyncio.timeout(PATIENCE), endwell.connect(url, open_timeout=PATIENCE) as ws:
            await ws.close(1000, "bye")
        process.send_signal(signal.SIGTERM)
        status, _, err = await asyncio.to_thread(finish, process)
    assert status == 0
    rows = [json.loads(line) for line in err.splitlines()]
    assert {row["logger"] for row in rows} == {"endwell.server", "endwell.serve", "endwell.endings"}
    (row,) = (row for row in rows if row["logger"] == "endwell.endings")
    assert (row["level"], row["route"], row["role"]) == ("INFO", "/echo", "server")
    assert endwell.Ending.from_dict(row["ending"]).received == endwell.Close(1000, "bye")
    assert row["process"] != process.pid


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_an_invalid_number_of_workers_is_an_error(count, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "app:server", "--workers", count])
    assert "--workers" in capsys.readouterr().err


def test_with_a_certificate_it_serves_wss(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    with command("serve", "app:server", "--port", "0", "--certfile", "server.pem") as server:
        url = f"wss://127.0.0.1:{listening(server)}/echo"
        with command("connect", url, "--cafile", "ca.pem", "--wait", "60") as client:
            status, out, _ = interrupt(client, "secret\n", 1)
        assert (status, out) == (0, "secret\n")
        with command("connect", url) as client:
            status, out, err = finish(client, "secret\n")
        assert (status, out) == (1, "")
        assert "certificate verify failed" in err
        assert err.endswith("--cafile FILE trusts the certificates in a file, -k accepts any certificate\n")
        with command("connect", url.replace("127.0.0.1", "localhost"), "--cafile", "ca.pem") as client:
            status, out, err = finish(client, "secret\n")
        assert (status, out) == (1, "")
        assert "Hostname mismatch" in err
        assert err.endswith("\n-k accepts any certificate\n")
        with command("connect", url, "--insecure", "--wait", "60") as client:
            status, out, _ = interrupt(client, "secret\n", 1)
        assert (status, out) == (0, "secret\n")
