"""The fields of a response that HTTP/1.1 requires."""

from __future__ import annotations

from email.utils import formatdate

from ..http import Headers, Request, Response

__all__ = ["complete"]

# The server sets these fields, because they depend on the body and on the state of the connection.
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})


def complete(response: Response, request: Request | None, now: float) -> Response:
    """Return ``response`` with the fields that HTTP requires, and without a body where HTTP forbids one.

    ``request`` is None if the request could not be parsed; ``now`` is ``time.time()``. The connection is
    never kept alive. So bytes that a client sends for a refused WebSocket are never parsed as a request
    (RFC 9931).
    """
    headers = Headers(field for field in response.headers if field[0].lower() not in _FRAMING)
    if "Date" not in headers:
        # RFC 9110 §6.6.1: "An origin server with a clock (...) MUST generate a Date header
        # field in all 2xx (Successful), 3xx (Redirection), and 4xx (Client Error)
        # responses".
        headers.add("Date", formatdate(now, usegmt=True))
    # RFC 9110 §7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
    headers.add("Connection", "close, Upgrade" if "Upgrade" in headers else "close")
    # RFC 9110 §15.3.5 and §15.4.5: 204 and 304 are "terminated by the end of the header
    # section"; §15.3.6: "a server MUST NOT generate content in a 205 response".
    body = b"" if response.status in (204, 205, 304) else response.body
    # §8.6: "A server MUST NOT send a Content-Length header field in any response with
    # a status code of 1xx (Informational) or 204 (No Content)". In a 304, the field would have
    # to be the length of the body of the 200.
    if response.status not in (204, 304):
        headers.add("Content-Length", str(len(body)))
    # §9.3.2: "The HEAD method is identical to GET except that the server MUST NOT send
    # content in the response."
    if request is not None and request.method == "HEAD":
        body = b""
    return Response(response.status, headers, body)
