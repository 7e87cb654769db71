"""The values of HTTP: headers, request, response."""

from .accept import Accept
from .headers import CREDENTIALS, TOKEN, Headers, checked_headers, headers_of_lines, pack
from .request import (
    NO_PARAMS,
    Body,
    Query,
    Request,
    challenge_of,
    forward,
    offers_bearer,
    renewed,
    set_bearer,
    set_body,
    set_challenge,
    set_link,
)
from .response import Response, StreamingResponse
from .tls import TLSInfo

__all__ = [
    "CREDENTIALS",
    "NO_PARAMS",
    "TOKEN",
    "Accept",
    "Body",
    "Headers",
    "Query",
    "Request",
    "Response",
    "StreamingResponse",
    "TLSInfo",
    "challenge_of",
    "checked_headers",
    "forward",
    "headers_of_lines",
    "offers_bearer",
    "pack",
    "renewed",
    "set_bearer",
    "set_body",
    "set_challenge",
    "set_link",
]
