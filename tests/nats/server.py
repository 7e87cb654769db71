"""A nats-server of the tests, which they may kill, stop and start again."""

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

from tests.ports import free_port

__all__ = ["NatsServer", "shared_server"]

#: Maximum seconds for a start. It only detects a hang.
START_TIME = 60.0


class NatsServer:
    """One nats-server on a free port.

    Args:
        host: Its address.
        prefix: The begin of the command, which runs it in another network, for example.
    """

    def __init__(self, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        program = shutil.which("nats-server")
        assert program is not None, "make test-buses needs nats-server (Debian: nats-server)"
        self._host, self._command = host, [*prefix, program]
        self._folder = tempfile.TemporaryDirectory(prefix="endwell-nats-")
        self.port = free_port()
        self.url = f"nats://{host}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, configuration: str = "") -> None:
        """Start it."""
        log, settings = Path(self._folder.name, "log"), Path(self._folder.name, "settings")
        settings.write_text(configuration or "# nothing\n")
        where = ("--addr", self._host, "--port", str(self.port))
        self.process = subprocess.Popen(
            [*self._command, *where, "--config", str(settings), "--log", str(log), *arguments]
        )
        end = time.monotonic() + START_TIME
        while time.monotonic() < end:
            assert self.process.poll() is None, log.read_text()
            try:
                with socket.create_connection((self._host, self.port), timeout=START_TIME) as sock:
                    if sock.recv(4) == b"INFO":
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise TimeoutError("nats-server does not answer")

    def kill(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()  # also while it stands still: it must not answer before
            self.process.wait()
            self.process = None

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
        """End it."""
        self.kill()
        self._folder.cleanup()


@functools.cache
def shared_server() -> NatsServer:
    """The server of the tests that do it no harm. Each test has a prefix."""
    server = NatsServer()
    server.start()
    atexit.register(server.close)
    return server
