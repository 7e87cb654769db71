"""The codes, causes and defaults in endwell.js match the rest of the package."""

from __future__ import annotations

import re

from endwell.codes import RANGES, Retry, describe
from tools.browser_constants import BLOCK, FOLDER, block, defaults, retry, semver


def test_the_module_is_up_to_date() -> None:
    module = (FOLDER / "endwell.js").read_text(encoding="utf-8")
    assert BLOCK.findall(module) == [block()], "run `make docs`"


def test_codes_and_ranges_cover_every_code() -> None:
    codes, later = retry()
    bounds = [tuple(map(int, pair)) for pair in re.findall(r"code >= (\d+) && code <= (\d+)", later)]
    assert bounds == [(row.first, row.last) for row in RANGES if row.retry is Retry.LATER]
    for code in range(65536):
        rest = "later" if any(first <= code <= last for first, last in bounds) else "never"
        assert codes.get(code, rest) == describe(code).retry.value


def test_the_defaults_are_those_of_the_python_client() -> None:
    names = "base maxDelay stableAfter maxAdvised maxRetries maxTime pingInterval pingTimeout openTimeout closeTimeout"
    assert [defaults()[name] for name in names.split()] == [5, 60, 10, 3600, None, None, 20, 20, 10, 10]


def test_the_version_is_valid_for_npm() -> None:
    versions = ["1.2.3", "0.1.0.dev0", "1.0.0rc2", "1.0.0a1", "1.0.0b10"]
    assert [semver(each) for each in versions] == [
        "1.2.3",
        "0.1.0-dev.0",
        "1.0.0-rc.2",
        "1.0.0-a.1",
        "1.0.0-b.10",
    ]
