"""One line of the table, and whether the ending that endwell reported is what the wire shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from tap import Close, Event, Tap, Wire

from endwell import Cause, Ending, Initiator, TcpEnd, WebSocket

HEADER = """\
| endwell is | what happens | the peer was told | endwell was told | on the wire | deflate | true |
|---|---|---|---|---|---|---|"""

#: What the cause is when the peer's TCP ends before anybody's Close.
_NETWORK = {"FIN": Cause.PEER_VANISHED, "RST": Cause.CONNECTION_RESET}
_TCP = {"FIN": TcpEnd.FIN, "RST": TcpEnd.RST, None: TcpEnd.TIMEOUT}


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
    #: What had passed the tap when endwell reported the ending.
    before: tuple[Event, ...] = ()

    def watch(self, ws: WebSocket, tap: Tap) -> None:
        """Note the ending of ``ws``, and the wire of that moment."""
        address = ws.remote_address if self.role == "server" else ws.local_address

        def note(ending: Ending) -> None:
            if self.ending is not None:
                self.faults.append("a second ending")
            self.ending, self.wire = ending, tap.wire_at(address[1])
            self.before = tuple(self.wire.events)

        ws.on_close(note)

    def judge(self) -> Row:
        """Note what is not true."""
        if self.ending is None:
            self.faults.append("no ending")
        elif self.wire is not None:
            self.faults += _lies(self.ending, self.wire, self)
        return self

    def __str__(self) -> str:
        verdict = "yes" if not self.faults else f"**{'; '.join(self.faults)}**"
        ours = "" if self.ending is None else _shown(self.ending)
        deflate = "" if self.wire is None else " ".join(self.wire.compressing) or "no"
        cells = [self.role, self.scenario, self.told, ours, str(self.wire or ""), deflate, verdict]
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _shown(ending: Ending) -> str:
    """The fields of ``ending`` that the wire can confirm."""
    clean = "clean" if ending.clean else "not clean"
    closes = f"received {_pair(ending.received) or 'none'}, sent {_pair(ending.sent) or 'none'}"
    return f"{ending.cause.name} by {ending.initiator.name}; {closes}; {clean}; TCP {ending.tcp.name}"


def _pair(close: object) -> Close | None:
    return None if close is None else Close(close.code, close.reason)


def _lies(ending: Ending, wire: Wire, row: Row) -> list[str]:
    side, peer = row.role, {"server": "client", "client": "server"}[row.role]
    # The peer's words and its end pass the tap before endwell can know them; endwell's own later.
    received = next((event.close for event in row.before if event.side == peer and event.close), None)
    sent = next((event.close for event in wire.events if event.side == side and event.close), None)
    end = next((event.what for event in row.before if event.side in (peer, "tap") and not event.close), None)
    first = wire.events[0]
    if first.side == side:
        cause, initiator = row.cause, Initiator.LOCAL
    elif first.what == "Close":
        cause, initiator = Cause.PEER_CLOSED, Initiator.PEER
    else:
        cause, initiator = _NETWORK[first.what], Initiator.NETWORK
    checks = {
        "cause": (ending.cause, cause),
        "initiator": (ending.initiator, initiator),
        "received": (_pair(ending.received), received),
        "sent": (_pair(ending.sent), sent),
        "clean": (ending.clean, received is not None and sent is not None),
        "tcp": (ending.tcp, _TCP[end]),
    }
    return [f"{name} is {told}, not {true}" for name, (told, true) in checks.items() if told != true]
