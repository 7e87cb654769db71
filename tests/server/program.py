"""A server that runs as a separate program, with or without workers, and its log."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import endwell
from tests.cli.process import PATIENCE, python

#: Each answer names the process that gave it; a handler stays as long as its client.
APP = """
import asyncio, logging, os, sys, time
import endwell

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
server = endwell.Server()
ANSWER = "old"

@server.websocket("/")
async def echo(ws):
    await ws.send(f"{os.getpid()} {ANSWER}")
    async for message in ws:
        await ws.send(message)

@server.websocket("/stuck")
async def stuck(ws):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@server.websocket("/held")
async def held(ws):
    while not os.path.exists(__file__ + ".released"):
        await asyncio.sleep(0.01)

@server.websocket("/blocked")
async def blocked(ws):
    sys.stderr.write("blocks\\n")
    time.sleep(3600)

@server.get("/healthz")
def health(request):
    return "ok"

if __name__ == "__main__":
    server.run("127.0.0.1", 0, drain=endwell.Drain(window=0.2, deadline=DEADLINE), workers=WORKERS)
"""


class Program:
    """The process and its log."""

    def __init__(self, process):
        self.process = process
        self._lines = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()

    @property
    def log(self):
        return "".join(self._lines)

    def logged(self, pattern, times=1):
        """The last match, once ``pattern`` has been logged ``times`` times."""

        def found():
            return list(re.finditer(pattern, self.log))

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= times, PATIENCE), self.log
        return found()[times - 1]

    @property
    def port(self):
        return int(self.logged(r"listening on \S+:(\d+)")[1])

    def url(self, path="/"):
        return f"ws://127.0.0.1:{self.port}{path}"

    def send(self, number):
        self.process.send_signal(number)

    def finish(self, number=signal.SIGTERM):
        """Send the signal; the status and the log, once the process has ended by itself."""
        if number is not None:
            self.send(number)
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status, self.log

    async def connect(self, path="/"):
        """A connection, the process that serves it, and the version that its code reports."""
        ws = await endwell.connect(self.url(path), open_timeout=PATIENCE)
        process, answer = (await ws.recv()).split()
        return ws, int(process), answer


def write(folder, *, workers=2, deadline=60.0, **changes):
    """Write the application into ``folder``, with some lines changed.

    A drain waits for the deadline only if a handler is stuck.
    """
    text = APP.replace("WORKERS", repr(workers)).replace("DEADLINE", repr(deadline))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = folder / "app.py"
    file.write_text(text)
    return file


def release(file):
    """Let the handlers of ``/held`` return, which do not read and wait for this."""
    file.with_name(file.name + ".released").touch()


@contextmanager
def running(*argv, **keywords) -> Iterator[Program]:
    """Run ``python argv...``. The end of the block kills it, and its workers notice."""
    with python(*map(str, argv), **keywords) as process:
        program = Program(process)
        try:
            yield program
        finally:
            process.kill()
            program._reader.join(PATIENCE)


async def eventually(condition):
    """Wait until ``condition()`` is true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)
