"""The numbers among the options of endwell.js: which values they may have, and what the constructor throws."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

from endwell.client.retry import RetryPolicy
from endwell.options import Options
from tests.browser.test_virtual import told
from tools.browser_constants import MAY_BE_0, defaults, unlimited, whole

NUMBERS = [name for name, value in defaults().items() if isinstance(value, int | float | None)]


def thrown(cases: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What the constructor throws for these options and values, and the number of WebSockets that it has made."""
    found = told(
        f"""
        const results = [];
        for (const [option, value] of {json.dumps(cases)}) {{
          const before = world.sockets.length;
          let text = "no error";
          try {{
            new ReconnectingWebSocket("ws://a/", {{ [option]: eval(value) }});
          }} catch (error) {{
            text = `${{error}}`;
          }}
          results.push([[option, value], `${{text}}, ${{world.sockets.length - before}} made`]);
        }}
        return results;
        """
    )
    return {(option, value): text for (option, value), text in found}


def test_every_number_is_known():
    assert len(NUMBERS) == 12
    assert {*MAY_BE_0, *unlimited(), *whole()} <= {*NUMBERS}


def test_a_value_that_is_no_number_is_a_type_error_that_names_the_option():
    values = ['"5"', '""', "true", "5n", "[5]", "({})", "() => 5", 'Symbol("5")', "new Number(5)"]
    for (option, _), text in thrown([(name, value) for name in NUMBERS for value in values]).items():
        assert text == f"TypeError: {option} must be a number, 0 made"


def test_a_number_out_of_range_is_a_range_error_that_names_the_option():
    wrong = [(name, value) for name in NUMBERS for value in ("NaN", "-1", "-Infinity", "-1e-9")]
    wrong += [(name, "0") for name in NUMBERS if name not in MAY_BE_0]
    wrong += [(name, "Infinity") for name in NUMBERS if name not in unlimited()]
    wrong += [(name, "1.5") for name in whole()]
    for (option, value), text in thrown(wrong).items():
        assert text == f"RangeError: {option} cannot be {value}, 0 made"


def test_the_other_numbers_are_accepted():
    right = [(name, value) for name in NUMBERS for value in ("1", "1e6", "undefined", "null")]
    right += [(name, "0") for name in MAY_BE_0]
    right += [(name, "Infinity") for name in unlimited()]
    right += [(name, "0.001") for name in NUMBERS if name not in whole()]
    assert {*thrown(right).values()} == {"no error, 1 made"}


def test_the_ranges_are_those_of_the_python_client():
    for name in NUMBERS:
        if name == "maxQueue":  # only in a page
            continue
        python = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
        for value, expected in (
            (1, True),
            (0, False),  # in a page, 0 switches off what None does here
            (-1, False),
            (math.nan, False),
            (math.inf, False),
            (1.5, name not in whole()),
            ("5", False),
            (None, name in unlimited()),
        ):
            assert accepted(python, value) == expected, (name, value)


def accepted(name: str, value: Any) -> bool:
    """Whether the option may have this value in Python."""
    kind = RetryPolicy if name in {field.name for field in dataclasses.fields(RetryPolicy)} else Options
    try:
        kind(**{name: value})
    except (TypeError, ValueError):
        return False
    return True


def test_a_client_that_never_retries_and_one_without_a_queue():
    """0 means something for these."""
    assert told(
        """
        const ws = new ReconnectingWebSocket("ws://a/", { maxRetries: 0, maxQueue: 0, pingInterval: 0, staleAfter: 0 });
        const sent = ws.send("queued");
        world.socket().open();
        await world.pass(3600);
        world.socket().end(1012);
        return [sent, ws.state.phase, ws.state.reason, world.sockets.length];
        """
    ) == [False, "stopped", "retries", 1]
