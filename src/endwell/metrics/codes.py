"""Which close codes are counted each on its own: a peer may send any of 2,000."""

from __future__ import annotations

from ..codes import CloseCode
from ..ending import Initiator
from .table import OTHER

__all__ = ["MAX_CODES", "CodeLabels"]

#: Maximum number of codes without a registration that this side chooses. Others are "other".
MAX_CODES = 64
_REGISTERED = frozenset(map(int, CloseCode))


class CodeLabels:
    """The codes of one server that have a label of their own.

    These are the registered ones, the first that this side has chosen, and the first ``of_peers`` that peers have. Those
    of peers leave room for the others.
    """

    def __init__(self, of_peers: int = 0) -> None:
        self._local: set[int] = set()
        self._of_peers: set[int] = set()
        self._max_of_peers = of_peers

    def label(self, code: int, initiator: Initiator) -> str:
        """The label of the code of an ending."""
        if code in _REGISTERED or code in self._local or code in self._of_peers:
            return str(code)
        is_local = initiator is Initiator.LOCAL
        codes, limit = (self._local, MAX_CODES) if is_local else (self._of_peers, self._max_of_peers)
        if len(codes) >= limit:
            return OTHER
        codes.add(code)
        return str(code)
