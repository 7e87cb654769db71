"""The connections to the node of a Redis Cluster that owns a slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from ...errors import BusUnavailable
from .link import Link
from .nodes import Address, Nodes
from .place import Place, ask
from .scripts import SHARDED_SCRIPTS

__all__ = ["ShardLink", "slot_of"]

#: What a node answers if it does not serve the slot, and what that means. It has done nothing then.
_ELSEWHERE: dict[type[ResponseError], str] = {
    MovedError: "another node has the slot",
    AskError: "the slot is being moved to another node",
    TryAgainError: "the slot is being moved to another node",
    ClusterDownError: "the cluster is down",
}
_ERRORS = tuple(_ELSEWHERE)


def slot_of(prefix: str) -> int:
    """The slot of all keys and channels with a prefix that has a hash tag."""
    return key_slot(prefix.encode())


class ShardLink(Link):
    """Connects to the owner of the slot in which all keys and channels of a place are.

    Nothing follows a redirection: the subscriptions, the history and the run id are those of one node. If the node
    does not serve the slot any more, both connections end. The next ones go to its new owner. While a slot is being
    moved, its keys are in two nodes, and nothing is connected to either.
    """

    _pubsub = "S"
    _scripts = SHARDED_SCRIPTS
    _elsewhere = (*Link._elsewhere, *_ERRORS)

    def __init__(
        self,
        place: Place,
        heard: Callable[[bytes, bytes], None],
        finished: Callable[[], None],
        changed: Callable[[bool], None],
        nodes: Nodes,
    ) -> None:
        super().__init__(place, heard, finished, changed)
        self._nodes = nodes
        self._slot = slot_of(place.prefix)

    async def _locate(self) -> Address:
        return await self._nodes.owner(self._slot)

    def _connection(self, address: Address | None) -> Any:
        assert address is not None
        return self._nodes.connection(address)

    async def _check(self, commands: Any) -> None:
        await super()._check(commands)
        try:
            # This key never exists, so the node says whether it serves the slot, and all of it.
            await ask(commands, "EXISTS", f"{self.place.prefix}probe")
        except _ERRORS as error:
            raise OSError(_meaning(error)) from None

    def _leave(self, reply: ResponseError) -> NoReturn:
        if isinstance(reply, _ERRORS):
            future = self._sent.popleft().future
            if future is not None and not future.done():
                future.set_exception(BusUnavailable(f"Redis refuses it: {_meaning(reply)}; nothing was sent"))
            raise OSError(_meaning(reply))
        super()._leave(reply)

    async def _watch(self) -> None:
        """The renewal of the lease, every 2 s, shows whether this is still the owner."""
        await self._loop.create_future()


def _meaning(error: ResponseError) -> str:
    what = next(text for kind, text in _ELSEWHERE.items() if isinstance(error, kind))
    return f"{what} ({error})"
