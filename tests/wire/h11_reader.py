"""Requests as h11 reads them: the reference for what this library accepts."""

from __future__ import annotations

import h11

from endwell import Headers

__all__ = ["comparable", "read_by_h11"]

Read = tuple[str, str, list[tuple[str, str]], bytes]


def read_by_h11(data: bytes) -> list[Read]:
    """The method, target, fields and body of each request, until the first one that is refused or incomplete."""
    found: list[Read] = []
    while data:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data)
        try:
            request, content = connection.next_event(), b""
            if not isinstance(request, h11.Request):
                break
            while isinstance(event := connection.next_event(), h11.Data):
                content += event.data
            if not isinstance(event, h11.EndOfMessage):
                break
        except h11.RemoteProtocolError:
            break
        fields = [(name.decode(), value.decode("latin-1")) for name, value in request.headers]
        found.append((request.method.decode(), request.target.decode(), fields, content))
        data = connection.trailing_data[0]
    return found


def comparable(headers: Headers) -> list[tuple[str, str]]:
    """The fields as h11 has them."""
    fields = [(name.lower(), value) for name, value in headers]
    return [(name, value.lower() if name == "transfer-encoding" else value) for name, value in fields]
