"""What an application learns about the TLS session and the certificate of its peer."""

from __future__ import annotations

import ssl

import pytest
import trustme

from endwell import HandshakeRejected, Response, Server, TLSInfo
from tests.pair import nothing_left_behind, until, within
from tests.raw import HOST

AUTHORITY = trustme.CA()


def contexts(verify):
    """The contexts of a server and of a client that has a certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost", HOST).configure_cert(server)
    server.verify_mode = verify
    AUTHORITY.configure_trust(server)
    server.set_alpn_protocols(["http/1.1"])
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    AUTHORITY.issue_cert("ann@example.com", common_name="ann").configure_cert(client)
    client.set_alpn_protocols(["http/1.1"])
    return server, client


def common_name(tls):
    return dict(pair for (pair,) in tls.certificate["subject"]).get("commonName")


@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
async def test_both_sides_see_the_certificate_protocol_cipher_and_alpn(face, protocol):
    seen, server = [], Server()
    ours, theirs = contexts(ssl.CERT_REQUIRED)
    theirs.minimum_version = theirs.maximum_version = getattr(ssl.TLSVersion, protocol.replace(".", "_"))

    @server.process_request
    def hook(request):
        seen.append(request.tls)

    async def script(ws):
        seen.extend([ws.tls, ws.request.tls])
        await ws.close()

    server.websocket("/")(face.handler(script))
    ended = []
    server.on_close(lambda ws, ending: ended.append(ws.tls))
    async with nothing_left_behind(), server.serving(ssl=ours):
        ws = await within(face.connect(f"wss://{HOST}:{server.port}/", ssl=theirs))
        mine = ws.tls
        await within(ws.wait_closed())
        await until(lambda: ended)
    first = seen[0]
    assert isinstance(first, TLSInfo)
    assert seen == [first] * 3
    # It was read before the end, so it is known after it.
    assert ended == [first]
    assert (common_name(first), first.protocol, first.alpn) == ("ann", protocol, "http/1.1")
    assert first.cipher
    assert ssl.DER_cert_to_PEM_cert(first.certificate_der).startswith("-----BEGIN CERTIFICATE")
    assert (mine.protocol, mine.cipher, mine.alpn) == (protocol, first.cipher, "http/1.1")
    assert ("DNS", "localhost") in mine.certificate["subjectAltName"]


async def test_a_client_without_a_certificate_has_none_and_plain_tcp_has_no_tls(face, transport):
    seen, server = [], Server()

    async def script(ws):
        seen.append(ws.tls)
        await ws.close()

    server.websocket("/")(face.handler(script))
    scheme = "ws" if transport.server is None else "wss"
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        ws = await within(face.connect(f"{scheme}://{HOST}:{server.port}/", ssl=transport.client))
        mine = ws.tls
        await within(ws.wait_closed())
        await until(lambda: seen)
    if transport.server is None:
        assert (seen, mine) == ([None], None)
    else:
        assert (seen[0].certificate, seen[0].certificate_der) == (None, None)
        assert mine.certificate is not None


async def test_a_certificate_that_decides_about_the_connection(face):
    server = Server()
    ours, theirs = contexts(ssl.CERT_OPTIONAL)

    def decide(request):
        if request.tls is None or common_name(request.tls) != "bob":
            return Response.text("only bob", 403)
        return None

    server.websocket("/", accept=decide)(face.handler(lambda ws: None))
    refused = []
    server.on_refused(lambda request, status, reason: refused.append(status))
    async with nothing_left_behind(), server.serving(ssl=ours):
        with pytest.raises(HandshakeRejected, match="403"):
            await within(face.connect(f"wss://{HOST}:{server.port}/", ssl=theirs))
    assert refused == [403]
