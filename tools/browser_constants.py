"""Write constants of the Python code into endwell.js and its package.json: defaults, codes, causes.

`make docs` runs it; `make check` runs it with --check, which writes nothing and
fails if a file is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from endwell import __version__
from endwell.client.renewing import SHARE
from endwell.client.retry import RetryPolicy
from endwell.codes import RANGES, CloseCode, Retry, describe
from endwell.ending import Cause
from endwell.http.bearer import MARK, PREFIX, RENEWAL
from endwell.options import Options
from endwell.protocol import heartbeat

FOLDER = Path(__file__).parent.parent / "src" / "endwell" / "browser"
BLOCK = re.compile(r"(?<=^// Made by ).*?(?=^// End of what is made\.$)", re.MULTILINE | re.DOTALL)

#: The limits of Options that endwell.js has, too.
LIMITS = ("ping_interval", "ping_timeout", "stale_after", "open_timeout", "close_timeout")
#: The numbers of endwell.js that may be 0, which Python has as None or not at all: no retry, no heartbeat, no limit, no
#: queue.
MAY_BE_0 = ("maxRetries", "pingInterval", "staleAfter", "maxQueue")
#: The causes that a page can distinguish, in addition to PEER_CLOSED. A page does not learn how TCP ended,
#: nor the HTTP status.
CAUSES = (
    Cause.APP_CLOSED,
    Cause.KEEPALIVE_TIMEOUT,
    Cause.IDLE_TIMEOUT,
    Cause.PEER_VANISHED,
    Cause.HANDSHAKE_FAILED,
)


def defaults() -> dict[str, Any]:
    """The default options of endwell.js, by their names in JavaScript."""
    policy, limits = RetryPolicy(), Options()
    numbers = {limit.name: getattr(policy, limit.name) for limit in fields(policy) if limit.metadata}
    numbers |= {name: getattr(limits, name) for name in LIMITS}
    return {
        "protocols": [],
        **{_camel(name): number for name, number in numbers.items()},
        "codes": {},
        # Enough for what a user types during a network failure, and little memory.
        "maxQueue": 100,
        "whenFull": "refuse",
    }


def unlimited() -> list[str]:
    """The numbers that may be Infinity: those that may be None in Python, and the length of the queue."""
    names = [limit.name for limit in fields(RetryPolicy) if limit.metadata and limit.default is None]
    names += [limit.name for limit in fields(Options) if limit.name in LIMITS and limit.metadata["none"]]
    return [*map(_camel, names), "maxQueue"]


def whole() -> list[str]:
    """The numbers that have no fraction."""
    names = [limit.name for limit in fields(RetryPolicy) if limit.metadata.get("unit") == "tries"]
    return [*map(_camel, names), "maxQueue"]


def kinds() -> str:
    """What the default options may be: a digit for each."""
    found = ""
    for name, default in defaults().items():
        is_number = isinstance(default, int | float | None)
        bits = (name in MAY_BE_0) + 2 * (name in unlimited()) + 4 * (name not in whole())
        found += str(bits if is_number else 0)
    return found


def retry() -> tuple[dict[int, str], str]:
    """The codes whose Retry differs from that of their range, and a JavaScript expression for all others."""
    later = [row for row in RANGES if row.retry is Retry.LATER]
    rest = {row.retry for row in RANGES} - {Retry.LATER}
    if rest != {Retry.NEVER}:
        raise ValueError(f"endwell.js supports ranges with LATER and NEVER, not {rest}")
    codes = {
        int(code): code.retry.value
        for code in CloseCode
        if code.retry is not (Retry.LATER if _within(code, later) else Retry.NEVER)
    }
    return codes, " || ".join(f"(code >= {row.first} && code <= {row.last})" for row in later)


def overridable() -> str:
    """A regular expression for the codes that an ending in a page can have."""
    # A Close without a code, and no Close.
    local = (CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE)
    tens: dict[int, str] = {}
    for code in range(1000, 3000):
        if describe(code).may_receive or code in local:
            tens[code // 10] = tens.get(code // 10, "") + str(code % 10)
    thousands = "".join(str(row.first // 1000) for row in RANGES if row.may_receive)
    return "|".join([*(f"{ten}[{last}]" for ten, last in tens.items()), f"[{thousands}]\\d{{3}}"])


def block() -> str:
    """The generated part of endwell.js, after its first words."""
    codes, later = retry()
    causes = {cause.value: [cause.initiator.value, cause.retry.value] for cause in CAUSES}
    options = "".join(f"  {name}: {_js(default)},\n" for name, default in defaults().items())
    clean = [code for code in range(65536) if describe(code).clean]
    return (
        "tools/browser_constants.py: change what it reads, then run `make docs`.\n"
        f"/** @type {{Options}} */\nconst DEFAULTS = {{\n{options}}};\n"
        "// What each of these may be, beside positive whole numbers: 1: 0, 2: Infinity, 4: a fraction; 0: no number.\n"
        f'const KINDS = "{kinds()}";\n'
        f"/** @type {{Record<number, Retry>}} */\nconst CODES = {_js(codes)};\n"
        "/** @type {(code: number) => Retry} */\n"
        f'const retryOf = (code) => CODES[code] ?? ({later} ? "later" : "never");\n'
        f"const CLEAN = {_js(clean)};\n"
        f"const OVERRIDABLE = /^({overridable()}),({'|'.join(retry.value for retry in Retry)})$/;\n"
        f"const CAUSES = /** @type {{const}} */ ({_js(causes)});\n"
        f"const PAGE_LEFT = {int(CloseCode.PAGE_LEFT)};\n"
        f"const TIMEOUT = {int(CloseCode.TIMEOUT)};\n"
        f"const QUERY = {_js(heartbeat.QUERY)};\n"
        f"const QUESTION = {_js(heartbeat.QUESTION)};\n"
        f"const ANSWER = {_js(heartbeat.ANSWER)};\n"
        f"const MARK = {_js(MARK)};\n"
        f"const PREFIX = {_js(PREFIX)};\n"
        f"const RENEWAL = {_js(RENEWAL)};\n"
        f"const SHARE = {_js(SHARE)};\n"
    )


def semver(version: str) -> str:
    """Convert a Python version (PEP 440) to npm's format: 0.1.0.dev0 becomes 0.1.0-dev.0."""
    return re.sub(r"\.?(a|b|rc|dev)(\d+)", r"-\1.\2", version, count=1)


def _within(code: int, rows: list[Any]) -> bool:
    return any(row.first <= code <= row.last for row in rows)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _js(value: Any) -> str:
    match value:
        case None:
            return "Infinity"  # no limit
        case dict():
            return (
                "{ " + ", ".join(f"{key}: {_js(item)}" for key, item in value.items()) + " }"
                if value
                else "{}"
            )
        case list():
            return "[" + ", ".join(map(_js, value)) + "]"
        case float() if value.is_integer():
            return str(int(value))
    return json.dumps(value)


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    stale = []
    for name, pattern, new in (
        ("endwell.js", BLOCK, block()),
        ("package.json", re.compile(r'(?<="version": ").*?(?=")'), semver(__version__)),
    ):
        path = FOLDER / name
        old = path.read_text(encoding="utf-8")
        text, count = pattern.subn(lambda _, new=new: new, old)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{path} has {count} generated parts, expected 1")
        if text != old:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if stale:
        print("out of date, run `make docs`:" if check else "written:", *stale)
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
