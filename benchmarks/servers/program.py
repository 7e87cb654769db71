"""What all servers of the benchmark share: options, loop, start and end."""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from loops import LOOPS, loop_factory

#: Serves /echo and /broadcast on 127.0.0.1, under TLS if there is a context, and yields the port.
Serving = Callable[[ssl.SSLContext | None], AbstractAsyncContextManager[int]]
Ports = AsyncIterator[int]


def run(serving: Serving) -> None:
    """Print the port and serve until the standard input ends: no server outlives its benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=LOOPS, default="uvloop")
    parser.add_argument("--certificate", help="a file with the private key and the certificate: serve wss")
    args = parser.parse_args()
    context = None
    if args.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.certificate)
    with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
        runner.run(_serve(serving, context))


async def _serve(serving: Serving, context: ssl.SSLContext | None) -> None:
    async with serving(context) as port:
        print(port, flush=True)
        # Thousands of connections may be open: the program does not wait for them.
        asyncio.get_running_loop().add_reader(0, os._exit, 0)
        await asyncio.Event().wait()
