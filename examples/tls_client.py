"""Connect to a server whose certificate your own CA signed: python examples/tls_client.py URL CA [CERT KEY]."""

import asyncio
import ssl
import sys

import endwell

url, authority, *own = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if own:
    context.load_cert_chain(*own)


async def main() -> None:
    """Send one message and print the answer."""
    try:
        async with endwell.connect(url, ssl=context) as ws:
            await ws.send("hello")
            print("received:", await ws.recv())
    except (endwell.HandshakeError, endwell.ConnectionClosed) as exc:
        sys.exit(f"failed: {exc.ending}")


if __name__ == "__main__":
    asyncio.run(main())
