"""The fields of a response that HTTP/1.1 requires."""

from __future__ import annotations

from email.utils import formatdate

from ..http import Headers, Request, Response, challenge_of

__all__ = ["allows_keep_alive", "complete", "complete_head", "has_body"]

# The server sets these fields, because they depend on the body and on the state of the connection.
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})


def allows_keep_alive(request: Request) -> bool:
    """Whether ``request`` allows another request on its connection.

    After a request for an upgrade there is none, because it is unknown whether the following bytes are HTTP
    (RFC 9931). Nor after a request of hixie-76, because a proxy may have read its last 8 bytes as the start of
    another request.
    """
    headers = request.headers
    # RFC 9110 §9.3.6: after a 2xx response to CONNECT, a proxy forwards all bytes blindly.
    if "Upgrade" in headers or challenge_of(request) or request.method == "CONNECT":
        return False
    if "Connection" not in headers:
        return request.version != "1.0"
    options = [option.lower() for option in headers.list_of("Connection")]
    # RFC 9112 §9.3: in HTTP/1.1 a connection persists unless the "close" option is present; in HTTP/1.0 only
    # if the "keep-alive" option is present.
    return "close" not in options and (request.version != "1.0" or "keep-alive" in options)


def complete(response: Response, request: Request | None, now: float, keep: bool = False) -> Response:
    """Return ``response`` with the fields that HTTP requires, and without a body where HTTP forbids one.

    ``request`` is None if the request could not be parsed; ``now`` is ``time.time()``. ``keep``: the connection
    is kept alive.
    """
    headers = _headers(response, request, now, keep)
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


def has_body(response: Response, request: Request) -> bool:
    """Whether the response to ``request`` has a body; see :func:`complete`."""
    return request.method != "HEAD" and response.status not in (204, 205, 304)


def complete_head(response: Response, request: Request, now: float, keep: bool = False) -> Response:
    """The head of a response whose length is unknown.

    RFC 9112 §6.1: "A server MUST NOT send a response containing Transfer-Encoding unless the corresponding
    request indicates HTTP/1.1". Without it, the end of TCP ends the body.
    """
    headers = _headers(response, request, now, keep)
    if request.version != "1.0" and response.status not in (204, 304):
        headers.add("Transfer-Encoding", "chunked")
    return Response(response.status, headers)


def _headers(response: Response, request: Request | None, now: float, keep: bool) -> Headers:
    """The fields of a response, except those that describe its length."""
    headers = Headers(field for field in response.headers if field[0].lower() not in _FRAMING)
    if "Date" not in headers:
        # RFC 9110 §6.6.1: "An origin server with a clock (...) MUST generate a Date header
        # field in all 2xx (Successful), 3xx (Redirection), and 4xx (Client Error)
        # responses".
        headers.add("Date", formatdate(now, usegmt=True))
    options = [] if keep else ["close"]
    if keep and request is not None and request.version == "1.0":
        options.append("keep-alive")
    # RFC 9110 §7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
    if "Upgrade" in headers:
        options.append("Upgrade")
    if options:
        headers.add("Connection", ", ".join(options))
    return headers
