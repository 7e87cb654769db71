"""The scope of a request: what an ASGI application is told about it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

from ..http.headers import octets_of
from ..http.request import Request
from ..http.tls import TLSInfo

__all__ = ["SPEC_VERSION", "Kind", "route_of", "scope_of", "tls_extension"]

Kind: TypeAlias = Literal["http", "websocket"]

#: The version of the specification, www.rst, that the events follow. 2.5 added ``reason`` to the event of the end.
SPEC_VERSION = "2.5"

#: RFC 8446 §4.2.1: the numbers of the versions.
_TLS_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
#: The short names of RFC 4514 §3; others are written as they are.
_ATTRIBUTES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}

#: The keys of a scope, and the values that most requests have.
_HTTP: dict[str, Any] = {
    "type": "http",
    "asgi": None,
    "http_version": "1.1",
    "scheme": "http",
    "server": None,
    "client": None,
    "root_path": "",
    "path": "",
    "raw_path": b"",
    "query_string": b"",
    "headers": None,
    "method": "GET",
}
_WEBSOCKET = {key: value for key, value in _HTTP.items() if key != "method"} | {
    "type": "websocket",
    "scheme": "ws",
    "subprotocols": None,
}


def scope_of(
    request: Request, kind: Kind, client: object, server: object, root_path: str, version: str
) -> dict[str, Any]:
    """The scope of a request, without ``state`` and ``extensions``.

    ``root_path`` is not part of the request's target: a proxy has removed it.
    """
    target = request.target
    headers = request.headers
    path, query = target, b""
    if "?" in target:
        path, _, rest = target.partition("?")
        query = rest.encode("latin-1")
    # A copy costs a third of a dict display.
    scope: dict[str, Any] = (_HTTP if kind == "http" else _WEBSOCKET).copy()
    scope["asgi"] = {"version": version, "spec_version": SPEC_VERSION}
    scope["server"] = server
    scope["client"] = client
    if request.version != "1.1":
        scope["http_version"] = request.version
    if request.secure:
        scope["scheme"] = "https" if kind == "http" else "wss"
    scope["raw_path"] = (root_path + path).encode("latin-1")
    if "%" in path:
        path = unquote(path)
    scope["path"] = root_path + path
    scope["root_path"] = root_path
    scope["query_string"] = query
    scope["headers"] = octets_of(headers).copy()
    if kind == "http":
        scope["method"] = request.method
    else:
        scope["subprotocols"] = (
            headers.list_of("Sec-WebSocket-Protocol") if "Sec-WebSocket-Protocol" in headers else []
        )
    return scope


def route_of(scope: Mapping[str, Any]) -> str | None:
    """The pattern of the route that the router of a framework has chosen; None if it has not said it."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None


def tls_extension(info: TLSInfo) -> dict[str, Any]:
    """The extension ``tls``. The certificate of the server and the cipher suite are not known by number here."""
    der, certificate = info.certificate_der, info.certificate
    return {
        "server_cert": None,
        "client_cert_chain": [] if der is None else [ssl.DER_cert_to_PEM_cert(der)],
        "client_cert_name": None if certificate is None else _name_of(certificate),
        "client_cert_error": None,
        "tls_version": _TLS_VERSIONS.get(info.protocol or ""),
        "cipher_suite": None,
    }


def _name_of(certificate: Mapping[str, Any]) -> str:
    """The subject of a certificate, as RFC 4514 writes it: the last element comes first."""
    elements = []
    for element in reversed(certificate.get("subject", ())):
        pairs = [f"{_ATTRIBUTES.get(name, name)}={_escaped(value)}" for name, value in element]
        elements.append("+".join(pairs))
    return ",".join(elements)


def _escaped(value: str) -> str:
    """RFC 4514 §2.4: special characters are escaped with a backslash."""
    escaped = "".join(f"\\{char}" if char in '"+,;<>\\' else char for char in value)
    if escaped[:1] in ("#", " "):
        escaped = f"\\{escaped}"
    return f"{escaped[:-1]}\\ " if escaped.endswith(" ") and len(escaped) > 1 else escaped
