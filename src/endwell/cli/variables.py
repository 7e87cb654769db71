"""The environment variables of ``endwell serve``: one for each argument, such as ``ENDWELL_PORT`` for ``--port``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

__all__ = ["with_variables"]

PREFIX = "ENDWELL_"
_TRUE = frozenset(("1", "true", "yes", "on"))
_FALSE = frozenset(("", "0", "false", "no", "off"))


def with_variables(
    parser: argparse.ArgumentParser, argv: Sequence[str], environment: Mapping[str, str]
) -> list[str]:
    """The command line ``argv`` of ``parser``, and before it the arguments that only ``environment`` has.

    A wrong value is an error of ``parser``, which names the variable.
    """
    given = {word.partition("=")[0] for word in argv}
    words: list[str] = []
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        # Without a help: uvicorn's words, whose variables would be UVICORN_...
        if not names or action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        variable = PREFIX + names[0].removeprefix("--").upper().replace("-", "_")
        text = environment.get(variable)
        same = {name for each in parser._actions if each.dest == action.dest for name in each.option_strings}
        if text is not None and given.isdisjoint(same):
            try:
                words += _words(parser, action, names, text)
            except argparse.ArgumentError as error:
                parser.error(f"the environment variable {variable}: {error.message}")
    return [*words, *argv]


def _words(
    parser: argparse.ArgumentParser, action: argparse.Action, names: list[str], text: str
) -> list[str]:
    """Raises ArgumentError for a wrong value, as ``parser`` does for the argument."""
    name = names[0]
    if action.nargs == 0:
        if text.lower() not in _TRUE | _FALSE:
            raise argparse.ArgumentError(action, f"must be true or false, not {text!r}")
        return [name] if text.lower() in _TRUE else names[1:]  # --no-..., if there is one
    parts = text.split() if isinstance(action, argparse._AppendAction) else [text]
    for part in parts:
        parser._check_value(action, parser._get_value(action, part))
    return [f"{name}={part}" for part in parts]
