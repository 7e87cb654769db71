"""How each ASGI server tells one application, and its peer, about the end of a WebSocket.

    python benchmarks/asgi_endings.py                 every server; writes docs/explanation/endings.md
    python benchmarks/asgi_endings.py granian daphne  these servers; prints their cells

Each server runs the application of this file in a process of its own. Where it has these settings, messages are limited
to 1000 bytes, a ping is sent every second with a timeout of one second, and a stop may take three seconds. A raw socket
produces the endings. The application writes what it is told as lines of JSON, with the time of the monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanation" / "endings.md"
BEGIN = "<!-- Made by benchmarks/asgi_endings.py: do not edit up to the end mark. -->\n"
END = "<!-- End of the ASGI servers. -->\n"

MAX_SIZE = 1000
#: Seconds for which a busy application sleeps: more than a ping and its timeout.
BUSY = 8.0
#: The same at a stop: longer than the servers' limit of three seconds, and than the patience of this program.
BUSY_AT_STOP = 60.0
#: Seconds to wait for a server that does nothing.
PATIENCE = 15.0

RIGHT, PARTLY, WRONG = "right", "partly", "wrong"


# -- the application ----------------------------------------------------------------


def tell(row: str, event: str, **more: Any) -> None:
    """Write what the application of ``row`` has been told."""
    line = json.dumps({"row": row, "event": event, "time": time.monotonic(), **more}) + "\n"
    descriptor = os.open(os.environ["ENDINGS_FILE"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application. The path says what it does while its connection ends, and the name of the row."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] != "websocket":
        raise NotImplementedError
    doing, row = scope["path"].strip("/").split("/")
    if (extension := scope.get("extensions", {}).get("endwell")) is not None:
        extension["on_close"](lambda ending: tell(row, "on_close", code=int(ending.code)))
    await receive()
    await send({"type": "websocket.accept"})
    try:
        await DOING[doing](row, receive, send)
    except asyncio.CancelledError:
        tell(row, "cancelled")
        raise


async def reads(row: str, receive: Any, send: Any) -> None:
    while (event := await receive())["type"] != "websocket.disconnect":
        tell(row, "message")
    tell(row, "disconnect", code=event.get("code"), reason=event.get("reason") or "")


async def sleeps(row: str, receive: Any, send: Any) -> None:
    await asyncio.sleep(BUSY_AT_STOP if row.startswith("stop") else BUSY)
    tell(row, "awake")
    await reads(row, receive, send)


async def sends(row: str, receive: Any, send: Any) -> None:
    """Send; after the error of a send, receive what the server says."""
    began = time.monotonic()
    while time.monotonic() - began < BUSY:
        try:
            await send({"type": "websocket.send", "text": "tick"})
        except Exception as exc:  # any, because servers raise different ones
            tell(row, "raised", os_error=isinstance(exc, OSError), name=type(exc).__name__)
            async with asyncio.timeout(1):
                await reads(row, receive, send)
            return
        await asyncio.sleep(0.05)


async def returns(row: str, receive: Any, send: Any) -> None:
    pass


async def raises(row: str, receive: Any, send: Any) -> None:
    raise RuntimeError("secret")


DOING: dict[str, Callable[[str, Any, Any], Awaitable[None]]] = {
    "reads": reads,
    "sleeps": sleeps,
    "sends": sends,
    "returns": returns,
    "raises": raises,
}


# -- the rows -----------------------------------------------------------------------


@dataclass
class Outcome:
    """What the application of one row was told, and what its peer saw."""

    told: list[dict[str, Any]] = field(default_factory=list)
    #: The code of the first Close frame that the peer got (1005: without a code), its reason, and the time.
    close: int | None = None
    reason: str = ""
    closed: float = 0.0
    #: "FIN" or "RST"; empty if TCP stayed open.
    tcp: str = ""
    #: When this program gave up waiting for the end of TCP. What the application is told later, comes of that.
    gave_up: float = float("inf")
    #: Seconds from SIGTERM to the end of the process; None if it did not end.
    stopped_after: float | None = None

    def first(self, *events: str) -> dict[str, Any] | None:
        """The first of ``events`` that the application was told."""
        known = (each for each in self.told if each["time"] < self.gave_up)
        return next((each for each in known if each["event"] in events), None)

    def told_while_busy(self) -> dict[str, Any] | None:
        """What the application was told before it was awake."""
        first = self.first("on_close", "cancelled", "awake")
        return None if first is None or first["event"] == "awake" else first


Verdict = tuple[str, str]


def level(*parts: str) -> Verdict:
    """The verdict about the application and the peer; each part is what is wrong there, or empty."""
    wrong = [part for part in parts if part]
    if not wrong:
        return RIGHT, ""
    return (WRONG if len(wrong) == len(parts) else PARTLY), ", ".join(wrong)


def of_application(outcome: Outcome, codes: tuple[int, ...]) -> str:
    """What is wrong about ``websocket.disconnect``."""
    told = outcome.first("disconnect")
    if told is None:
        return "no limit" if outcome.first("message") else "app not told"
    return "" if told["code"] in codes else f"app told {told['code'] or 'no code'}"


def of_peer(outcome: Outcome, codes: tuple[int, ...]) -> str:
    """What is wrong about the server's Close and the end of TCP."""
    tcp = "" if outcome.tcp == "FIN" else f", then {outcome.tcp or 'open'}"
    if outcome.close is None:
        return f"peer got no Close{tcp}"
    if outcome.close not in codes:
        return f"peer got {'no code' if outcome.close == 1005 else outcome.close}{tcp}"
    return f"peer got {outcome.close}{tcp}" if tcp else ""


