"""Count the instructions of a server's work: a guard that does not depend on the speed of the machine.

    python benchmarks/instructions.py             compare with benchmarks/instructions.json
    python benchmarks/instructions.py --record    write benchmarks/instructions.json
    python benchmarks/instructions.py --contenders endwell 'picows listener' --where 8

The server runs in Python under valgrind's callgrind, in one thread with its load. Only the server's turns of the
event loop are counted: all requests of a round are in the receive buffers before counting starts, and the replies
are read after it has stopped. What turns without any work cost is subtracted. The garbage collector is off, so
repeated runs differ by less than 1 %; those of TLS, whose keys are random, by 3 %, and those of the idle minute,
which depends on real time, by 14 %.

A row costs more if it needs over 3 % more instructions than recorded (TLS: 5 %, the idle minute: 20 %). The counts
depend on the versions of Python, uvloop, the C compiler and OpenSSL, so the record has one entry for each
combination. Without an entry for this combination nothing can be compared: a sentence says so, and the exit status
is 0.

Exit status: 1 if a row costs more, 2 if a count is impossible here (no valgrind, no compiled endwell), else 0.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import platform
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module, metadata
from pathlib import Path

from loops import LOOPS, loop_factory

HERE = Path(__file__).resolve().parent
RECORD = HERE / "instructions.json"
#: The share by which a row may exceed its record.
TOLERANCE = {"wss 64x1": 0.05, "idle minute": 0.2}
DEFAULT_TOLERANCE = 0.03
#: The rows of the contenders that run an ASGI application.
ASGI_ROWS = ("64x1", "64x16", "32 B 64x1", "32 B 64x16")
#: The rows of HTTP requests on kept-alive connections, and the path of each.
HTTP_ROWS = {"http 64x1": "/", "http JSON 64x1": "/json", "http 64x16": "/"}
#: The module of each contender in benchmarks/servers, and the rows that it has.
CONTENDERS = {
    "endwell": ("endwell", ("64x1", "64x16", "wss 64x1", "lifecycle", "broadcast member", "idle minute")),
    "endwell recorder": ("endwell_recorder", ("64x1", "64x16", "lifecycle", "idle minute")),
    "picows coroutine": ("picows_coroutine", ("64x1", "64x16", "wss 64x1", "lifecycle")),
    "picows listener": ("picows_listener", ("64x1", "64x16", "wss 64x1", "lifecycle")),
    # An ASGI application on uvicorn, and "mounted" on endwell's own server: docs/howto/asgi.md.
    "asgi endwell": ("asgi_endwell", ASGI_ROWS),
    "asgi websockets": ("asgi_websockets", (*ASGI_ROWS, *HTTP_ROWS)),
    "asgi mounted": ("asgi_mounted", (*ASGI_ROWS, *HTTP_ROWS)),
    "asgi floor": ("asgi_floor", ASGI_ROWS),
}
UNITS = {
    "64x1": "a message of 1 KiB, 64 connections, one message each in flight",
    "64x16": "the same with 16 messages each in flight",
    "32 B 64x1": "64x1 with messages of 32 B",
    "32 B 64x16": "64x16 with messages of 32 B",
    "http 64x1": "an HTTP request whose answer has 13 B, 64 connections, one request each in flight",
    "http JSON 64x1": "the same with an answer of 1 KiB",
    "http 64x16": "an HTTP request whose answer has 13 B, 64 connections, 16 requests each in flight",
    "wss 64x1": "64x1 over TLS",
    "lifecycle": "a connection from accept() to its end: handshake, closing handshake, no message",
    "broadcast member": "a member of a broadcast of 1 KiB to 64 connections",
    "idle minute": "a connection that is idle for a minute, keepalive included",
}
CONNECTIONS = 64
#: Turns of the event loop after which the server has answered everything.
TURNS = 32
WARM, ROUNDS = 20, 20
#: The names of counts that are not rows.
WARM_UP, EMPTY = "warm-up", "empty turns"
#: Seconds that are counted as the idle minute.
MINUTE = 60.0

REQUEST = (
    b"GET /%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HTTP_REQUEST = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"
KEY = b"\x37\xfa\x21\x3d"  # RFC 6455 §5.7
#: A binary message of 1 KiB; only the length matters, so the payload is one octet, masked.
MESSAGE = b"\x82\xfe\x04\x00" + KEY + bytes(octet ^ ord("x") for octet in KEY) * 256
REPLY_SIZE = 4 + 1024
#: The same with 32 B.
SHORT = b"\x82\xa0" + KEY + bytes(octet ^ ord("x") for octet in KEY) * 8
SHORT_REPLY_SIZE = 2 + 32
CLOSE = b"\x88\x82" + KEY + bytes(a ^ b for a, b in zip(b"\x03\xe8", KEY, strict=False))


# -- the measured process ----------------------------------------------------------------


class Counting:
    """Callgrind's switch."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._toggle = self._library.toggle
        self._turns = 0

    async def turns(self, count: int = TURNS) -> None:
        """Count some turns of the event loop."""
        self._turns += count
        self._toggle()
        for _ in range(count):
            await asyncio.sleep(0)
        self._toggle()

    async def seconds(self, seconds: float) -> None:
        """Count for some seconds."""
        self._toggle()
        await asyncio.sleep(seconds)
        self._toggle()

    def write(self, row: str, units: int) -> None:
        """Write the counts as ``row``, for ``units`` messages or connections."""
        self._library.dump(f"{row}/{units}/{self._turns}".encode())
        self._turns = 0


