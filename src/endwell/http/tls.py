"""What TLS says about a peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["TLSInfo", "tls_info"]


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """The TLS session of a connection, and the certificate of its peer.

    Example:
        ```python
        from endwell import Server

        server = Server()


        @server.websocket("/")
        async def handler(ws):
            if ws.tls is not None and ws.tls.certificate is not None:
                print(ws.tls.certificate["subject"])
        ```
    """

    #: The peer's certificate, as `ssl.SSLSocket.getpeercert()` returns it. None if the peer has sent none, or
    #: if the SSLContext does not verify it (`ssl.CERT_NONE`).
    certificate: dict[str, Any] | None
    #: The peer's certificate in DER, verified or not; None if the peer has sent none.
    certificate_der: bytes | None = field(repr=False)
    #: The protocol version, such as `"TLSv1.3"`.
    protocol: str | None
    #: The name of the cipher, such as `"TLS_AES_256_GCM_SHA384"`.
    cipher: str | None
    #: The protocol selected by ALPN, such as `"http/1.1"`; None if there is none.
    alpn: str | None


def tls_info(ssl_object: Any) -> TLSInfo:
    """The information in an ``ssl.SSLObject`` whose handshake is complete."""
    cipher = ssl_object.cipher()
    return TLSInfo(
        ssl_object.getpeercert() or None,
        ssl_object.getpeercert(binary_form=True),
        ssl_object.version(),
        None if cipher is None else cipher[0],
        ssl_object.selected_alpn_protocol(),
    )
