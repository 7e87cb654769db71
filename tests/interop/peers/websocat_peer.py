"""websocat, without deflate. It closes when its input ends, and answers a Close only then."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress

WEBSOCAT = shutil.which("websocat") or f"{sysconfig.get_path('scripts')}/websocat"
#: Longer messages would be split.
BUFFER = ["--buffer-size", str(2**22)]


def client(url: str, scenario: str) -> None:
    close = ["--close-status-code", "3001", "--close-reason", "bye"]
    with subprocess.Popen(
        [WEBSOCAT, "--text", *BUFFER, *close, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as websocat:
        if scenario == "client-closes":
            for line in [b"hello\n", b"x" * (2**20 - 1) + b"\n"]:
                websocat.stdin.write(line)
                websocat.stdin.flush()
                assert websocat.stdout.readline() == line
        else:
            websocat.stdin.write(f"{scenario}\n".encode())
            websocat.stdin.flush()
            with suppress(subprocess.TimeoutExpired):
                websocat.wait(5)
        websocat.stdin.close()
        websocat.wait()
        print(f"(exit status {websocat.returncode})")


def server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([WEBSOCAT, "--binary", *BUFFER, f"ws-l:127.0.0.1:{port}", "mirror:"]) as websocat:
        listening = False
        while not listening:
            time.sleep(0.05)
            with socket.socket() as probe:
                listening = probe.connect_ex(("127.0.0.1", port)) == 0
        print(port, flush=True)
        print("(does not say)", flush=True)
        websocat.wait()


match sys.argv[1:]:
    case ["version"]:
        print(subprocess.check_output([WEBSOCAT, "--version"], text=True).split()[1])
    case ["client", url, scenario]:
        client(url, scenario)
    case ["server"]:
        server()
