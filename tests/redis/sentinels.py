"""A primary, a replica of it, and Sentinels that watch them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.ports import free_port

from .server import START_TIME, RedisServer, ask

__all__ = ["Sentinels"]

#: Milliseconds after which the Sentinels take a server for dead that does not answer: it may be one of a busy machine,
#: or one that does not come back.
NEVER, SOON = 3_600_000, 500


class Sentinels:
    """Three Sentinels, of which two decide, and two servers."""

    def __init__(self) -> None:
        program = shutil.which("redis-sentinel")
        assert program is not None, "make test-buses needs redis-sentinel (Debian: redis-sentinel)"
        self._folder = tempfile.TemporaryDirectory(prefix="endwell-sentinel-")
        self.servers = [RedisServer(), RedisServer()]
        self.servers[0].start()
        self.servers[1].start("--replicaof", "127.0.0.1", str(self.servers[0].port))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        for number in range(3):
            port = free_port()
            self.ports.append(port)
            settings = Path(self._folder.name, f"{number}.conf")
            settings.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder.name}\n"
                f"sentinel monitor main 127.0.0.1 {self.servers[0].port} 2\n"
                f"sentinel down-after-milliseconds main {NEVER}\nsentinel failover-timeout main 3000\n"
            )
            self._processes.append(
                subprocess.Popen([program, str(settings), "--logfile", str(settings.with_suffix(".log"))])
            )
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.url = f"redis+sentinel://{hosts}/main/0"
        self._wait(self._is_ready, "the Sentinels do not know each other and the replica")

    def _wait(self, condition: Callable[[], bool], text: str) -> None:
        end = time.monotonic() + START_TIME
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.05)
        raise TimeoutError(text)

    def _is_ready(self) -> bool:
        known = [self._known(port) for port in self.ports]
        return all(
            b"status=ok" in each and b"slaves=1,sentinels=3" in each for each in known
        ) and b"master_link_status:up" in self.servers[1].ask("INFO", "replication")

    def _known(self, port: int) -> bytes:
        try:
            return ask("127.0.0.1", port, "INFO", "sentinel")
        except OSError:
            return b""

    def agree_on(self, server: RedisServer) -> bool:
        """Whether all Sentinels name this server, and know its replica."""
        text = b"status=ok,address=127.0.0.1:%d" % server.port
        return all(text in self._known(port) for port in self.ports)

    def notice(self) -> None:
        """Make the Sentinels notice soon that the primary does not answer. Call it after its end."""
        for port in self.ports:
            assert (
                ask("127.0.0.1", port, "SENTINEL", "SET", "main", "down-after-milliseconds", SOON) == b"+OK"
            )

    def fail_over(self) -> None:
        """Make the replica the primary, in an orderly way."""
        assert ask("127.0.0.1", self.ports[0], "SENTINEL", "FAILOVER", "main") == b"+OK"

    def close(self) -> None:
        """End all."""
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.close()
        self._folder.cleanup()
