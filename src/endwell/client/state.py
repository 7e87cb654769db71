"""Where a reconnecting client stands: what a user interface shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..ending import Ending
from ..errors import HandshakeError
from .retry import StopReason

__all__ = ["ClientPhase", "ClientState"]


class ClientPhase(Enum):
    """What a reconnecting client does at the moment.

    Example:
        ```python
        import endwell

        client = endwell.reconnecting("wss://example.com/")
        print(client.state.phase is endwell.ClientPhase.IDLE)
        ```
    """

    IDLE = "idle"  #: Its loop has not begun.
    CONNECTING = "connecting"  #: An attempt runs.
    OPEN = "open"  #: A connection is open.
    WAITING = "waiting"  #: The last connection or attempt has ended, and another attempt follows.
    STOPPED = "stopped"  #: There are no further attempts.


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientState:
    """The state of a reconnecting client: its phase, and what is known in that phase.

    Example:
        ```python
        import time

        import endwell

        def show(state: endwell.ClientState) -> None:
            if state.phase is endwell.ClientPhase.WAITING:
                print(f"connection lost; next attempt in {state.until - time.time():.0f} s")
            else:
                print(state.phase.value)

        client = endwell.reconnecting("wss://example.com/", on_state=show)
        ```
    """

    #: What the client does.
    phase: ClientPhase
    #: WAITING: wall-clock time of the next attempt, in seconds as `time.time()` counts them; otherwise None.
    until: float | None = None
    #: STOPPED: why there are no further attempts; otherwise None.
    reason: StopReason | None = None
    #: How the last connection or attempt ended; None before the first end.
    last: Ending | HandshakeError | None = None
    #: Number of attempts so far.
    attempts: int = 0
