"""The target of a request, and its host."""

from __future__ import annotations

from ..errors import BadRequest
from .authority import parse_authority, split_authority

__all__ = ["check_hosts", "origin_form"]

#: The last Host that was well-formed, because most requests have the same.
_LAST_HOST: list[str | None] = [None]


def origin_form(target: str) -> tuple[str, str | None]:
    """The target as path and query; and its authority, if it is in absolute-form."""
    # RFC 9112 §3.2: no form of a target has a fragment.
    if "#" in target:
        raise BadRequest("the target has a fragment")
    if target.startswith("/"):
        return target, None
    scheme, _, hierarchy = target.partition("://")
    if scheme.lower() not in ("http", "https", "ws", "wss"):
        raise BadRequest("the target is neither a path nor an http, https, ws or wss URI")
    # RFC 9112 §3.2.2: a server "MUST accept the absolute-form in requests".
    authority, path = split_authority(hierarchy)
    return path, authority


def check_hosts(hosts: list[str], version: str) -> None:
    """Raise BadRequest unless the values of the Host fields are what ``version`` asks for."""
    # RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to
    # any HTTP/1.1 request message that lacks a Host header field and to any request
    # message that contains more than one Host header field line or a Host header
    # field with an invalid field value."
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise BadRequest("the request needs one Host field")
    for host in hosts:
        if host == _LAST_HOST[0]:
            continue
        try:
            parse_authority(host)
        except ValueError:
            raise BadRequest("the host of the request is malformed") from None
        _LAST_HOST[0] = host
