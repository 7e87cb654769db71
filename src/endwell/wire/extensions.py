"""The grammar of Sec-WebSocket-Extensions (RFC 6455 §9.1)."""

from __future__ import annotations

from ..http import TOKEN

__all__ = ["Extension", "Parameters", "parse_extensions"]

#: Pairs of a name and a value, in order; the value is None if the parameter has none. Names can repeat.
Parameters = list[tuple[str, str | None]]
Extension = tuple[str, Parameters]


def parse_extensions(values: list[str]) -> list[Extension]:
    """The extensions in the values of all Sec-WebSocket-Extensions fields, in order.

    Raises ValueError if they break the grammar. The parser looks at every character once: CVE-2021-32640 was
    a regular expression for this grammar.

    ::

        extension-list = 1#extension
        extension = extension-token *( ";" extension-param )
        extension-param = token [ "=" (token | quoted-string) ]
    """
    # RFC 6455 §9.1: "Note that like other HTTP header fields, this header field MAY
    # be split or combined across multiple lines."
    text = ",".join(values)
    extensions: list[Extension] = []
    pos = _skip(text, 0, " \t,")
    while pos < len(text):
        name, pos = _token(text, pos)
        parameters: Parameters = []
        while (pos := _skip(text, pos)) < len(text) and text[pos] == ";":
            parameter, pos = _parameter(text, _skip(text, pos + 1))
            parameters.append(parameter)
        if pos < len(text) and text[pos] != ",":
            raise _malformed("',' or ';'", text, pos)
        extensions.append((name, parameters))
        # RFC 9110 §5.6.1.2: "A recipient MUST parse and ignore a reasonable number
        # of empty list elements".
        pos = _skip(text, pos, " \t,")
    if values and not extensions:
        raise _malformed("a token", text, pos)
    return extensions


def _parameter(text: str, pos: int) -> tuple[tuple[str, str | None], int]:
    name, pos = _token(text, pos)
    after = _skip(text, pos)
    if after == len(text) or text[after] != "=":
        return (name, None), pos
    pos = _skip(text, after + 1)
    value, pos = _quoted(text, pos + 1) if text.startswith('"', pos) else _token(text, pos)
    return (name, value), pos


def _token(text: str, pos: int) -> tuple[str, int]:
    start = pos
    while pos < len(text) and text[pos] in TOKEN:
        pos += 1
    if pos == start:
        raise _malformed("a token", text, pos)
    return text[start:pos], pos


def _quoted(text: str, pos: int) -> tuple[str, int]:
    """The rest of a quoted string, unescaped, and where it ends."""
    value: list[str] = []
    while pos < len(text) and text[pos] != '"':
        if text[pos] == "\\":
            pos += 1
        # RFC 6455 §9.1: "When using the quoted-string syntax variant, the value after
        # quoted-string unescaping MUST conform to the 'token' ABNF."
        if pos == len(text) or text[pos] not in TOKEN:
            raise _malformed("a token in quotes", text, pos)
        value.append(text[pos])
        pos += 1
    if pos == len(text) or not value:
        raise _malformed("a token in quotes", text, pos)
    return "".join(value), pos + 1


def _skip(text: str, pos: int, blanks: str = " \t") -> int:
    while pos < len(text) and text[pos] in blanks:
        pos += 1
    return pos


def _malformed(expected: str, text: str, pos: int) -> ValueError:
    found = repr(text[pos : pos + 20]) if pos < len(text) else "its end"
    return ValueError(f"Sec-WebSocket-Extensions is malformed: expected {expected}, found {found}")
