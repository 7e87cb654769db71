"""HTTP header fields, and what a request and a response have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = [
    "CREDENTIALS",
    "TOKEN",
    "Headers",
    "checked_headers",
    "copy_of",
    "headers_of_lines",
    "is_plain",
    "octets_of",
    "pack",
    "replace_list",
    "serialize_head",
]

#: RFC 9110 §5.6.2: the characters of a token, such as a header's name.
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

#: Fields whose values repr() hides, because a repr() is often logged (RFC 9110 §11.6, RFC 6265 §8.2).
CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization", "set-cookie"))
REDACTED = "[redacted]"

#: Connection and the fields that it must name (RFC 9110 §7.8 and §10.1.4), and the sizes of these names.
_CONTROL = frozenset(("connection", "upgrade", "te"))
CONNECTION_SIZE, UPGRADE_SIZE, TE_SIZE = len("connection"), len("upgrade"), len("te")


class Headers:
    """HTTP header fields, in order. Names are case-insensitive (RFC 9110 §5.1) and can repeat.

    `headers["Name"]` is the first value. `headers["Name"] = value` is `set()`. `del headers["Name"]` removes
    all fields of that name. Reading or deleting a missing field raises KeyError. Iteration gives pairs of a
    name and a value. `repr()` hides the values of Authorization, Proxy-Authorization, Cookie and Set-Cookie.

    Args:
        fields: A mapping, or pairs of a name and a value.

    Raises:
        TypeError: A name or a value is not a str.
        ValueError: A name is not a token, or a value has CR, LF, NUL or a character outside latin-1.

    Example:
        ```python
        from endwell import Headers

        headers = Headers({"Content-Type": "text/plain"})
        headers.add("Set-Cookie", "a=1")
        headers.add("Set-Cookie", "b=2")
        print(headers["content-type"], headers.get_all("set-cookie"), headers.get("ETag"))
        ```
    """

    __slots__ = ("_fields", "_lines", "_octets", "_plain")

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        #: The lines of a checked head as received; None if the fields were set or changed here.
        self._lines: str | None = None
        #: The parsed fields; None until they are first read.
        self._fields: list[tuple[str, str]] | None = []
        #: The results of :func:`octets_of` and :func:`is_plain`; None and 0 until they are known.
        self._octets: list[tuple[bytes, bytes]] | None = None
        self._plain = 0
        for name, value in fields.items() if isinstance(fields, Mapping) else fields:
            self.add(name, value)

    def names(self) -> list[str]:
        """The name of each field, in order. A repeated field repeats its name."""
        return [name for name, _ in self._unpacked()]

    def _changed(self) -> None:
        self._lines = self._octets = None
        self._plain = 0

    def _unpacked(self) -> list[tuple[str, str]]:
        fields = self._fields
        if fields is None:
            fields = []
            for line in self._lines.split("\r\n") if self._lines else ():
                name, colon, value = line.partition(":")
                if not colon:
                    raise ValueError("a line of the head has no colon")
                fields.append((name, value.strip(" \t")))
            self._fields = fields
        return fields

    def add(self, name: str, value: str) -> None:
        """Append a field.

        Args:
            name: The name of the field.
            value: Its value.

        Raises:
            TypeError: `name` or `value` is not a str.
            ValueError: `name` is not a token, or `value` has CR, LF, NUL or a character outside latin-1.
        """
        _check(name, value)
        self._unpacked().append((name, value))
        self._changed()

    def set(self, name: str, value: str) -> None:
        """Replace all fields of a name with one field, at the place of the first or at the end.

        Args:
            name: The name of the field.
            value: Its value.

        Raises:
            TypeError: `name` or `value` is not a str.
            ValueError: `name` is not a token, or `value` has CR, LF, NUL or a character outside latin-1.
        """
        _check(name, value)
        key = name.lower()
        fields: list[tuple[str, str]] = []
        found = False
        for field in self._unpacked():
            if field[0].lower() != key:
                fields.append(field)
            elif not found:
                found = True
                fields.append((name, value))
        if not found:
            fields.append((name, value))
        self._fields = fields
        self._changed()

    def remove(self, name: str) -> None:
        """Remove all fields of a name. It is no error if there are none.

        Args:
            name: The name of the fields.
        """
        key = name.lower()
        self._fields = [field for field in self._unpacked() if field[0].lower() != key]
        self._changed()

    def get_all(self, name: str) -> list[str]:
        """All values of a field, in order.

        Args:
            name: The name of the field.

        Returns:
            The values; an empty list if there is no such field.
        """
        name = name.lower()
        size = len(name)
        return [value for key, value in self._unpacked() if len(key) == size and key.lower() == name]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of a field; :meth:`get_all` gives all of them.

        Args:
            name: The name of the field, in any case.
            default: The result if there is no such field. Default: None.
        """
        name = name.lower()
        size = len(name)
        for key, value in self._unpacked():
            if len(key) == size and key.lower() == name:
                return value
        return default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.remove(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._unpacked())

    def __len__(self) -> int:
        return len(self._unpacked())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._unpacked() == other._unpacked()

    def __repr__(self) -> str:
        shown = [(name, REDACTED if name.lower() in CREDENTIALS else value) for name, value in self]
        return f"Headers({shown!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the pickle format of Cython, which a pure Python build cannot read.
        return _headers, (self._lines, None if self._fields is None else self._fields.copy())

    def list_of(self, name: str) -> list[str]:
        """The elements of a comma-separated field (RFC 9110 §5.6.1), over all fields of that name.

        Quoted strings are not recognized: a comma inside quotes separates elements, too.

        Args:
            name: The name of the field.
        """
        parts = [part.strip(" \t") for line in self.get_all(name) for part in line.split(",")]
        return [part for part in parts if part]


