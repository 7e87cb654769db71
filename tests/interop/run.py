"""Run endwell against the installed WebSocket implementations, and print what each side observed.

    python tests/interop/run.py [PEER ...]

docs/reference/interop.md says what to install, and has the tables of the last run. Exit status: 0 if every
exchange
succeeded and every ending that endwell reported was true.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from browsers import browse
from catalog import BROWSERS, PEERS, Peer
from exchange import dial, serve
from report import HEADER, Row

import endwell

#: The timeout in seconds for one scenario.
PATIENCE = 60


async def main(names: list[str]) -> int:
    """Print the tables; the exit status."""
    print(f"endwell {endwell.__version__}, {len(endwell.compiled())} modules compiled")
    failed = 0
    for peer in [*BROWSERS, *PEERS]:
        if names and not any(name in peer.name for name in names):
            continue
        version = await peer.version()
        if version is None:
            print(f"{peer.name}: not installed", file=sys.stderr)
            continue
        print(f"\n### {peer.name} {version}\n\n{HEADER}", flush=True)
        for scenario in peer.as_client:
            failed += await show(browse if peer in BROWSERS else serve, peer, "server", scenario)
        for scenario in peer.as_server:
            failed += await show(dial, peer, "client", scenario)
    return 1 if failed else 0


async def show(play: Callable[[Peer, str], Awaitable[Row]], peer: Peer, role: str, scenario: str) -> bool:
    """Play one scenario with endwell in ``role`` and print its row; whether there was a fault."""
    try:
        async with asyncio.timeout(PATIENCE):
            row = await play(peer, scenario)
    except Exception as exc:  # one failing peer must not hide the others
        row = Row(role, scenario, faults=[repr(exc)])
    print(row, flush=True)
    return bool(row.faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help="part of a peer's name; default: all")
    sys.exit(asyncio.run(main(parser.parse_args().peers)))
