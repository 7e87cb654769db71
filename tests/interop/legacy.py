"""Run endwell against implementations of the protocols before RFC 6455, and print what each side observed.

    python tests/interop/legacy.py [PEER ...]

docs/howto/legacy.md says what to install, and has the table of the last run. Exit status: 0 if every
exchange
succeeded and every ending that endwell reported was true. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from catalog import Peer
from report import Row
from tap import Close, Frames, Tap, Wire

import endwell
from endwell import Ending, Initiator, WebSocket

SCENARIOS = ("client-closes", "server-closes", "drop", "reset")
MESSAGES = ("hello", "é" * 200)
PATIENCE = 20
#: Seconds for data that may still be in the tap when both sides have finished.
SETTLE = 0.1
OPTIONS = endwell.Options(close_timeout=2, legacy=True)
PEERS = Path(__file__).parent / "peers"

HIXIE = ("hixie-75", "hixie-76")
EARLY = "hybi-03"


@dataclass(frozen=True)
class OldPeer:
    """A program, and the protocols that it supports in each role."""

    peer: Peer
    as_client: tuple[str, ...]
    as_server: tuple[str, ...]


def _peer(name: str, *command: str) -> Peer:
    return Peer(name, (*command[:-1], str(PEERS / command[-1])))


CATALOG = (
    OldPeer(_peer("Perl Protocol::WebSocket", "perl", "legacy.pl"), (*HIXIE, "hybi-08"), (*HIXIE, "hybi-08")),
    OldPeer(_peer("Ruby websocket", "ruby", "legacy_gem.rb"), (*HIXIE, EARLY, "hybi-07", "hybi-08"), ()),
    OldPeer(_peer("Ruby websocket-driver", "ruby", "legacy_driver.rb"), (), (*HIXIE, "hybi-07", "hybi-08")),
    OldPeer(_peer("Ruby em-websocket", "ruby", "legacy_em.rb"), (), (*HIXIE, EARLY, "hybi-07", "hybi-08")),
    OldPeer(_peer("node websocket-driver", "node", "legacy_driver.cjs"), (), HIXIE),
)

HEADER = """\
| endwell is | protocol | what happens | the peer reported | endwell reported | on the wire | correct |
|---|---|---|---|---|---|---|"""


class OldFrames(Frames):
    """Finds the Close of one direction of an old protocol."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        self._closed = False

    def feed(self, data: bytes) -> list[Close]:
        if self.version in ("hybi-07", "hybi-08"):
            return super().feed(data)
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end or self._closed:
            return []
        if self.version != "hixie-75":
            rest = rest[8 if head.startswith(b"GET") else 16 :]
        self._closed = _hixie_closed(rest) if self.version in HIXIE else _early_closed(rest)
        return [Close(None, "")] if self._closed else []


def _hixie_closed(data: bytes) -> bool:
    while data[:1] == b"\0" and b"\xff" in data:
        data = data.partition(b"\xff")[2]
    return data[:2] == b"\xff\0"


def _early_closed(data: bytes) -> bool:
    while len(data) >= 2:
        if data[0] & 0x0F == 1:
            return True
        size, start = (data[1], 2) if data[1] < 126 else (int.from_bytes(data[2:4], "big"), 4)
        data = data[start + size :]
    return False


@dataclass
class OldRow(Row):
    """A row of one protocol."""

    version: str = ""

    def checks(self, ending: Ending, wire: Wire) -> dict[str, tuple[object, object]]:
        checks = super().checks(ending, wire)
        # A code that could not be sent is reported too, and marked.
        not_transmitted = ending.initiator is Initiator.LOCAL and self.version in (*HIXIE, EARLY)
        checks["not transmitted"] = (ending.sent is not None and ending.sent.not_transmitted, not_transmitted)
        if not_transmitted:
            del checks["sent"]
        if self.version == "hixie-75":
            checks["clean"] = (ending.clean, None)
        return checks

    def cells(self) -> list[str]:
        return [self.role, self.version, self.scenario, self.told, self.ours(), str(self.wire or "")]


async def serve(old: OldPeer, row: OldRow) -> None:
    """The peer is the client."""
    server = endwell.Server(OPTIONS)
    tap = Tap(frames=lambda: OldFrames(row.version))

    @server.websocket("/")
    async def handler(ws: WebSocket) -> None:
        row.watch(ws, tap)
        with suppress(endwell.ConnectionClosed):
            async for message in ws:
                if message == "server-closes":
                    await ws.close(4001, "srv")
                elif message in ("drop", "reset"):
                    getattr(tap, str(message))()
                else:
                    await ws.send(message)

    async with server.serving(), tap:
        tap.target = server.port
        url = f"ws://127.0.0.1:{tap.port}/"
        row.told, fault = await old.peer.run("client", url, row.version, row.scenario)
        row.faults += filter(None, [fault])
        await asyncio.sleep(SETTLE)


async def dial(old: OldPeer, row: OldRow) -> None:
    """The peer is the server."""
    async with old.peer.running("server") as process:
        port = int(await old.peer.line(process))
        async with Tap(port, lambda: OldFrames(row.version)) as tap:
            url = f"ws://127.0.0.1:{tap.port}/"
            ws = await endwell.connect(url, options=replace(OPTIONS, version=row.version))
            row.watch(ws, tap)
            for message in MESSAGES:
                await ws.send(message)
                if await ws.recv() != message:
                    row.faults.append("the echo differs")
            if row.scenario == "client-closes":
                await ws.close(3001, "bye")
            elif row.scenario == "server-closes":
                await ws.send(row.scenario)
            else:
                getattr(tap, row.scenario)()
            await ws.closed
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    row.told = await old.peer.line(process)
            await asyncio.sleep(SETTLE)


async def main(names: list[str]) -> int:
    """Print the tables; the exit status."""
    print(f"endwell {endwell.__version__}, {len(endwell.compiled())} modules compiled")
    failed = 0
    for old in CATALOG:
        if names and not any(name in old.peer.name for name in names):
            continue
        version = await old.peer.version()
        if version is None:
            print(f"{old.peer.name}: not installed", file=sys.stderr)
            continue
        print(f"\n### {old.peer.name} {version}\n\n{HEADER}", flush=True)
        for role, play, spoken in (("server", serve, old.as_client), ("client", dial, old.as_server)):
            for protocol in spoken:
                for scenario in SCENARIOS:
                    failed += await show(play, old, OldRow(role, scenario, version=protocol))
    return 1 if failed else 0


async def show(play, old: OldPeer, row: OldRow) -> bool:
    """Play one scenario and print its row; whether there was a fault."""
    try:
        async with asyncio.timeout(PATIENCE):
            await play(old, row)
    except Exception as exc:  # one failing peer must not hide the others
        row.faults.append(repr(exc))
    print(row.judge(), flush=True)
    return bool(row.faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help="part of a peer's name; default: all")
    sys.exit(asyncio.run(main(parser.parse_args().peers)))
