"""nginx and HAProxy, run with the configuration blocks of docs/howto/deploy.md."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.cli.process import PATIENCE
from tests.deploy.page import block, changed
from tests.ports import free_port

#: Completes a file for conf.d, to run in a folder of the test and without root.
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/chat.conf;
}}
"""


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    port: int
    tls: ssl.SSLContext
    #: The log of the proxy.
    log: Path

    @property
    def origin(self) -> str:
        """The base URL of its pages."""
        return f"https://127.0.0.1:{self.port}"

    def url(self, path: str = "/") -> str:
        """The URL of a WebSocket."""
        return f"wss://127.0.0.1:{self.port}{path}"


def configuration(name: str, folder: Path, ports: list[int], idle: float | None) -> list[str]:
    """Write the configuration; the command that runs the proxy.

    The first port is its own; two servers have the others.
    """
    own, one, two = ports
    changes = {"127.0.0.1:8080": f"127.0.0.1:{one}", "127.0.0.1:8081": f"127.0.0.1:{two}"}
    # Shorter than the 10 minutes of the page, which a test cannot wait for.
    quicker = {} if idle is None else {"75s": f"{idle:g}s"}
    if name == "nginx":
        changes |= {
            "listen 443 ssl;": f"listen 127.0.0.1:{own} ssl;",
            "/etc/ssl/chat.pem": f"{folder}/chat.pem",
            "/etc/ssl/chat.key": f"{folder}/chat.pem",
        }
        (folder / "chat.conf").write_text(changed(block("nginx"), changes | quicker))
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
        return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    changes |= {
        "bind :443": f"bind 127.0.0.1:{own}",
        "/etc/ssl/chat.pem": f"{folder}/chat.pem",
        "inter 2s": "inter 100ms",
        # Otherwise HAProxy would wait only ``inter`` for the health page. A stalled server is not down.
        "timeout connect 5s": "timeout connect 60s\n    timeout check 60s",
    }
    (folder / "haproxy.cfg").write_text(changed(block("haproxy"), changes | quicker))
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


@contextmanager
def running(name: str, folder: Path, one: int, two: int, *, idle: float | None = None) -> Iterator[Proxy]:
    """A proxy in front of two servers; ``idle`` replaces the idle timeout of the page."""
    authority, port = trustme.CA(), free_port()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "chat.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    argv, log = configuration(name, folder, [port, one, two], idle), folder / "log"
    with log.open("wb") as output, subprocess.Popen(argv, stderr=output, stdout=output) as process:
        try:
            until_listening(process, port, log)
            yield Proxy(port, context, log)
        finally:
            process.terminate()


def until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a process that was started listens on ``port``; ``log`` is its output."""
    until = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
