"""The likely causes of an ending, in order, with what speaks for each and what to do.

The rules are tables: `network` (no Close came), `closed` (the peer sent a Close), `ours` (this side ended the
connection) and `opening` (the connection was never open). A rule is for certain causes. Its clues read the
fields of the Ending; each has a weight and a sentence. The sum of the weights orders the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..ending import Ending
from .case import Case, Rule
from .closed import RULES as CLOSED
from .network import RULES as NETWORK
from .opening import RULES as OPENING
from .ours import RULES as OURS

__all__ = ["RULES", "Diagnosis", "diagnose"]

RULES = (*NETWORK, *CLOSED, *OURS, *OPENING)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One likely cause of an ending."""

    #: A short name of the cause, such as "proxy_idle_timeout".
    name: str
    #: The cause, as a phrase.
    cause: str
    #: What in the record speaks for it, as sentences with the numbers of the record.
    evidence: tuple[str, ...]
    #: What to do.
    advice: str


def diagnose(
    ending: Ending,
    known: Iterable[str] | None = None,
    failure: str = "",
    status: int | None = None,
    role: str | None = None,
) -> list[Diagnosis]:
    """Return the likely causes of ``ending``, the likeliest first; there is at least one.

    Args:
        ending: The ending.
        known: Names of the fields that were recorded, if the record did not have all. The others are not
            taken as evidence.
        failure: The text of the HandshakeError, if the connection was never open.
        status: HTTP status of the answer to the opening handshake, if it was refused.
        role: "server" or "client", if it is known which of them this side was.
    """
    case = Case(ending, known, failure, status, role)
    # A connection that was never open has had no use that could speak for another cause.
    return (failure and _matching(OPENING, case)) or _matching(RULES, case)


def _matching(rules: Sequence[Rule], case: Case) -> list[Diagnosis]:
    found = []
    for rule in rules:
        if case.ending.cause in rule.causes and (clues := list(rule.clues(case))):
            weight = sum(weight for weight, _ in clues)
            said = tuple(sentence for _, sentence in clues)
            found.append((weight, Diagnosis(rule.name, rule.says, said, rule.advice)))
    return [each for _, each in sorted(found, key=lambda pair: -pair[0])]