def closes(code: int, reason: str = "") -> Callable[[Outcome], Verdict]:
    """The peer sends a Close."""

    def judge(outcome: Outcome) -> Verdict:
        verdict = level(of_application(outcome, (code,)), of_peer(outcome, (code,)))
        told = outcome.first("disconnect")
        if verdict[0] == RIGHT and told is not None and told["reason"] != reason:
            return PARTLY, "reason lost"
        return verdict

    return judge


def fails(code: int) -> Callable[[Outcome], Verdict]:
    """The server closes with ``code``. The specification does not say whether the application is told that or 1006."""
    return lambda outcome: level(of_application(outcome, (code, 1006)), of_peer(outcome, (code,)))


def ends_without_a_close(outcome: Outcome) -> Verdict:
    return level(of_application(outcome, (1006,)))


def silent(outcome: Outcome) -> Verdict:
    """Any code of an error will do, because TCP has not ended."""
    return level(of_application(outcome, (1001, 1002, 1006, 1011)))


def while_busy(*codes: int, answered: bool = False) -> Callable[[Outcome], Verdict]:
    def judge(outcome: Outcome) -> Verdict:
        awake = outcome.first("awake")
        early = awake is None or outcome.closed < awake["time"]
        peer = "not answered while busy" if answered and (outcome.close is None or not early) else ""
        told = outcome.told_while_busy()
        if told is not None and told["event"] == "cancelled":
            return (WRONG, f"cancelled, {peer}") if peer else (PARTLY, "cancelled")
        if told is not None and told["code"] in codes:
            return level(peer, "") if answered else (RIGHT, "")
        if wrong := of_application(outcome, codes):
            return WRONG, ", ".join(filter(None, (wrong, peer)))
        return (WRONG, peer) if peer else (PARTLY, "told when it receives")

    return judge


def while_sending(*codes: int) -> Callable[[Outcome], Verdict]:
    def judge(outcome: Outcome) -> Verdict:
        raised, told = outcome.first("raised"), outcome.first("disconnect")
        if raised is None:
            return (PARTLY, "cancelled") if outcome.first("cancelled") else (WRONG, "app not told")
        wrong = "" if raised["os_error"] else f"raises {raised['name']}"
        if told is None or told["code"] not in codes:
            wrong_code = "no code" if told is None else f"app told {told['code']}"
            return level(wrong, wrong_code)
        return level(wrong, "")

    return judge


def peer_sees(code: int) -> Callable[[Outcome], Verdict]:
    def judge(outcome: Outcome) -> Verdict:
        wrong = of_peer(outcome, (code,))
        # A Close with a wrong code says that the server has ended it; a bare FIN does not.
        partly = outcome.close in (code, 1005) and outcome.reason != "secret"
        return (RIGHT, "") if not wrong else (PARTLY if partly else WRONG, wrong)

    return judge


