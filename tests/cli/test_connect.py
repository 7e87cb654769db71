"""``endwell connect``: on a pipe and on a terminal, to the Ending and the exit status."""

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
import types

import pytest

import endwell
from endwell.cli import connect as connecting
from endwell.cli import main
from endwell.cli.formats import Format
from tests.cli.process import PATIENCE, command, finish, interrupt, listening
from tests.relay import relaying

APP = """
import asyncio
import endwell

server = endwell.Server(subprotocols=["chat"])

@server.websocket("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)

@server.websocket("/ascii")
async def shows(ws):
    async for message in ws:
        await ws.send(ascii(message))

@server.websocket("/news")
async def news(ws):
    for message in await ws.recv(), "two\\nlines", "\\x1b[31m", b"\\x00\\xff":
        await ws.send(message)
    await ws.read()

@server.websocket("/about")
async def about(ws):
    await ws.send(f"{ws.subprotocol} {ws.request.headers.get('X-Token')}")

@server.websocket("/ticks")
async def ticks(ws):
    async with ws.alive():
        while True:
            await ws.send("tick")
            await asyncio.sleep(0.02)

@server.websocket("/crash")
async def crash(ws):
    raise RuntimeError

@server.websocket("/restarting/{name}")
async def restarting(ws, name):
    first = name not in seen
    seen.add(name)
    async for message in ws:
        await ws.send(message)
        if first:
            await ws.close(1012, "server restarting; retry 0-0s")

@server.websocket("/full")
async def full(ws):
    await ws.close(1013, "full")

seen = set()

@server.process_request
def guard(request):
    if request.path == "/guarded":
        return endwell.Response.text("ask at\\nthe \\x1b[31mdoor", 403)
"""

#: Longer than any response takes, so that only the test ends it.
LONG = ("--wait", "60")
NORMAL = "the application closed; we closed with 1000 NORMAL_CLOSURE; clean, after "


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(APP)
    with command("serve", "app.py:server", "--port", "0", cwd=folder, stdout=subprocess.DEVNULL) as process:
        port = listening(process)
        # Keep reading: a full pipe would block the server at its log.
        with subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL):
            yield f"ws://127.0.0.1:{port}"
            process.terminate()
            assert process.wait(PATIENCE) == 0


def test_each_line_of_a_pipe_is_sent_and_answers_are_printed(url):
    with command("connect", f"{url}/echo", *LONG) as process:
        status, out, err = interrupt(process, "one\n\nthree ü\nlast", 4)
    assert (status, out) == (0, "one\n\nthree ü\nlast\n")
    assert err.startswith(NORMAL)


def test_the_carriage_return_of_a_crlf_line_is_not_sent(url):
    with command("connect", f"{url}/ascii", *LONG) as process:
        status, out, _ = interrupt(process, "one\r\n\r\na\rb\n", 3)
    assert (status, out) == (0, "'one'\n''\n'a\\rb'\n")


def test_after_the_end_of_a_pipe_it_closes_when_idle(url):
    with command("connect", f"{url}/echo", "--wait", "0.1") as process:
        status, out, err = finish(process, "")
    assert (status, out) == (0, "")
    assert err.startswith(NORMAL)