def checked_headers(fields: list[tuple[str, str]]) -> Headers:
    """Headers from fields whose names and values the caller has checked."""
    headers = Headers()
    headers._fields = fields
    return headers


def headers_of_lines(lines: str, fields: list[tuple[str, str]] | None = None) -> Headers:
    """Headers from the lines of a head. The caller has checked the names and values.

    Without ``fields``, the lines are split at the first access, which raises ValueError for a line without a
    colon.
    """
    headers = Headers.__new__(Headers)
    headers._lines = lines
    headers._fields = fields
    headers._octets = None
    headers._plain = 0
    return headers


def copy_of(headers: Headers) -> Headers:
    """Equal headers, with what is known about the fields."""
    copy = Headers.__new__(Headers)
    copy._lines = headers._lines
    copy._fields = headers._unpacked().copy()
    copy._octets = headers._octets
    copy._plain = headers._plain
    return copy


def octets_of(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The fields as bytes, with names in lower case. The caller must not change the list."""
    octets = headers._octets
    if octets is None:
        octets = []
        for name, value in headers._unpacked():
            octets.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        headers._octets = octets
    return octets


def is_plain(headers: Headers) -> bool:
    """Whether no field asks for anything of the connection, except that an HTTP/1.1 connection is kept alive."""
    if not headers._plain:
        headers._plain = 1
        for name, value in headers._unpacked():
            size = len(name)
            # Converting each name to lower case costs more than all the rest.
            if size in (TE_SIZE, UPGRADE_SIZE, CONNECTION_SIZE) and (
                name.lower() in _CONTROL and (size != CONNECTION_SIZE or value.lower() != "keep-alive")
            ):
                headers._plain = -1
                break
    return headers._plain > 0


def replace_list(headers: Headers, name: str, elements: list[str]) -> None:
    """Replace a comma-separated field of a received head; without ``elements``, remove it."""
    if elements:
        headers.set(name, ", ".join(elements))
    else:
        headers.remove(name)
    # Again in the form that pack() keeps.
    headers._lines = "\r\n".join([f"{name}: {value}" for name, value in headers._unpacked()])


def pack(headers: Headers) -> None:
    """Drop the parsed fields and keep the lines, if there are any: they take a third of the memory."""
    headers._octets = None
    if headers._lines is not None:
        headers._fields = None


def _headers(lines: str | None, fields: list[tuple[str, str]] | None) -> Headers:
    headers = Headers()
    headers._lines = lines
    headers._fields = fields
    return headers


def _check(name: str, value: str) -> None:
    """Check a field; raises as `Headers.add` does."""
    if not isinstance(name, str):
        raise TypeError(f"header name must be a str, not {name!r}")
    if not isinstance(value, str):
        # The message does not show the value, which may be a credential.
        raise TypeError(f"value of header {name} must be a str, not {type(value).__name__}")
    if not name or not TOKEN.issuperset(name):
        raise ValueError(f"header name {name!r} is not a token")
    # RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are
    # invalid and dangerous".
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError(f"value of header {name} contains CR, LF or NUL")
    # RFC 9110 §5.5: "Field values are usually constrained to the range of
    # US-ASCII". Other octets are decoded and encoded as latin-1.
    if not value.isascii() and max(value) > "\xff":
        raise ValueError(f"value of header {name} has a character outside latin-1")


def serialize_head(first_line: str, headers: Headers) -> bytes:
    """The bytes of a head: the first line, the fields and the empty line."""
    lines = headers._lines
    if lines is None:
        lines = "\r\n".join([f"{name}: {value}" for name, value in headers])
    head = f"{first_line}\r\n{lines}\r\n\r\n" if lines else f"{first_line}\r\n\r\n"
    return head.encode("latin-1")
