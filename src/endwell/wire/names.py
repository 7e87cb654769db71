"""Names in the heads of requests: the methods, and the names of the usual fields."""

from __future__ import annotations

__all__ = ["FIELD_NAMES", "METHODS"]

#: RFC 9110 §9, RFC 5789; then those of IANA's registry that an application may have, such as WebDAV's.
METHODS = frozenset(
    (
        *("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
        *("ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL"),
        *(
            "MOVE",
            "PROPFIND",
            "PROPPATCH",
            "QUERY",
            "REBIND",
            "REPORT",
            "SEARCH",
            "UNBIND",
            "UNLINK",
            "UNLOCK",
        ),
    )
)
#: The names of the fields that most requests have, which need no check: in the spelling of HTTP/1.1 and of HTTP/2.
FIELD_NAMES = frozenset(
    spelling
    for name in (
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "Authorization",
        "Cache-Control",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Cookie",
        "Host",
        "If-Modified-Since",
        "If-None-Match",
        "Origin",
        "Pragma",
        "Referer",
        "Sec-Fetch-Dest",
        "Sec-Fetch-Mode",
        "Sec-Fetch-Site",
        "Sec-Fetch-User",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Transfer-Encoding",
        "Upgrade",
        "Upgrade-Insecure-Requests",
        "User-Agent",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
    )
    for spelling in (name, name.lower())
)
