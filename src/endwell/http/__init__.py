"""The values of HTTP: headers, request, response."""

from .accept import Accept
from .headers import CREDENTIALS, TOKEN, Headers, checked_headers, headers_of_lines, pack
from .request import NO_PARAMS, Query, Request, challenge_of, forward, set_body, set_challenge, set_link
from .response import Response
from .tls import TLSInfo

__all__ = [
    "CREDENTIALS",
    "NO_PARAMS",
    "TOKEN",
    "Accept",
    "Headers",
    "Query",
    "Request",
    "Response",
    "TLSInfo",
    "challenge_of",
    "checked_headers",
    "forward",
    "headers_of_lines",
    "pack",
    "set_body",
    "set_challenge",
    "set_link",
]
