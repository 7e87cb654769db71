"""The values of HTTP: headers, request, response."""

from .accept import Accept
from .headers import CREDENTIALS, TOKEN, Headers, checked_headers, headers_of_lines, pack
from .request import NO_PARAMS, Query, Request, challenge_of, set_challenge
from .response import Response

__all__ = [
    "CREDENTIALS",
    "NO_PARAMS",
    "TOKEN",
    "Accept",
    "Headers",
    "Query",
    "Request",
    "Response",
    "challenge_of",
    "checked_headers",
    "headers_of_lines",
    "pack",
    "set_challenge",
]
