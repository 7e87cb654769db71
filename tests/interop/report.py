"""One line of the table, and whether the ending that endwell reported matches the wire."""

from __future__ import annotations

from dataclasses import dataclass, field

from tap import Close, Event, Tap, Wire

import endwell
from endwell import Cause, Ending, Initiator, TcpEnd, WebSocket

HEADER = """\
| endwell is | what happens | the peer reported | endwell reported | on the wire | deflate | correct |
|---|---|---|---|---|---|---|"""

#: The cause when the peer's TCP ends before any Close.
_NETWORK = {"FIN": Cause.PEER_VANISHED, "RST": Cause.CONNECTION_RESET}
_TCP = {"FIN": TcpEnd.FIN, "RST": TcpEnd.RST}


@dataclass
class Row:
    """One line of the table. ``role`` is endwell's; ``cause`` is why it closes, if it does."""

    role: str
    scenario: str
    cause: Cause = Cause.APP_CLOSED
    told: str = ""
    faults: list[str] = field(default_factory=list)
    ending: Ending | None = None
    wire: Wire | None = None
    #: The events at the tap when endwell reported the ending.
    before: tuple[Event, ...] = ()

    def watch(self, ws: WebSocket, tap: Tap) -> None:
        """Record the ending of ``ws``, and the wire at that moment."""
        address = ws.remote_address if self.role == "server" else ws.local_address

        def note(ending: Ending) -> None:
            if self.ending is not None:
                self.faults.append("a second ending")
            self.ending, self.wire = ending, tap.wire_at(address[1])
            self.before = tuple(self.wire.events)

        ws.on_close(note)

    def judge(self) -> Row:
        """Record what does not match."""
        if self.ending is None:
            self.faults.append("no ending")
        elif self.wire is not None:
            checks = self.checks(self.ending, self.wire).items()
            self.faults += [f"{name} is {told}, not {true}" for name, (told, true) in checks if told != true]
        return self

    def checks(self, ending: Ending, wire: Wire) -> dict[str, tuple[object, object]]:
        """Pairs of the reported value and the value on the wire."""
        side, peer = self.role, {"server": "client", "client": "server"}[self.role]
        # The peer's Close and end pass the tap before endwell can receive them; endwell's own pass later.
        received = next((event.close for event in self.before if event.side == peer and event.close), None)
        sent = next((event.close for event in wire.events if event.side == side and event.close), None)
        ends = (event.what for event in self.before if event.side in (peer, "tap") and not event.close)
        first = wire.events[0]
        if first.side == side:
            cause, initiator = self.cause, Initiator.LOCAL
        elif first.what == "Close":
            cause, initiator = Cause.PEER_CLOSED, Initiator.PEER
        else:
            cause, initiator = _NETWORK[first.what], Initiator.NETWORK
        return {
            "cause": (ending.cause, cause),
            "initiator": (ending.initiator, initiator),
            "received": (_pair(ending.received), received),
            "sent": (_pair(ending.sent), sent),
            "clean": (ending.clean, received is not None and sent is not None),
            # A server reports after both Closes, before the end of TCP.
            "tcp": (
                ending.tcp,
                _TCP.get(
                    next(ends, ""),
                    TcpEnd.OPEN if side == "server" and received and sent else TcpEnd.TIMEOUT,
                ),
            ),
        }

    def cells(self) -> list[str]:
        """The cells before the verdict."""
        deflate = "" if self.wire is None else " ".join(self.wire.compressing) or "no"
        return [self.role, self.scenario, self.told, self.ours(), str(self.wire or ""), deflate]

    def ours(self) -> str:
        """The fields of the ending that the wire can confirm."""
        ending = self.ending
        if ending is None:
            return ""
        clean = {True: "clean", False: "not clean", None: "-"}[ending.clean]
        not_transmitted = (
            " (not transmitted)" if ending.sent is not None and ending.sent.not_transmitted else ""
        )
        closes = f"received {_pair(ending.received) or 'none'}, sent {_pair(ending.sent) or 'none'}{not_transmitted}"
        return f"{ending.cause.name} by {ending.initiator.name}; {closes}; {clean}; TCP {ending.tcp.name}"

    def __str__(self) -> str:
        verdict = "yes" if not self.faults else f"**{'; '.join(self.faults)}**"
        cells = [*self.cells(), verdict]
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _pair(close: endwell.Close | None) -> Close | None:
    return None if close is None else Close(close.code, close.reason)