async def test_each_answer_restarts_the_idle_wait(monkeypatch, capsys):
    clock, waits, answers = types.SimpleNamespace(now=100.0), [], [0.75, 0.5]

    async def sleep(seconds):
        waits.append(seconds)
        # An answer arrives before the end of each wait, until there are no more.
        due = clock.now + seconds
        if answers:
            clock.now += answers.pop(0)
            pipe.show("late")
        clock.now = due

    monkeypatch.setattr(connecting, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(connecting, "asyncio", types.SimpleNamespace(sleep=sleep))
    pipe = connecting._Pipe(Format(), 1.0)
    await pipe.wait_until_quiet()
    assert waits == [1.0, 0.75, 0.75]


def test_a_file_can_be_the_input(url, tmp_path):
    (tmp_path / "lines").write_text("".join(f"{number}\n" for number in range(5000)))
    with (
        (tmp_path / "lines").open() as lines,
        command("connect", f"{url}/echo", *LONG, stdin=lines) as process,
    ):
        status, out, _ = interrupt(process, None, 5000)
    assert (status, out) == (0, (tmp_path / "lines").read_text())


def test_text_is_printed_unchanged_and_binary_as_hexadecimal(url):
    with command("connect", f"{url}/news", *LONG) as process:
        status, out, _ = interrupt(process, "go\n", 5)
    assert (status, out) == (0, "go\ntwo\nlines\n\x1b[31m\n0x00ff\n")


def test_headers_and_subprotocols_are_sent(url):
    options = ["--header", "X-Token: a:b", "--subprotocol", "other", "--subprotocol", "chat"]
    with command("connect", f"{url}/about", *options, *LONG) as process:
        status, out, err = finish(process)
    assert (status, out) == (0, "chat a:b\n")
    assert err.startswith("peer closed with 1000 NORMAL_CLOSURE; clean, after ")


def test_raw_bytes_are_sent_and_printed_unchanged(url, tmp_path):
    (tmp_path / "in").write_bytes(b"\xff\xfe\x00\n\x01\r\nlast\xff")
    with (
        (tmp_path / "in").open("rb") as given,
        (tmp_path / "out").open("wb") as taken,
        command("connect", f"{url}/echo", "--binary", *LONG, stdin=given, stdout=taken) as process,
    ):
        deadline = time.monotonic() + PATIENCE
        # Three messages without separators.
        while (tmp_path / "out").read_bytes() != b"\xff\xfe\x00\x01last\xff":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_hexadecimal_digits_are_sent_and_printed(url):
    with command("connect", f"{url}/echo", "--hex", *LONG) as process:
        status, out, err = interrupt(process, "00ff\r\n0XAB cd\nno digits\nff\n", 2)
    assert (status, out) == (1, "00ff\nabcd\n")
    assert err.startswith(
        "line 3 of the input is not hexadecimal; this and the rest of the input are not sent\n" + NORMAL
    )


def test_the_whole_input_can_be_one_message_and_the_output_json(url):
    with command("connect", f"{url}/echo", "--json", "--one-message", *LONG) as process:
        status, out, err = interrupt(process, "one\ntwö\n", 1)
    message, ending = map(json.loads, out.splitlines())
    assert (status, message) == (0, {"text": "one\ntwö\n"})
    assert (ending["ending"]["cause"], ending["ending"]["code"]) == ("app_closed", 1000)
    assert err.startswith(NORMAL)


def test_a_refusal_is_printed_as_json(url):
    with command("connect", f"{url}/guarded", "--json") as process:
        status, out, _ = finish(process)
    (told,) = map(json.loads, out.splitlines())
    assert (status, told["status"], told["ending"]["cause"]) == (1, 403, "handshake_rejected")
    assert told["phase"] == "http"


async def test_a_proxy_is_used_and_its_refusal_shown_without_credentials(url):
    async with relaying("http", credentials=("me", "s3~cret")) as relay:

        def run(userinfo):
            argv = ("connect", f"{url}/about", "--proxy", relay.url(userinfo), "-vv", "--subprotocol", "chat")
            with command(*argv, *LONG) as process:
                return finish(process)

        status, out, err = await asyncio.to_thread(run, "me:s3~cret@")
        assert (status, out) == (0, "chat None\n")
        assert "> Proxy-Authorization: ...\n" in err
        assert "s3~cret" not in err  # the random keys in the log have no "~"
        status, out, err = await asyncio.to_thread(run, "me:wrong@")
    assert status == 1
    assert f"the proxy {relay.url()} refused with HTTP 407 Proxy Authentication Required" in err
    assert "wrong" not in err


def test_a_wrong_proxy_is_an_error_of_the_arguments(url, capsys):
    assert main(["connect", f"{url}/echo", "--proxy", "ftp://u:s3cret@x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("endwell connect: proxy must begin with one of http://, ")
    assert "s3cret" not in error


def test_the_proxy_none_connects_directly(url, monkeypatch):
    monkeypatch.setenv("http_proxy", "ftp://wrong")
    with command("connect", f"{url}/about", "--proxy", "none", *LONG) as process:
        status, out, _ = finish(process)
    assert (status, out) == (0, "None None\n")


@pytest.mark.parametrize("verbosity", ["-v", "-vv"])
def test_verbose_shows_the_handshake_and_twice_each_frame(url, verbosity):
    secret = ["--header", "Authorization: Bearer secret", "--header", "Cookie: secret"]
    with command("connect", f"{url}/echo?token=secret", verbosity, *secret, *LONG) as process:
        status, out, err = interrupt(process, "one\n", 1)
    lines = err.splitlines()
    assert (status, out) == (0, "one\n")
    assert lines[0] == "> GET /echo?token=... HTTP/1.1"
    assert {"> Authorization: ...", "> Cookie: ...", "< HTTP 101 Switching Protocols"} <= set(lines)
    assert "secret" not in err
    assert err.count("the application closed") == 1
    frames = [line for line in lines if line.startswith("#1 ")]
    assert frames == (
        []
        if verbosity == "-v"
        else [
            "#1 > TEXT 'one' (3 bytes)",
            "#1 < TEXT 'one' (3 bytes)",
            "#1 > CLOSE 1000 (2 bytes)",
            "#1 < CLOSE 1000 (2 bytes)",
        ]
    )


@pytest.mark.parametrize("abstract", [False, True])
async def test_connect_works_over_a_unix_socket(tmp_path, abstract):
    server = endwell.Server()

    @server.websocket("/x")
    async def hello(ws):
        await ws.send(ws.request.headers["Host"])

    path = str(tmp_path / "socket")
    if abstract:
        path = f"@endwell-test-{path}"[:100]
    async with server.serving(unix_path=path.replace("@", "\0")):
        with command("connect", "ws://name/x", "--unix", path, *LONG, stdin=subprocess.DEVNULL) as process:
            status, out, _ = await asyncio.to_thread(finish, process)
    assert (status, out) == (0, "name\n")


def test_an_error_sets_the_exit_status(url):
    with command("connect", f"{url}/crash", *LONG) as process:
        status, out, err = finish(process)
    assert (status, out) == (1, "")
    assert err.startswith("peer closed with 1011 INTERNAL_ERROR; clean, after ")


def test_a_refusal_prints_status_and_body(url):
    with command("connect", f"{url}/guarded") as process:
        status, out, err = finish(process)
    assert (status, out) == (1, "")
    assert err == f"{url}/guarded: server refused with HTTP 403 Forbidden\n  ask at\n  the \\x1b[31mdoor\n"


def test_invalid_utf_8_input_is_an_error_after_earlier_answers(url, tmp_path):
    (tmp_path / "lines").write_bytes(b"good\nb\xffd\nlate\n")
    with (
        (tmp_path / "lines").open() as lines,
        command("connect", f"{url}/echo", *LONG, stdin=lines) as process,
    ):
        status, out, err = interrupt(process, None, 1)
    assert (status, out) == (1, "good\n")
    assert err.startswith(
        "line 2 of the input is not UTF-8; this and the rest of the input are not sent\n" + NORMAL
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_normally(url, number):
    with command("connect", f"{url}/ticks") as process:
        assert process.stdout.readline() == "tick\n"
        process.send_signal(number)
        status, _, err = finish(process)
    assert status == 0
    assert err.startswith(NORMAL)


def test_a_broken_pipe_prints_no_traceback(url):
    with command("connect", f"{url}/ticks") as process:
        assert process.stdout.readline() == "tick\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 1
        assert process.stderr.read() == ""


def test_a_write_error_prints_one_line(url):
    with open("/dev/full", "w") as full, command("connect", f"{url}/ticks", stdout=full) as process:
        status, _, err = finish(process)
    assert (status, err) == (1, "endwell connect: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_is_like_dev_null(url, closed):
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    with command("connect", f"{url}/echo", "--wait", "0", prefix=shell) as process:
        status, out, err = finish(process, "" if closed == "<&-" else "one\n")
    assert status == 0
    assert (out in ("", "one\n")) if closed == "2>&-" else out == ""
    assert "Traceback" not in err
    assert bool(err) is (closed != "2>&-")


def test_a_missing_server_is_reported(capsys):
    assert main(["connect", "ws://127.0.0.1:1/"]) == 1
    assert "cannot connect to 127.0.0.1:1: Connection refused" in capsys.readouterr().err


RESTARTING = "peer closed with 1012 SERVICE_RESTART 'server restarting; retry 0-0s'; clean, after "


def test_with_reconnect_the_input_continues_on_a_new_connection(url):
    with command("connect", f"{url}/restarting/pipe", "--reconnect", *LONG) as process:
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.stdout.readline() == "one\n"
        told = process.stderr.readline()
        status, out, err = interrupt(process, "two\nlast", 2)
    assert told.startswith(RESTARTING)
    assert told.endswith(" s; reconnecting in 0.0 s\n")
    assert (status, out) == (0, "two\nlast\n")
    assert err.startswith(NORMAL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_the_next_connection(url, number):
    with command("connect", f"{url}/full", "--reconnect") as process:
        assert process.stderr.readline().startswith(
            "peer closed with 1013 TRY_AGAIN_LATER 'full'; clean, after "
        )
        process.send_signal(number)
        # It would reconnect after 5 to 10 s, and log once more that the server is full.
        assert process.wait(PATIENCE) == 1
        assert process.stderr.read() == ""


def test_a_permanent_refusal_ends_it_despite_reconnect(url):
    with command("connect", f"{url}/guarded", "--reconnect") as process:
        status, _, err = finish(process)
    refused = f"{url}/guarded: server refused with HTTP 403 Forbidden\n  ask at\n  the \\x1b[31mdoor\n"
    assert (status, err) == (1, refused)


@pytest.mark.parametrize("wait", ["-1", "nan", "soon"])
def test_an_invalid_wait_time_is_an_error(wait, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["connect", "ws://localhost/", f"--wait={wait}"])
    assert ended.value.code == 2
    assert "argument --wait" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["http://localhost/"], "uri must begin with ws:// or wss://"),
        (["ws://localhost/", "--header", "x"], "header 'x' is not 'NAME: VALUE'"),
        (["ws://localhost/", "--header", "a b: c"], "header name 'a b' is not a token"),
        (["ws://localhost/", "--max-size", "0"], "max_size must be positive and finite, not 0"),
        (["ws://localhost/", "--close-timeout", "none"], "close_timeout must not be None"),
        (["ws://localhost/", "-k"], "--cafile, --cert and --insecure need a wss:// URL"),
        (["ws://localhost/", "--cafile", "/nowhere"], "--cafile, --cert and --insecure need a wss:// URL"),
        (["wss://localhost/", "--key", "key.pem"], "--key needs --cert"),
        (["wss://localhost/", "-k", "--cafile", "ca.pem"], "--insecure and --cafile exclude each other"),
        (
            ["wss://localhost/", "--cert", "/nowhere"],
            "cannot use '/nowhere': [Errno 2] No such file or directory",
        ),
        (
            ["wss://localhost/", "--cafile", "/nowhere"],
            "cannot use '/nowhere': [Errno 2] No such file or directory",
        ),
    ],
)
def test_bad_arguments_are_errors(argv, problem, capsys):
    assert main(["connect", *argv]) == 2
    assert capsys.readouterr().err == f"endwell connect: {problem}\n"


class Terminal:
    """A pseudo-terminal, and the text that has appeared on it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (24, 80))
        self.modes = termios.tcgetattr(self.slave)
        self.format_address = ""

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def until(self, text: str) -> None:
        """Wait until ``text`` appears, and discard the output up to it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.format_address:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not appear in {self.format_address!r}"
            self.format_address += os.read(self.master, 4096).decode()
        self.format_address = self.format_address.partition(text)[2]


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def session(url, terminal):
    """Start a session with a path on the terminal."""
    processes = []

    def start(path: str, *options: str) -> subprocess.Popen:
        slave = terminal.slave
        manager = command("connect", url + path, *options, stdin=slave, stdout=slave, stderr=slave)
        processes.append(manager)
        process = manager.__enter__()
        terminal.until("connected; Ctrl-D closes")
        terminal.until("> ")
        return process

    yield start
    for manager in processes:
        manager.__exit__(None, None, None)


def test_a_terminal_keeps_the_input_line_below_the_messages(session, terminal):
    process = session("/news")
    terminal.type("hé\n")
    terminal.until("> hé\r\n\r\x1b[K> ")
    terminal.type("half")
    terminal.until("<\x1b[0m hé\r\n")
    terminal.until("<\x1b[0m two\r\n  lines\r\n")
    terminal.until("<\x1b[0m \\x1b[31m\r\n")
    terminal.until("<\x1b[0m 0x00ff\r\n")
    terminal.until("> half")
    terminal.type(" done\n")
    terminal.until("> half done\r\n")
    terminal.until("peer closed with 1000 NORMAL_CLOSURE; clean, after ")
    assert process.wait(PATIENCE) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def test_control_d_on_a_terminal_closes_at_once(session, terminal):
    process = session("/echo")
    terminal.type("\n\x04")  # an empty line is not sent
    terminal.until(NORMAL)
    assert process.wait(PATIENCE) == 0
    assert "<" not in terminal.format_address
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def test_wait_delays_the_close_on_a_terminal_too(session, terminal):
    process = session("/restarting/wait", *LONG)
    terminal.type("one\n\x04")
    terminal.until("peer closed with 1012 SERVICE_RESTART")
    assert process.wait(PATIENCE) == 0


def test_an_interrupt_restores_the_terminal(session, terminal):
    process = session("/ticks")
    terminal.type("half")
    terminal.until("tick\r\n\r\x1b[K> half")
    process.send_signal(signal.SIGINT)
    terminal.until(NORMAL)
    assert process.wait(PATIENCE) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def test_frames_are_shown_above_the_input_line(session, terminal):
    process = session("/ticks", "-vv")
    terminal.type("half")
    terminal.until("#1 < TEXT 'tick' (4 bytes)")
    terminal.until("> half")
    terminal.type("\x15\x04")
    terminal.until(NORMAL)
    assert process.wait(PATIENCE) == 0


def test_a_terminal_keeps_its_input_line_across_connections(session, terminal):
    process = session("/restarting/terminal", "--reconnect")
    terminal.type("one\nhalf")
    terminal.until("> half")
    terminal.until(RESTARTING)
    terminal.until("reconnecting in 0.0 s")
    terminal.until("connected; Ctrl-D closes")
    terminal.until("> half")
    terminal.type(" done\n")
    terminal.until("<\x1b[0m half done\r\n")
    terminal.type("\x04")
    terminal.until(NORMAL)
    assert process.wait(PATIENCE) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.modes
