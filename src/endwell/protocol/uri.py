"""ws and wss URIs (RFC 6455 §3)."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from ..wire.authority import parse_authority, split_authority

__all__ = ["WebSocketURI", "parse_uri"]

#: RFC 3986 §2.2, §2.3: what may stand in a path or a query; "%" because it may be encoded already.
_SAFE = "/?:@!$&'()*+,;=-._~%"


@dataclass(frozen=True, slots=True)
class WebSocketURI:
    """Where to connect to, and what to ask for there."""

    secure: bool
    #: A name in ASCII, an IPv4 address, or an IPv6 address without brackets.
    host: str
    port: int
    #: Path and query as they go on the request line.
    target: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def authorization(self) -> str | None:
        """The value of the Authorization field if the URI has userinfo (RFC 7617)."""
        if self.username is None:
            return None
        # RFC 7617 §2.1: where the server does not name a charset, the client is free;
        # UTF-8 is what browsers send.
        credentials = f"{self.username}:{self.password or ''}".encode()
        return f"Basic {b64encode(credentials).decode()}"


def parse_uri(uri: str) -> WebSocketURI:
    """Parse a ws or wss URI; letters outside ASCII are encoded as IDNA and percent-encoding say.

    Raises ValueError. Its text never holds the userinfo, because it ends up in logs.
    """
    # RFC 3986 §2 has none of these characters; libraries that drop or reinterpret
    # them do not agree with each other on the host.
    if any(char <= " " or char in "\\\x7f" for char in uri):
        raise ValueError("uri contains white space, a control character or a backslash")
    scheme, _, hierarchy = uri.partition("://")
    secure = scheme.lower() == "wss"
    if not secure and scheme.lower() != "ws":
        raise ValueError("uri must begin with ws:// or wss://")
    # RFC 6455 §3: "Fragment identifiers are meaningless in the context of WebSocket
    # URIs and MUST NOT be used on these URIs."
    if "#" in hierarchy:
        raise ValueError("uri has a fragment")
    authority, target = split_authority(hierarchy)
    userinfo, _, authority = authority.rpartition("@")
    username, password = _credentials(userinfo) if userinfo else (None, None)
    try:
        host, port = parse_authority(_ascii_host(authority))
        target = quote(target, safe=_SAFE)
    except ValueError as error:
        raise ValueError(f"uri is malformed: {error}") from None
    if port == 0:
        raise ValueError("uri has port 0")
    return WebSocketURI(secure, host, port or (443 if secure else 80), target, username, password)


def _ascii_host(authority: str) -> str:
    """The authority with its host in ASCII (RFC 3490, as Python's codec has it)."""
    if authority.isascii():
        return authority
    host, colon, port = authority.partition(":")
    return host.encode("idna").decode() + colon + port


def _credentials(userinfo: str) -> tuple[str, str]:
    """User name and password, percent-decoded."""
    # RFC 3986 §3.2.1 has no "@" in userinfo: which of two ends it is a guess.
    if "@" in userinfo:
        raise ValueError('uri has "@" in its userinfo; write it as %40')
    name, _, password = userinfo.partition(":")
    username, password = unquote(name), unquote(password)
    # RFC 7617 §2: "a user-id containing a colon character is invalid", and neither
    # may contain control characters.
    if ":" in username or any(char < " " or char == "\x7f" for char in username + password):
        raise ValueError("uri has a colon in its user name, or a control character in its userinfo")
    return username, password