class Peer:
    """A raw client. It reads and writes only while counting is stopped."""

    def __init__(self, port: int, path: bytes, tls: ssl.SSLContext | None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None if tls is None else tls.wrap_bio(self._incoming, self._outgoing)
        self._path = path

    async def open(self) -> None:
        """Do the opening handshake."""
        while self._tls is not None:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._exchange()
        self.send(REQUEST % self._path)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            await asyncio.sleep(0)
            head += self.received()
        if not head.startswith(b"HTTP/1.1 101"):
            raise SystemExit(f"no WebSocket: {head!r}")

    async def _exchange(self) -> None:
        self.sock.send(self._outgoing.read())
        await asyncio.sleep(0)
        self._fill()

    def _fill(self) -> None:
        try:
            self._incoming.write(self.sock.recv(2**18))
        except BlockingIOError:
            pass

    def send(self, data: bytes) -> None:
        """Send ``data``, which fits into the buffers of the kernel."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        if self.sock.send(data) != len(data):
            raise SystemExit("the kernel has no room for a round's messages")

    def received(self) -> bytes:
        """Return the received octets."""
        if self._tls is None:
            try:
                return self.sock.recv(2**18)
            except BlockingIOError:
                return b""
        self._fill()
        data = b""
        try:
            while True:
                data += self._tls.read(2**18)
        except ssl.SSLWantReadError:
            return data


@asynccontextmanager
async def peers(port: int, path: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[list[Peer]]:
    """The open connections of a row."""
    opened = [Peer(port, path, tls) for _ in range(CONNECTIONS)]
    for peer in opened:
        await peer.open()
    yield opened
    for peer in opened:
        peer.sock.close()
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def messages(counting: Counting, row: str, port: int, tls: ssl.SSLContext | None, each: int) -> None:
    """Count rounds of ``each`` messages on every connection."""
    message, size = (SHORT, SHORT_REPLY_SIZE) if row.startswith("32 B") else (MESSAGE, REPLY_SIZE)
    async with peers(port, b"echo", tls) as crowd:
        for number in range(WARM + ROUNDS):
            for peer in crowd:
                peer.send(message * each)
            await (counting.turns() if number >= WARM else asyncio.sleep(0))
            await settled(crowd, each * size, 0 if number >= WARM else TURNS)
    counting.write(row, ROUNDS * CONNECTIONS * each)


async def requests(counting: Counting, row: str, port: int, each: int) -> None:
    """Count rounds of ``each`` HTTP requests on every connection."""
    request = HTTP_REQUEST % HTTP_ROWS[row].encode()
    crowd = [Peer(port, b"", None) for _ in range(CONNECTIONS)]
    await pause(TURNS)
    crowd[0].send(request)
    await pause(TURNS)
    size = len(crowd[0].received())
    for number in range(WARM + ROUNDS):
        for peer in crowd:
            peer.send(request * each)
        await (counting.turns() if number >= WARM else asyncio.sleep(0))
        await settled(crowd, each * size, 0 if number >= WARM else TURNS)
    for peer in crowd:
        peer.sock.close()
    await pause(TURNS)
    counting.write(row, ROUNDS * CONNECTIONS * each)


async def broadcasts(counting: Counting, port: int) -> None:
    """Count broadcasts to every connection."""
    async with peers(port, b"broadcast") as crowd:
        for number in range(WARM + ROUNDS):
            crowd[0].send(MESSAGE)
            await (counting.turns() if number >= WARM else asyncio.sleep(0))
            await settled(crowd, REPLY_SIZE, 0 if number >= WARM else TURNS)
    counting.write("broadcast member", ROUNDS * CONNECTIONS)


async def settled(crowd: list[Peer], size: int, turns: int) -> None:
    """Read the replies: ``size`` octets on every connection, after ``turns`` more turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    for peer in crowd:
        got = len(peer.received())
        if got < size:  # the last segment may wait for an ACK (RFC 896)
            time.sleep(0.1)  # noqa: ASYNC251  (the server must not run meanwhile)
            got += len(peer.received())
        if got != size:
            raise SystemExit(f"{got} octets of {size} were sent in {TURNS} turns of the loop")


async def lifecycles(counting: Counting, port: int) -> None:
    """Count whole connections: everything from accept() to close()."""
    for number in range(4):
        measured = number > 0
        crowd = [Peer(port, b"echo", None) for _ in range(CONNECTIONS)]
        for peer in crowd:
            peer.send(REQUEST % b"echo")
        for expected in (b"HTTP/1.1 101", b"\x88"):
            await (counting.turns() if measured else pause(TURNS))
            for peer in crowd:
                if not peer.received().startswith(expected):
                    raise SystemExit(f"{expected!r} did not come in {TURNS} turns of the loop")
                if expected != b"\x88":
                    peer.send(CLOSE)
        for peer in crowd:
            peer.sock.close()
        await (counting.turns() if measured else pause(TURNS))
    counting.write("lifecycle", 3 * CONNECTIONS)


async def pause(turns: int) -> None:
    """Run some iterations of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def minute(counting: Counting, port: int) -> None:
    """Count a minute in which the peers only answer pings; they run in another process."""
    program = [sys.executable, __file__, "--answer-pings", str(port)]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        await asyncio.sleep(1)
        await counting.seconds(MINUTE)
    finally:
        process.kill()
        await process.wait()
    counting.write("idle minute", CONNECTIONS)


async def answer_pings(port: int) -> None:
    """Open the connections and answer their pings until the end of the process."""
    async with peers(port, b"echo") as crowd:
        print("open", flush=True)
        while True:
            await asyncio.sleep(0.01)
            for peer in crowd:
                if data := peer.received():
                    size = data[1]
                    payload = bytes(octet ^ KEY[n % 4] for n, octet in enumerate(data[2 : 2 + size]))
                    peer.send(bytes((0x8A, 0x80 | size)) + KEY + payload)


async def measure(contender: str, rows: list[str], library: str, certificate: str) -> None:
    """Count all rows of one contender, in this process."""
    logging.disable()  # a peer that ends TCP without a Close is an error for some servers
    module = import_module(f"servers.{CONTENDERS[contender][0]}")
    ours = contender.startswith("endwell")
    # Under valgrind on a busy machine, the connections of a row need longer than the default to open.
    options = module.server.options.replace(open_timeout=600) if ours else None
    counting = Counting(library)
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(certificate)
    client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_tls.check_hostname = False
    client_tls.verify_mode = ssl.CERT_NONE
    gc.collect()
    gc.disable()
    await counting.turns()  # the first turns warm up the interpreter
    counting.write(WARM_UP, 1)
    await counting.turns(TURNS * ROUNDS)
    counting.write(EMPTY, 1)
    for row in rows:
        if ours:
            # A ping is no reply, and its time depends on the clock. Only the idle minute counts pings.
            module.server.options = options if row == "idle minute" else options.replace(ping_interval=None)
        tls = row.startswith("wss")
        async with module.serving(server_tls if tls else None) as port:
            if row == "lifecycle":
                await lifecycles(counting, port)
            elif row == "broadcast member":
                await broadcasts(counting, port)
            elif row == "idle minute":
                await minute(counting, port)
            elif row in HTTP_ROWS:
                await requests(counting, row, port, int(row.rpartition("x")[2]))
            else:
                each = int(row.rpartition("x")[2])
                await messages(counting, row, port, client_tls if tls else None, each)


# -- the program ---------------------------------------------------------------------------


def main() -> int:
    """Run what the command line requests."""
    args = arguments()
    if args.answer_pings:
        asyncio.run(answer_pings(args.answer_pings))
        return 0
    if args.measure:
        with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
            runner.run(measure(args.contenders[0], args.rows, *args.measure))
        return 0
    if complaint := impossible():
        print(complaint, file=sys.stderr)
        return 2
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for contender in args.contenders:
            rows = [row for row in args.rows if row in CONTENDERS[contender][1]]
            counts[contender] = {}
            for row, units, where in counted(Path(folder), contender, rows, args.loop):
                total = sum(where.values())
                counts[contender][row] = round(total / units)
                print(
                    f"{contender:17} {row:17} {total / units:>11,.0f} instructions: {UNITS[row]}", flush=True
                )
                if args.where:
                    for name, count in where.most_common(args.where):
                        print(f"{'':36} {count / units:>11,.0f} {name}")
    return judge(counts.get("endwell", {}), args.loop, record=args.record)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write the counts into the record")
    parser.add_argument("--rows", nargs="+", choices=list(UNITS), default=list(UNITS), metavar="ROW")
    parser.add_argument(
        "--contenders", nargs="+", choices=list(CONTENDERS), default=["endwell"], metavar="NAME"
    )
    parser.add_argument("--where", type=int, default=0, metavar="N", help="show the N files that cost most")
    parser.add_argument("--loop", choices=LOOPS, default="uvloop")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--answer-pings", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def impossible() -> str | None:
    """Why nothing can be counted here; None if it can."""
    import endwell

    if not endwell.compiled():
        return "endwell is not compiled: run make build"
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            return f"{program} is not installed; on Debian: apt-get install valgrind gcc libc6-dev"
    return None


def counted(
    folder: Path, contender: str, rows: list[str], loop: str
) -> Iterator[tuple[str, int, Counter[str]]]:
    """Yield the rows of a contender: how many units were counted, and the instructions of each file."""
    library, certificate, dumps = folder / "collect.so", folder / "certificate.pem", folder / "dump"
    if not library.exists():
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "load" / "collect.c"], check=True
        )
        certify(certificate)
    tool = [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        "--collect-atstart=no",
        f"--callgrind-out-file={dumps}",
    ]
    command = [*tool, sys.executable, __file__, "--contenders", contender, "--rows", *rows, "--loop", loop]
    environment = os.environ | {"PYTHONHASHSEED": "0", "ENDWELL_PURE": "0"}
    subprocess.run([*command, "--measure", library, certificate], check=True, env=environment, timeout=1200)
    empty: Counter[str] = Counter()
    each_turn = 0
    for path in sorted(folder.glob("dump.*"), key=lambda path: int(path.suffix[1:])):
        text = path.read_text()
        path.unlink()
        trigger = re.search(r"^desc: Trigger: Client Request: (.+)/(\d+)/(\d+)$", text, re.MULTILINE)
        if trigger is None or trigger[1] == WARM_UP:
            continue
        row, units, turns = trigger[1], int(trigger[2]), int(trigger[3])
        counts = instructions_of_each_file(text)
        if row == EMPTY:
            empty, each_turn = counts, turns
            continue
        for name in empty:
            counts[name] -= empty[name] * turns // each_turn
        yield row, units, counts


def certify(path: Path) -> None:
    """Write a certificate and its key."""
    import trustme

    pair = trustme.CA().issue_cert("127.0.0.1")
    path.write_bytes(pair.private_key_pem.bytes() + b"".join(blob.bytes() for blob in pair.cert_chain_pems))


def instructions_of_each_file(dump: str) -> Counter[str]:
    """Sum a dump up by the executable files and libraries."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    current, inclusive = "", False
    for line in dump.splitlines():
        if line.startswith("ob="):
            number, _, name = line[3:].partition(" ")
            if name:
                names[number] = name
            current = names[number]
        elif line.startswith("calls="):
            inclusive = True  # the next line has the costs of the called function, which are counted there
        elif line[:1] in "0123456789+-*" and line[:1]:
            if not inclusive:
                counts[described(current)] += int(line.split()[1])
            inclusive = False
        elif line.startswith("cob="):
            number, _, name = line[4:].partition(" ")
            if name:
                names[number] = name
    return counts


def described(path: str) -> str:
    """The name of a file: the module of endwell, else the file's name."""
    name = Path(path).name
    if "/endwell/" in path:
        return (
            "endwell " + "/".join(Path(path).parts[Path(path).parts.index("endwell") + 1 :]).partition(".")[0]
        )
    return name.partition(".cpython")[0]


def toolchain(loop: str) -> str:
    """The versions on which the counts depend."""
    compiler = subprocess.run(
        ["cc", "-dumpfullversion"], capture_output=True, text=True, check=True
    ).stdout.strip()
    openssl = ".".join(map(str, ssl.OPENSSL_VERSION_INFO[:2]))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    version = f" {metadata.version('uvloop')}" if loop == "uvloop" else ""
    return f"{python}, {loop}{version}, cc {compiler}, OpenSSL {openssl}, {platform.machine()}"


def judge(counts: dict[str, int], loop: str, *, record: bool) -> int:
    """Compare the counts with the record, or write it. Return the exit status."""
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    key = toolchain(loop)
    if record:
        known[key] = known.get(key, {}) | counts
        RECORD.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        print(f"recorded for {key}")
        return 0
    if key not in known:
        print(f"no record for {key}: nothing is compared; --record makes one")
        return 0
    status = 0
    for row, count in counts.items():
        before = known[key].get(row)
        change = 0.0 if before is None else count / before - 1
        worse = change > TOLERANCE.get(row, DEFAULT_TOLERANCE)
        print(f"{row:17} {change:+7.1%} {'MORE THAN RECORDED' if worse else ''}")
        status = status or worse
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
