"""What the dashboard can do: close a connection, drain a worker, restart all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ...aio.websocket import begin_close
from ...codes import CloseCode
from ...ending import Cause, Close
from ..process.control import ProcessControl
from .knowledge import Knowledge
from .order import AskError

__all__ = ["ACTIONS", "Actions"]

logger = logging.getLogger("endwell.server")

ACTIONS = ("close", "drain", "restart")


class Actions:
    """The actions of this process.

    Args:
        allowed: Whether there are actions.
        knowledge: What this process knows.
        control: The control of this process; None if it was not started by :meth:`Server.run`.
    """

    def __init__(
        self, allowed: bool, knowledge: Knowledge, control: Callable[[], ProcessControl | None]
    ) -> None:
        self._allowed = allowed
        self._knowledge = knowledge
        self._control = control

    def offered(self) -> list[str]:
        """The actions that would not be refused at once: a process without a supervisor can only close."""
        control = self._control()
        supervised = control is not None and not control.unsupervised
        return [each for each in ACTIONS if self._allowed and (supervised or each == "close")]

    def check(self, ask: dict[str, Any]) -> None:
        """Check what a client asks for, before any process is asked.

        Raises:
            AskError: It is not valid, or there are no actions.
        """
        if not self._allowed:
            raise AskError("this dashboard is read-only: it was made with actions=False")
        if ask["ask"] == "close":
            _check_close(ask)

    async def act(self, ask: dict[str, Any], who: str) -> dict[str, Any]:
        """Do it in this process. ``who`` has asked for it.

        Raises:
            AskError: It cannot be done.
        """
        self.check(ask)
        if ask["ask"] == "close":
            self._close(ask, who)
        else:
            await self._ask_supervisor(ask["ask"], who)
        return {"done": True}

    def _close(self, ask: dict[str, Any], who: str) -> None:
        close = _check_close(ask)
        ws = self._knowledge.find(ask)
        if ws is None or not ws.is_open:
            raise AskError("the connection has ended, or is closing")
        assert close.code is not None
        logger.info(
            "the dashboard closes the connection %s with %s, asked by %s", ask["connection"], close, who
        )
        begin_close(ws, Cause.APP_CLOSED, close.code, close.reason)

    async def _ask_supervisor(self, what: str, who: str) -> None:
        control = self._control()
        if control is None or control.unsupervised:
            raise AskError(f"{what} needs a supervisor: run the server with workers")
        logger.info("the dashboard asks the supervisor to %s, asked by %s", what, who)
        refusal = await control.ask_supervisor(what)
        if refusal is not None:
            raise AskError(refusal)


def _check_close(ask: dict[str, Any]) -> Close:
    code, reason = ask.get("code", int(CloseCode.NORMAL_CLOSURE)), ask.get("reason", "")
    if isinstance(code, bool) or not isinstance(code, int):
        raise AskError("code must be a number")
    try:
        return Close(code, reason)
    except (TypeError, ValueError) as error:
        raise AskError(str(error)) from None
