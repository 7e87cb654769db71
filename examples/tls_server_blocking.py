"""Echo over TLS to clients with a certificate, in blocking style: python examples/tls_server_blocking.py CERT KEY CLIENTS_CA [port]."""

import logging
import ssl
import sys

import endwell
from endwell import sync

server = endwell.Server()


@server.websocket("/{path:path}")
def echo(ws: sync.WebSocket, path: str) -> None:
    """The same handler as without TLS."""
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    certificate, key, clients = sys.argv[1:4]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # Without these two lines, clients need no certificate.
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(clients)
    server.run("127.0.0.1", int(sys.argv[4]) if len(sys.argv) > 4 else 8443, ssl=context)
