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

    Words are checked by ``parser``, so that a wrong value is the same error in both.
    """
    given = {word.partition("=")[0] for word in argv}
    words: list[str] = []
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        # Without a help: uvicorn's words, whose variables would be UVICORN_...
        if not names or action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        text = environment.get(PREFIX + names[0].removeprefix("--").upper().replace("-", "_"))
        same = {name for each in parser._actions if each.dest == action.dest for name in each.option_strings}
        if text is not None and given.isdisjoint(same):
            words += _words(action, names, text)
    return [*words, *argv]


def _words(action: argparse.Action, names: list[str], text: str) -> list[str]:
    name = names[0]
    if isinstance(action, argparse._AppendAction):
        return [f"{name}={part}" for part in text.split()]
    if action.nargs != 0:
        return [f"{name}={text}"]
    if text.lower() in _TRUE:
        return [name]
    if text.lower() in _FALSE:
        return names[1:]  # --no-..., if there is one
    return [f"{name}={text}"]  # argparse says that the argument has no value