def stop_reading(outcome: Outcome) -> Verdict:
    process = "" if outcome.stopped_after is not None else f"runs on after {PATIENCE:.0f} s"
    app = of_application(outcome, (1001, 1012, 1006)) and (
        "cancelled" if outcome.first("cancelled") else of_application(outcome, (1001, 1012, 1006))
    )
    return level(", ".join(filter(None, (app, process))), of_peer(outcome, (1001, 1012)))


def stop_sleeping(outcome: Outcome) -> Verdict:
    app = "" if outcome.told_while_busy() else "app not told"
    process = "" if outcome.stopped_after is not None else f"runs on after {PATIENCE:.0f} s"
    return level(", ".join(filter(None, (app, process))), of_peer(outcome, (1001, 1012)))


@dataclass(frozen=True)
class Row:
    """One way in which a connection ends."""

    title: str
    doing: str
    #: What the peer does: a name of `Peer.act`.
    act: str
    judge: Callable[[Outcome], Verdict]


#: The rows by their name in the path.
ROWS = {
    "1000": Row('peer Close 1000 "bye"', "reads", "close 1000 bye", closes(1000, "bye")),
    "4001": Row('peer Close 4001 "custom"', "reads", "close 4001 custom", closes(4001, "custom")),
    "1005": Row("peer Close, no code", "reads", "close", closes(1005)),
    "fin": Row("FIN, no Close", "reads", "fin", ends_without_a_close),
    "rst": Row("RST", "reads", "rst", ends_without_a_close),
    "opcode": Row("bad opcode", "reads", "opcode", fails(1002)),
    "utf8": Row("bad UTF-8", "reads", "utf8", fails(1007)),
    "big": Row("message too big", "reads", "big", fails(1009)),
    "silent": Row("silent peer, reading", "reads", "silence", silent),
    "silent-busy": Row("silent peer, busy", "sleeps", "silence", while_busy(1001, 1002, 1006, 1011)),
    "rst-busy": Row("RST, busy", "sleeps", "rst", while_busy(1006)),
    "1000-busy": Row("Close 1000, busy", "sleeps", "close 1000 bye", while_busy(1000, answered=True)),
    "rst-sends": Row("RST, sending", "sends", "rst", while_sending(1006)),
    "1000-sends": Row("Close 1000, sending", "sends", "close 1000 bye", while_sending(1000)),
    "returns": Row("app returns", "returns", "wait", peer_sees(1000)),
    "raises": Row("app raises", "raises", "wait", peer_sees(1011)),
    "stop": Row("stop, reading", "reads", "stop", stop_reading),
    "stop-busy": Row("stop, busy", "sleeps", "stop", stop_sleeping),
}


# -- the servers --------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a server listens, and the files that it may use."""

    port: int
    folder: Path
    certificate: Path
    key: Path


def uvicorn(ws: str, *, tls: bool = False) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        words = f"-m uvicorn asgi_endings:app --port {place.port} --ws {ws} --ws-max-size {MAX_SIZE}"
        words += " --ws-ping-interval 1 --ws-ping-timeout 1 --timeout-graceful-shutdown 3"
        if tls:
            words += f" --ssl-certfile {place.certificate} --ssl-keyfile {place.key}"
        return words.split()

    return command


def endwell(place: Place) -> list[str]:
    return (
        f"-m endwell serve asgi_endings:app --port {place.port} --ws-max-size {MAX_SIZE} "
        "--ws-ping-interval 1 --ws-ping-timeout 1 --drain-deadline 3"
    ).split()


def hypercorn(place: Place) -> list[str]:
    settings = place.folder / "hypercorn.toml"
    settings.write_text(
        f"websocket_max_message_size = {MAX_SIZE}\nwebsocket_ping_interval = 1\ngraceful_timeout = 3\n",
        encoding="utf-8",
    )
    return f"-m hypercorn asgi_endings:app --bind 127.0.0.1:{place.port} --config {settings}".split()


def granian(place: Place) -> list[str]:
    words = "-m granian asgi_endings:app --interface asgi --host 127.0.0.1 --workers-kill-timeout 3"
    return f"{words} --port {place.port}".split()


def daphne(place: Place) -> list[str]:
    return (
        f"-m daphne asgi_endings:app --port {place.port} --websocket-max-message-size {MAX_SIZE} "
        "--ping-interval 1 --ping-timeout 1 --application-close-timeout 3"
    ).split()


