"""Endings in text: as JSON, as a sentence, and in lines of logs that contain one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TextIO

from ..ending import Cause, Ending, TcpEnd

__all__ = ["MAX_LINE", "Recorded", "read", "texts"]

#: Longest line that is read, in characters. The record of an ending has 1,000, and two more texts: the reason
#: (123 bytes) and the exception.
MAX_LINE = 2**20
#: Longest JSON on several lines, each with the bytes of its object: what is held until the last bracket comes.
MAX_JSON = 16 * MAX_LINE
LINE_COST = 64


class Recorded(NamedTuple):
    """An ending, and the names of the fields that the text had. The others have their defaults."""

    ending: Ending
    known: frozenset[str]
    #: The text of the HandshakeError, and the HTTP status: `endwell connect --json` writes both.
    failure: str = ""
    status: int | None = None
    #: This side: "server" or "client"; the records of the logger endwell.endings have it.
    role: str | None = None
    #: Which connection it was, as far as the text says: the fields of a record of endwell.endings, and as
    #: `line` the part of a line before the sentence.
    context: Mapping[str, str] = {}


def texts(stream: TextIO) -> Iterator[tuple[int, str | None]]:
    """Yield each line that is not blank, with its number; None for a line that is too long.

    JSON on several lines, as `jq` writes it, is one text. Each element of a JSON array is one, too.
    """
    held: list[str] = []
    begun = size = 0
    for number, line in enumerate(_short_lines(stream), 1):
        if line is None or not (held or line.rstrip() in _CLOSING):
            yield from _held(begun, held)
            held = []
            if line is None or line.strip():
                yield from ((number, each) for each in _elements(line))
            continue
        if not held:
            begun, size = number, 0
        held.append(line)
        size += len(line) + LINE_COST
        # A program that indents JSON writes its last bracket, and none before, at the beginning of a line.
        if (len(held) > 1 and line.rstrip() == _CLOSING[held[0].rstrip()]) or size > MAX_JSON:
            yield from _held(begun, held)
            held = []
    yield from _held(begun, held)


_CLOSING = {"{": "}", "[": "]"}


def _held(begun: int, held: list[str]) -> Iterator[tuple[int, str | None]]:
    """Yield the JSON of the lines, or if they are none, each line."""
    whole = "".join(held)
    if held and _is_json(whole):
        yield from ((begun, each) for each in _elements(whole))
        return
    yield from ((number, line) for number, line in enumerate(held, begun) if line.strip())


def _short_lines(stream: TextIO) -> Iterator[str | None]:
    while line := stream.readline(MAX_LINE):
        if line.endswith("\n") or len(line) < MAX_LINE:
            yield line
            continue
        while (rest := stream.readline(MAX_LINE)) and not rest.endswith("\n"):
            pass
        yield None


def _elements(text: str | None) -> Iterator[str | None]:
    if text is not None and text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError):
            rows = None
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            yield from map(json.dumps, rows)
            return
    yield text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def read(text: str) -> Recorded | None:
    """Return the ending in ``text``; None if there is none.

    Raises:
        ValueError: The text has an ending that is not valid.
    """
    text = text.strip()
    # Other programs write something before the JSON. It reaches to the end of the line: a peer that puts JSON
    # into its path or its reason cannot end the line.
    begin = text.find("{")
    if begin >= 0 and text.endswith("}"):
        try:
            row = json.loads(text[begin:])
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            return _in_json(row)
    return _in_sentence(text)


def _in_json(row: Mapping[str, Any]) -> Recorded | None:
    values = row.get("ending")
    if isinstance(values, str):  # a formatter that knows no dicts
        found = read(values)
        return found and found._replace(context=_context(row))
    if not isinstance(values, dict):
        if not {"cause", "initiator"} <= set(row):
            found = next((each for each in map(read, _texts_of(row)) if each), None)
            return found and found._replace(context={**_context(row), **found.context})
        values = row
    try:
        ending = Ending.from_dict(values)
    except TypeError as error:
        raise ValueError(str(error)) from None
    failure, status, role = row.get("failure"), row.get("status"), row.get("role")
    return Recorded(
        ending,
        frozenset(values),
        failure if isinstance(failure, str) else "",
        status if isinstance(status, int) and not isinstance(status, bool) else None,
        role if role in ("server", "client") else None,
        _context(row),
    )


def _texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    return (value for value in row.values() if isinstance(value, str))


def _context(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in _CONTEXT if isinstance(row.get(name), str)}


_CONTEXT = ("time", "role", "address", "path", "route", "subject", "key")


_REPR = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_CLOSE = rf"(?:no\ code|\d{{4}}(?:\ [A-Z_]+)?(?:\ {_REPR})?(?:\ \(not\ transmitted\))?)"
_CAUSES = {cause.meaning: cause for cause in Cause}
_MEANING = "|".join(re.escape(meaning) for meaning in _CAUSES)
_CLEAN = {"clean": True, "not clean": False, "without a closing handshake": None}
#: The sentence: `Ending.__str__`.
_SENTENCE = re.compile(
    rf"""
    (?: peer\ closed\ with\ (?P<received>{_CLOSE})
      | (?P<meaning>{_MEANING})
        (?: ;\ we\ closed\ with\ (?P<sent>{_CLOSE})
            (?: (?P<unanswered>,\ unanswered) | ,\ answered\ with\ (?P<answer>{_CLOSE}) )?
          | \ \((?P<type>[\w.]+):\ (?P<text>{_REPR})\)
        )?
    )
    ;\ (?P<clean>clean|not\ clean|without\ a\ closing\ handshake),\ after\ (?P<duration>\d+\.\d)\ s
    (?: ;\ before\ that,\ this\ side\ was\ stalled\ for\ (?P<stalled>\d+\.\d)\ s )?
    """,
    re.VERBOSE,
)
_PARTS = re.compile(
    rf"(?P<code>\d{{4}})(?: [A-Z_]+)?(?: (?P<reason>{_REPR}))?(?P<not_transmitted> \(not transmitted\))?"
)
#: How TCP ended, for the causes that leave no other choice.
_TCP = {Cause.PEER_VANISHED: TcpEnd.FIN, Cause.CONNECTION_RESET: TcpEnd.RST}


def _in_sentence(text: str) -> Recorded | None:
    # The last one: a line may have a path before the sentence, which a peer chooses. What it puts into a
    # reason is within the sentence.
    # Most lines of a log have no sentence, and to search for its beginning takes longer than for this.
    every = list(_SENTENCE.finditer(text)) if ", after " in text and len(text) <= MAX_LINE else []
    if not every:
        return None
    found = every[-1]
    cause = Cause.PEER_CLOSED if found["received"] else _CAUSES[found["meaning"]]
    values: dict[str, Any] = {
        "cause": cause.value,
        "initiator": cause.initiator.value,
        "clean": _CLEAN[found["clean"]],
        "duration": float(found["duration"]),
        "stalled": float(found["stalled"] or 0),
        "received": _close(found["received"] or found["answer"]),
        "sent": _close(found["sent"]),
    }
    if found["type"]:
        values["exception"] = f"{found['type']}: {_unquote(found['text'])}"
    tcp = TcpEnd.TIMEOUT if found["unanswered"] else _TCP.get(cause)
    if tcp is not None:
        values["tcp"] = tcp.value
    before = text[: found.start()].strip()
    context = {"line": before} if before else {}
    return Recorded(Ending.from_dict(values), frozenset(values), context=context)


def _close(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    found = _PARTS.match(text)
    if found is None:
        return {"code": None, "reason": ""}
    return {
        "code": int(found["code"]),
        "reason": _unquote(found["reason"]) if found["reason"] else "",
        "not_transmitted": found["not_transmitted"] is not None,
    }


_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(000[0-9a-f]{5}|0010[0-9a-f]{4})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}


def _unquote(text: str) -> str:
    """The inverse of repr() for a str."""
    return _ESCAPE.sub(_unescape, text[1:-1])


def _unescape(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    return chr(int(digits, 16)) if digits else _CONTROLS.get(found[4], found[4])
