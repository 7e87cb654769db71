"""Cookies (RFC 6265)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal

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


def serialize_cookie(name: str, value: str, attributes: Mapping[str, Any]) -> str:
    """The value of a Set-Cookie field; see :meth:`Response.set_cookie`. An attribute that is None is left out."""
    for what, text in (("name", name), ("value", value)):
        if not isinstance(text, str):
            raise TypeError(f"the {what} of a cookie must be a str, not {text!r}")
    if not name or not TOKEN.issuperset(name):
        raise ValueError(f"cookie name {name!r} is not a token")
    if not _OCTETS.issuperset(value):
        raise ValueError(
            f"value of cookie {name} has a space, a control character, a character outside ASCII, or one of "
            '",;\\: encode it, for example with urllib.parse.quote()'
        )
    parts = [f"{name}={value}"]
    for attribute, given in attributes.items():
        if given is not None and (text := _FORMATS[attribute](attribute, given)):
            parts.append(text)
    return "; ".join(parts)


def _time(attribute: str, given: datetime) -> str:
    if not isinstance(given, datetime):
        raise TypeError(f"{attribute.lower()} must be a datetime, not {given!r}")
    if given.tzinfo is None:
        raise ValueError(f"{attribute.lower()} needs a time zone")
    return f"{attribute}={format_datetime(given.astimezone(UTC), usegmt=True)}"


def _seconds(attribute: str, given: int) -> str:
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"max_age must be a number of seconds, not {given!r}")
    return f"{attribute}={given}"


def _text(attribute: str, given: str) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{attribute.lower()} must be a str, not {given!r}")
    # RFC 6265 §4.1.1: any character except CTLs or ";".
    if ";" in given or not given.isascii() or not given.isprintable():
        raise ValueError(f"{attribute.lower()} {given!r} is not printable ASCII without ';'")
    return f"{attribute}={given}"


def _same_site(attribute: str, given: SameSite) -> str:
    if given not in ("strict", "lax", "none"):
        raise ValueError(f'samesite must be "strict", "lax", "none" or None, not {given!r}')
    return f"{attribute}={given.capitalize()}"


def _flag(attribute: str, given: object) -> str:
    return attribute if given else ""


#: The function that checks and formats each attribute.
_FORMATS: dict[str, Callable[[str, Any], str]] = {
    "Expires": _time,
    "Max-Age": _seconds,
    "Domain": _text,
    "Path": _text,
    "SameSite": _same_site,
    "Secure": _flag,
    "HttpOnly": _flag,
    "Partitioned": _flag,
}
