"""Connect to a server of your own CA, in blocking style: python examples/tls_client_blocking.py URL CA [CERT KEY]."""

import ssl
import sys

import endwell
from endwell import sync

url, authority, *own = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if own:
    context.load_cert_chain(*own)

try:
    with sync.connect(url, ssl=context) as ws:
        ws.send("hello")
        print("received:", ws.recv())
except (endwell.HandshakeError, endwell.ConnectionClosed) as exc:
    sys.exit(f"failed: {exc.ending}")
