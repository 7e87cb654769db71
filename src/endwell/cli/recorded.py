"""Endings in text: as JSON, as a sentence, and in lines of logs that contain one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..ending import Cause, Ending, TcpEnd

__all__ = ["Recorded", "read"]


class Recorded(NamedTuple):
    """An ending, and the names of the fields that the text had. The others have their defaults."""

    ending: Ending
    known: frozenset[str]
    #: The text of the HandshakeError, and the HTTP status: `endwell connect --json` writes both.
    failure: str = ""
    status: int | None = None
    #: This side: "server" or "client"; the records of the logger endwell.endings have it.
    role: str | None = None


def read(text: str) -> Recorded | None:
    """Return the ending in ``text``; None if there is none.

    Raises:
        ValueError: The text has an ending that is not valid.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            return _in_json(row)
    return _in_sentence(text)


def _in_json(row: Mapping[str, Any]) -> Recorded | None:
    values = row.get("ending")
    if isinstance(values, str):  # a formatter that knows no dicts
        return read(values)
    if not isinstance(values, dict):
        if not {"cause", "initiator"} <= set(row):
            texts = [value for value in row.values() if isinstance(value, str)]
            return next((found for text in texts if (found := _in_sentence(text))), None)
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
        status if isinstance(status, int) else None,
        role if role in ("server", "client") else None,
    )


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
    every = list(_SENTENCE.finditer(text))
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
    return Recorded(Ending.from_dict(values), frozenset(values))


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
