"""Cookies (RFC 6265)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

from .headers import TOKEN

__all__ = ["SameSite", "parse_cookies", "serialize_cookie"]

SameSite = Literal["strict", "lax", "none"]

#: RFC 6265 §4.1.1: cookie-octet = %x21 / %x23-2B / %x2D-3A / %x3C-5B / %x5D-7E.
_OCTETS = frozenset(chr(code) for code in range(0x21, 0x7F)) - frozenset('",;\\')


def parse_cookies(values: list[str]) -> dict[str, str]:
    """The cookies in the values of all Cookie fields. The first value of a repeated name is kept.

    RFC 6265 §5.4: "Cookies with longer paths are listed before cookies with shorter paths", so the first one
    is the most specific. A part without "=" has no name, and is left out.
    """
    cookies: dict[str, str] = {}
    for line in values:
        for part in line.split(";"):
            name, equals, value = part.partition("=")
            if not equals:
                continue
            value = value.strip(" \t")
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            cookies.setdefault(name.strip(" \t"), value)
    return cookies


def serialize_cookie(  # size: the attributes of a cookie are one list
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    expires: datetime | None = None,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = False,
    httponly: bool = False,
    samesite: SameSite | None = "lax",
    partitioned: bool = False,
) -> str:
    """The value of a Set-Cookie field; see :meth:`Response.set_cookie`."""
    if not name or not TOKEN.issuperset(name):
        raise ValueError(f"cookie name {name!r} is not a token")
    if not _OCTETS.issuperset(value):
        raise ValueError(
            f"value of cookie {name} has a space, a control character, a character outside ASCII, or one of "
            '",;\\: encode it, for example with urllib.parse.quote()'
        )
    parts = [f"{name}={value}"]
    if expires is not None:
        if expires.tzinfo is None:
            raise ValueError("expires needs a time zone")
        parts.append(f"Expires={format_datetime(expires.astimezone(UTC), usegmt=True)}")
    if max_age is not None:
        if isinstance(max_age, bool) or not isinstance(max_age, int):
            raise TypeError(f"max_age must be a number of seconds, not {max_age!r}")
        parts.append(f"Max-Age={max_age}")
    for attribute, text in (("Domain", domain), ("Path", path)):
        if text is not None:
            # RFC 6265 §4.1.1: any character except CTLs or ";".
            if ";" in text or not text.isascii() or not text.isprintable():
                raise ValueError(f"{attribute.lower()} {text!r} is not printable ASCII without ';'")
            parts.append(f"{attribute}={text}")
    if samesite is not None:
        if samesite not in ("strict", "lax", "none"):
            raise ValueError(f'samesite must be "strict", "lax", "none" or None, not {samesite!r}')
        parts.append(f"SameSite={samesite.capitalize()}")
    flags = (("Secure", secure), ("HttpOnly", httponly), ("Partitioned", partitioned))
    return "; ".join([*parts, *(flag for flag, is_set in flags if is_set)])
