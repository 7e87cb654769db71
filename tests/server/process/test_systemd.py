"""Socket activation and notification of systemd: sd_listen_fds(3) and sd_notify(3), on real sockets."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import socket
import time
from contextlib import ExitStack, contextmanager

import pytest

import endwell
from endwell.server.process import systemd
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.server.program import running, write

#: Prepares its process as systemd does, then becomes the program: the sockets are descriptors 3 and up.
ACTIVATE = """
import os, sys
for index, number in enumerate(sys.argv[1].split(",")):
    os.dup2(int(number), 3 + index)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(index + 1), LISTEN_FDNAMES="a:b")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@contextmanager
def activated(file, *socks):
    """The program, with sockets that were opened before it started."""
    with ExitStack() as stack:
        # Moved away from the descriptors that they will become.
        copies = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 3 + len(socks)) for sock in socks]
        for copy in copies:
            stack.callback(os.close, copy)
        yield stack.enter_context(running("-c", ACTIVATE, ",".join(map(str, copies)), file, pass_fds=copies))


class Systemd:
    """Receives the notifications to systemd."""

    def __init__(self, sock):
        self._sock = sock

    def received(self):
        self._sock.settimeout(PATIENCE)
        return self._sock.recv(4096).decode().split("\n")

    def has_no_message(self):
        self._sock.setblocking(False)
        try:
            return self._sock.recv(4096) == b""
        except BlockingIOError:
            return True


@pytest.fixture
def systemd_socket(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", sock.getsockname())
        yield Systemd(sock)


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def url(sock):
    return "ws://{}:{}/".format(*sock.getsockname())


async def connect(sock):
    ws = await endwell.connect(url(sock), open_timeout=PATIENCE)
    return ws, (await ws.recv()).split()[0]


# -- notifications --------------------------------------------------------------


def test_fields_are_sent_in_one_datagram(systemd_socket):
    systemd.notify("READY=1", "STATUS=two")
    assert systemd_socket.received() == ["READY=1", "STATUS=two"]


def test_the_socket_may_have_an_abstract_name(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # Linux chooses one
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + sock.getsockname()[1:].decode())
        systemd.notify("READY=1")
        assert Systemd(sock).received() == ["READY=1"]


def test_a_reload_is_notified_with_its_start_time(systemd_socket):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.reloading()
    word, moment = systemd_socket.received()
    assert word == "RELOADING=1"
    name, value = moment.split("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_without_systemd_nothing_is_notified(monkeypatch, caplog):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    assert not caplog.records


def test_a_failed_notification_is_logged_only(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "missing"))
    systemd.notify("READY=1")
    assert "cannot notify systemd of READY=1" in caplog.text


def test_a_server_notifies_ready_and_stopping(systemd_socket, tmp_path):
    with running(write(tmp_path, workers=None)) as program:
        assert systemd_socket.received() == ["READY=1"]
        socket.create_connection(("127.0.0.1", program.port), PATIENCE).close()
        assert program.finish()[0] == 0
    assert systemd_socket.received() == ["STOPPING=1"]
    assert systemd_socket.has_no_message()


def test_a_supervisor_notifies_ready_reloading_and_stopping(systemd_socket, tmp_path):
    with running(write(tmp_path, workers=1)) as program:
        assert systemd_socket.received() == ["READY=1"]
        program.send(signal.SIGHUP)
        assert systemd_socket.received()[0] == "RELOADING=1"
        assert systemd_socket.received()[0] == "READY=1"
        program.logged("the new workers are ready")
        write(tmp_path, workers=1, **{"ANSWER = ": "raise RuntimeError('broken') #"})
        program.send(signal.SIGHUP)
        assert systemd_socket.received()[0] == "RELOADING=1"
        assert systemd_socket.received() == [
            "READY=1",
            "STATUS=the last restart failed, the old workers serve",
        ]
        assert program.finish()[0] == 0
    assert systemd_socket.received() == ["STOPPING=1"]
    assert systemd_socket.has_no_message()


# -- socket activation ----------------------------------------------------------


@pytest.mark.parametrize("workers", [None, 1])
async def test_a_restart_with_systemd_sockets_refuses_no_connection(workers, tmp_path, listening):
    file = write(tmp_path, workers=workers)
    with activated(file, listening) as program:
        assert program.port == listening.getsockname()[1]
        first, process = await connect(listening)
        program.send(signal.SIGTERM)
        program.logged("stopping: ", 1 if workers is None else 2)
        # The request arrives while the old process stops, and waits for the new one.
        late = asyncio.create_task(connect(listening))
        ending = await within(first.closed, PATIENCE)
        assert (await asyncio.to_thread(program.finish, None))[0] == 0
        assert not late.done()
    assert ending.received == endwell.Close(1001, "server stopping; retry 0-1s")
    with activated(file, listening):
        second, other = await within(late, PATIENCE)
        assert other != process
        await second.close()


async def test_all_passed_sockets_are_served_and_a_unix_socket_stays(tmp_path, listening):
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        # The grace is too short for handshakes in progress, too.
        with activated(write(tmp_path, workers=None, deadline=0), listening, unix) as program:
            program.logged("listening on 127")
            program.logged(f"listening on {tmp_path}/socket")
            ws, _ = await connect(listening)
            await ws.close()
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(str(tmp_path / "socket"))
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert (await asyncio.to_thread(program.finish))[0] == 0
        assert (tmp_path / "socket").exists()


def test_a_socket_that_does_not_listen_is_named(tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs, activated(write(tmp_path, workers=None), theirs) as program:
        status, log = program.finish(None)
    assert status == 1
    assert "ValueError: descriptor 3 from systemd is not a listening stream socket" in log


def test_sockets_passed_to_another_process_are_ignored(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert systemd.sockets() == []
    assert "LISTEN_FDS" not in os.environ


def test_workers_do_not_inherit_the_systemd_environment(systemd_socket, tmp_path, listening):
    show = 'sys.stderr.write(f\'has {[name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_"))]}\\n\')'
    file = write(tmp_path, **{"if __name__": f"{show}\nif __name__"})
    with activated(file, listening) as program:
        program.logged("listening on")
        program.finish()
    supervisor, *workers = re.findall(r"has (\[.*\])\n", program.log)
    assert "'LISTEN_FDS'" in supervisor
    assert "'NOTIFY_SOCKET'" in supervisor
    assert workers == ["[]", "[]"]
