"""ws and wss URIs (RFC 6455 §3)."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from unicodedata import normalize
from urllib.parse import quote, unquote

from ..wire.authority import join_authority, parse_authority, split_authority

__all__ = ["WebSocketURI", "ascii_host", "basic", "parse_uri", "split_uri"]

#: RFC 3986 §2.2, §2.3: characters that are not percent-encoded in a path or a query. "%" is one of them,
#: because the URI may be percent-encoded already.
_SAFE = "/?:@!$&'()*+,;=-._~%"


#: UTS 46 §7, "Deviation Characters": sharp s, final sigma, the two joiners. Python's codec replaces or
#: deletes them, as IDNA 2003 does; browsers keep them. The capital sharp s is included since Unicode 15.1.
_DEVIATIONS = frozenset("\u00df\u1e9e\u03c2\u200c\u200d")
#: RFC 3490 §3.1: characters that separate labels.
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
#: RFC 6874 §2: ZoneID = 1*( unreserved / pct-encoded ). No name of an interface needs the second.
_ZONE = re.compile("[A-Za-z0-9._~-]+")


@dataclass(frozen=True, slots=True)
class WebSocketURI:
    """A parsed ws or wss URI."""

    #: Whether the scheme is wss.
    secure: bool
    #: A name in ASCII, an IPv4 address, or an IPv6 address without brackets.
    host: str
    port: int
    #: Path and query for the request line.
    target: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    #: The zone of a link-local IPv6 address, such as ``eth0``. It has a meaning on this machine only, so it is
    #: in neither the Host nor the TLS host name.
    zone: str | None = None

    def __str__(self) -> str:
        """The URI for errors and logs, without the userinfo and the query, which may hold credentials."""
        path, query, _ = self.target.partition("?")
        return f"{self.origin}{path}{query and '?...'}"

    @property
    def origin(self) -> str:
        """Scheme, host and port as a URI."""
        zone = "" if self.zone is None else f"%25{self.zone}"
        return f"{'wss' if self.secure else 'ws'}://{join_authority(self.host + zone, self.port)}"

    @property
    def address(self) -> str:
        """The host for the lookup of its address."""
        return self.host if self.zone is None else f"{self.host}%{self.zone}"

    @property
    def authorization(self) -> str | None:
        """The value of the Authorization field (RFC 7617); None if the URI has no userinfo."""
        if self.username is None:
            return None
        return basic(self.username, self.password)


def basic(username: str, password: str | None) -> str:
    """Return the value of an Authorization field (RFC 7617)."""
    # RFC 7617 §2.1: without a charset from the server, the client chooses one. Browsers use UTF-8.
    credentials = f"{username}:{password or ''}".encode()
    return f"Basic {b64encode(credentials).decode()}"


def parse_uri(uri: str) -> WebSocketURI:
    """Parse a ws or wss URI. Other than ASCII, the host is encoded as IDNA, the rest percent-encoded.

    The zone of an IPv6 address is written after ``%25`` (RFC 6874).

    Raises ValueError, and TypeError if ``uri`` is not a str. The text of the exception never quotes the
    userinfo, because exceptions are logged.
    """
    scheme, authority, target, username, password = split_uri(uri, "uri")
    if scheme not in ("ws", "wss"):
        raise ValueError("uri must begin with ws:// or wss://")
    secure = scheme == "wss"
    try:
        authority, zone = _split_zone(authority)
        host, port = parse_authority(ascii_host(authority))
        target = quote(target, safe=_SAFE)
    except ValueError as error:
        raise ValueError(f"uri is malformed: {error}") from None
    if port == 0:
        raise ValueError("uri has port 0")
    return WebSocketURI(secure, host, port or (443 if secure else 80), target, username, password, zone)


def split_uri(uri: str, name: str) -> tuple[str, str, str, str | None, str | None]:
    """Split into scheme (in lower case), authority, target, user name and password; ``name`` is for errors.

    Raises ValueError and TypeError as :func:`parse_uri` does.
    """
    if not isinstance(uri, str):
        raise TypeError(f"{name} must be a str, not {type(uri).__name__}")
    # RFC 3986 §2 allows none of these characters. Libraries that drop or reinterpret them disagree about the
    # host.
    if any(char <= " " or char in "\\\x7f" for char in uri):
        raise ValueError(f"{name} contains white space, a control character or a backslash")
    scheme, _, hierarchy = uri.partition("://")
    # RFC 6455 §3: "Fragment identifiers are meaningless in the context of WebSocket
    # URIs and MUST NOT be used on these URIs."
    if "#" in hierarchy:
        raise ValueError(f"{name} has a fragment")
    authority, target = split_authority(hierarchy)
    userinfo, _, authority = authority.rpartition("@")
    username, password = _credentials(userinfo, name) if userinfo else (None, None)
    return scheme.lower(), authority, target, username, password


def _split_zone(authority: str) -> tuple[str, str | None]:
    """The authority without the zone of its IPv6 address, and the zone."""
    literal, bracket, port = authority.partition("]")
    address, percent, zone = literal.partition("%")
    if not (literal.startswith("[") and percent):
        return authority, None
    if not zone.startswith("25") or _ZONE.fullmatch(zone[2:]) is None:
        raise ValueError("the zone of an IPv6 address is written after %25, as in [fe80::1%25eth0]")
    return f"{address}{bracket}{port}", zone[2:]


def ascii_host(authority: str) -> str:
    """The authority with its host in ASCII (RFC 3490, by Python's ``idna`` codec).

    Raises ValueError for a host with a character of :data:`_DEVIATIONS`.
    """
    if authority.isascii():
        return authority
    host, colon, port = authority.partition(":")
    if not _DEVIATIONS.isdisjoint(host):
        raise ValueError(
            f"the host {host!r} is ambiguous: it has a character that IDNA 2003 replaces and IDNA 2008 keeps; "
            f"write {_a_labels(host)!r} for the host that browsers use"
        )
    return host.encode("idna").decode() + colon + port


def _a_labels(host: str) -> str:
    """The host as the A-labels of IDNA 2008 (RFC 5890 §2.3.2.1)."""
    labels = []
    for label in _DOTS.split(host):
        # Character by character, because str.lower() of a word turns its last sigma into a final sigma.
        small = "".join(map(str.lower, normalize("NFC", label)))
        labels.append(small if small.isascii() else f"xn--{small.encode('punycode').decode()}")
    return ".".join(labels)


def _credentials(userinfo: str, uri: str) -> tuple[str, str]:
    """User name and password, percent-decoded."""
    # RFC 3986 §3.2.1 allows no "@" in the userinfo. With two, the end of the userinfo is ambiguous.
    if "@" in userinfo:
        raise ValueError(f'{uri} has "@" in its userinfo; write it as %40')
    name, _, password = userinfo.partition(":")
    username, password = unquote(name), unquote(password)
    # RFC 7617 §2: "a user-id containing a colon character is invalid", and neither
    # may contain control characters.
    if ":" in username or any(char < " " or char == "\x7f" for char in username + password):
        raise ValueError(f"{uri} has a colon in its user name, or a control character in its userinfo")
    return username, password