def gunicorn(place: Place) -> list[str]:
    return (
        f"-m gunicorn asgi_endings:app --worker-class asgi --bind 127.0.0.1:{place.port} "
        f"--websocket-max-message-size {MAX_SIZE} --graceful-timeout 3"
    ).split()


#: The command of each server, by the name of its column.
SERVERS: dict[str, Callable[[Place], list[str]]] = {
    "endwell serve": endwell,
    "endwell on uvicorn": uvicorn("endwell.uvicorn:Protocol"),
    "endwell on uvicorn, TLS": uvicorn("endwell.uvicorn:Protocol", tls=True),
    "uvicorn, websockets": uvicorn("websockets"),
    "uvicorn, websockets-sansio": uvicorn("websockets-sansio"),
    "uvicorn, wsproto": uvicorn("wsproto"),
    "hypercorn": hypercorn,
    "granian": granian,
    "daphne": daphne,
    "gunicorn": gunicorn,
}
PACKAGES = ("uvicorn", "websockets", "wsproto", "hypercorn", "granian", "daphne", "gunicorn")


# -- the measurement ----------------------------------------------------------------


class Measurement:
    """One server, measured with each row."""

    def __init__(self, name: str, folder: Path) -> None:
        import trustme

        from tests.raw import HOST

        self.name = name
        self.outcomes = {row: Outcome() for row in ROWS}
        self._tls = "TLS" in name
        self._told = folder / "told"
        self._log = folder / "log"
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", HOST)
        self._place = Place(_free_port(), folder, folder / "certificate.pem", folder / "key.pem")
        issued.private_key_pem.write_to_path(self._place.key)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(self._place.certificate, append=True)
        self._context = None
        if self._tls:
            import ssl

            self._context = ssl.create_default_context()
            authority.configure_trust(self._context)

    async def run(self) -> dict[str, Outcome]:
        """Measure all rows: the stop of a busy application in a process of its own."""
        self._told.write_text("", encoding="utf-8")
        await self._process([row for row in ROWS if row != "stop-busy"])
        await self._process(["stop-busy"])
        for line in self._told.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            self.outcomes[event["row"]].told.append(event)
        return self.outcomes

    async def _process(self, rows: list[str]) -> None:
        """Start the server, produce the endings at the same time, then stop it."""
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "ENDINGS_FILE": str(self._told),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *SERVERS[self.name](self._place),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            await self._until_it_listens(process)
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                ready = [asyncio.Event() for _ in rows]
                acts = [
                    group.create_task(self._act(row, event, stop))
                    for row, event in zip(rows, ready, strict=True)
                ]
                await asyncio.wait_for(asyncio.gather(*(event.wait() for event in ready)), PATIENCE)
                await asyncio.gather(
                    *(act for row, act in zip(rows, acts, strict=True) if ROWS[row].act != "stop")
                )
                began = time.monotonic()
                process.terminate()
                stop.set()
                duration: float | None = None
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), PATIENCE)
                    duration = time.monotonic() - began
            for row in rows:
                self.outcomes[row].stopped_after = duration
        finally:
            # The group of the process, because some servers have workers.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _until_it_listens(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(60):
            while True:
                if process.returncode is not None:
                    raise RuntimeError(f"{self.name} did not start:\n{self._log.read_text()[-2000:]}")
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._place.port)
                except OSError:
                    await asyncio.sleep(0.1)
                else:
                    writer.close()
                    return

    async def _act(self, name: str, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Produce one ending, and record what the peer sees."""
        from tests.raw import RawPeer
        from tests.wire.peer import TEXT

        row, outcome = ROWS[name], self.outcomes[name]
        with await RawPeer.connect_tcp(self._place.port, self._context) as peer:
            peer.answers_notify = True
            await peer.tls_handshake()
            await peer.write(peer.request(f"/{row.doing}/{name}"))
            head = await peer.read_head()
            if not head.startswith("HTTP/1.1 101 "):
                raise RuntimeError(f"{self.name} answered {head!r}")
            ready.set()
            match row.act.split():
                case ["close"]:
                    await peer.close(None)
                case ["close", code, reason]:
                    await peer.close(int(code), reason)
                case ["fin"]:
                    peer.fin()
                case ["rst"]:
                    peer.reset()
                    await self._until_told(name)
                    return
                case ["opcode"]:
                    await peer.frame(0x3)
                case ["utf8"]:
                    await peer.frame(TEXT, b"\xff")
                case ["big"]:
                    await peer.frame(TEXT, bytes(MAX_SIZE + 1))
            await self._watch(peer, outcome, name)
        await self._until_told(name)

    async def _watch(self, peer: Any, outcome: Outcome, name: str) -> None:
        """Read to the end of TCP. A silent peer answers nothing; others answer a ping and a Close."""
        from tests.raw import close_of
        from tests.wire.peer import CLOSE, PING, PONG

        row = ROWS[name]
        # A stop comes after the other rows; a Close that is answered after the sleep is late, but an answer.
        seconds = 3 * PATIENCE if row.act == "stop" else BUSY + PATIENCE
        try:
            async with asyncio.timeout(seconds):
                while (received := await peer.read_frame(None)) is not None:
                    if received.opcode == PING and row.act != "silence":
                        await peer.frame(PONG, received.payload)
                    elif received.opcode == CLOSE and outcome.close is None:
                        close = close_of(received)
                        outcome.close = 1005 if close.code is None else int(close.code)
                        outcome.reason, outcome.closed = close.reason, time.monotonic()
                        # OpenSSL allows no write after the other side's close_notify, which may have come, too.
                        if not row.act.startswith(("close", "silence", "fin")) and not peer.seen.close_notify:
                            await peer.frame(CLOSE, received.payload)
        except TimeoutError:
            outcome.gave_up = time.monotonic()
            return
        except (BrokenPipeError, ConnectionResetError):
            outcome.tcp = "RST"
            return
        outcome.tcp = peer.seen.tcp.name

    async def _until_told(self, name: str) -> None:
        """Wait until the application has been told, or a busy one must have been."""
        row = ROWS[name]
        if row.act in ("wait", "stop"):
            return
        end = time.monotonic() + (0 if row.doing == "reads" else BUSY) + 5
        while time.monotonic() < end:
            lines = map(json.loads, self._told.read_text(encoding="utf-8").splitlines())
            if any(line["row"] == name and line["event"] == "disconnect" for line in lines):
                return
            await asyncio.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# -- the table ----------------------------------------------------------------------


def cell(verdict: Verdict) -> str:
    """A cell of the table."""
    word, why = verdict
    shown = f"{word}: {why}" if why else word
    return f"**{shown}**" if word == WRONG else shown


def lines(measured: dict[str, dict[str, Outcome]]) -> Iterator[str]:
    """The generated part of the page."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    line = f"Measured on {when}: {versions}; CPython {platform.python_version()}."
    yield textwrap.fill(line, 110) + "\n\n"
    yield "| the ending, and what the app does | " + " | ".join(measured) + " |\n"
    yield "| --- |" + " --- |" * len(measured) + "\n"
    verdicts = {
        name: [row.judge(outcomes[key]) for key, row in ROWS.items()] for name, outcomes in measured.items()
    }
    for number, row in enumerate(ROWS.values()):
        yield f"| {row.title} | " + " | ".join(cell(each[number]) for each in verdicts.values()) + " |\n"
    counts = (
        " / ".join(str(sum(word == each for each, _ in column)) for word in (RIGHT, PARTLY, WRONG))
        for column in verdicts.values()
    )
    yield "| *right / partly / wrong* | " + " | ".join(counts) + " |\n"


def write(text: str) -> None:
    """Put ``text`` between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE} has no marks")
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


async def main(names: list[str], *, verbose: bool) -> dict[str, dict[str, Outcome]]:
    """Measure the servers, one after the other."""
    measured = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = await Measurement(name, Path(folder)).run()
            for key, row in ROWS.items():
                print(f"{name:28} {row.title:26} {cell(row.judge(measured[name][key]))}", flush=True)
                if verbose:
                    print(f"    {measured[name][key]}")
    return measured


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "servers", nargs="*", help="columns of the table; default: all, and the page is written"
    )
    parser.add_argument("--verbose", action="store_true", help="show what was recorded")
    arguments = parser.parse_args()
    measured = asyncio.run(main(arguments.servers or list(SERVERS), verbose=arguments.verbose))
    if not arguments.servers:
        write("".join(lines(measured)))
