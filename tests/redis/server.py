"""A redis-server of the tests, which they may kill, stop and start again."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.ports import free_port

__all__ = ["RedisServer", "ask", "shared_server"]

#: Maximum seconds for a start. It only detects a hang.
START_TIME = 60.0


def ask(host: str, port: int, *words: Any) -> bytes:
    """The reply to a command. Of a reply with more than a line, the text; it must not be an array."""
    with socket.create_connection((host, port), timeout=START_TIME) as sock:
        octets = [str(word).encode() for word in words]
        sock.sendall(b"*%d\r\n" % len(octets) + b"".join(b"$%d\r\n%s\r\n" % (len(o), o) for o in octets))
        reply = sock.makefile("rb")
        first = reply.readline().strip()
        return reply.read(int(first[1:])) if first.startswith(b"$") and first != b"$-1" else first


class RedisServer:
    """One redis-server on a free port, with a folder for its data.

    Args:
        host: Its address.
        prefix: The begin of the command, which runs it in another network, for example.
    """

    def __init__(self, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "make test-buses needs redis-server (Debian: redis-server)"
        self._host, self._command = host, [*prefix, program]
        self._folder = tempfile.TemporaryDirectory(prefix="endwell-redis-")
        self.port, self.bus_port = free_port(), free_port()
        self.url = f"redis://{host}:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        #: The arguments of the last start.
        self.arguments: Sequence[str] = ()

    def start(self, *arguments: str) -> None:
        """Start it, with the data of the last time."""
        self.arguments = arguments
        # Otherwise a node of a cluster also takes the port whose number is higher by 10,000.
        bus = ("--cluster-port", str(self.bus_port)) if "--cluster-enabled" in arguments else ()
        # What was written before a reply outlives the process without fsync(), for which a busy disk would need seconds.
        self.process = subprocess.Popen(
            [
                *(*self._command, "--port", str(self.port), "--bind", self._host, "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "no", "--dir", self._folder.name),
                *("--logfile", str(Path(self._folder.name, "log")), "--loglevel", "warning"),
                *("--protected-mode", "no", "--repl-diskless-sync-delay", "0", *bus, *arguments),
            ]
        )
        end = time.monotonic() + START_TIME
        while time.monotonic() < end:
            assert self.process.poll() is None, Path(self._folder.name, "log").read_text()
            try:
                if self.ask("PING").startswith((b"+PONG", b"-NOAUTH")):
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise TimeoutError("redis-server does not answer")

    def ask(self, *words: Any) -> bytes:
        """The reply to a command. Of a reply with more than a line, the text; it must not be an array."""
        return ask(self._host, self.port, *words)

    def move(self, port: int) -> None:
        """Listen on another port from now on."""
        assert self.ask("CONFIG", "SET", "port", port) == b"+OK"
        self.port, self.url = port, f"redis://{self._host}:{port}/0"

    def kill(self, *, data: bool = True) -> None:
        """Kill it; without ``data``, all its data is lost."""
        if self.process is not None:
            self.process.kill()  # also while it stands still: it must not answer before
            self.process.wait()
            self.process = None
        if not data:
            shutil.rmtree(Path(self._folder.name, "appendonlydir"), ignore_errors=True)

    def pause(self) -> None:
        """Let it stand still: its connections stay, and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # Its threads stop one after the other, and one of them could answer until then.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """End :meth:`pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, with its data."""
        self.kill()
        self._folder.cleanup()


@functools.cache
def shared_server() -> RedisServer:
    """The server of the tests that do it no harm. Each test has a prefix."""
    server = RedisServer()
    server.start()
    atexit.register(server.close)
    return server
