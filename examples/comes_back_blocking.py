"""A client that decides from the ending whether to reconnect, in blocking style: python examples/comes_back_blocking.py [URL]."""

import sys
import time

import endwell
from endwell import CloseCode, sync

url = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/chat"


def comes_back(ending: endwell.Ending) -> bool:
    """Reconnect after a restart of the server and after a network failure."""
    restarts = ending.code in {CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART}
    return restarts or ending.initiator is endwell.Initiator.NETWORK


failures = 0
while failures < 10:
    try:
        with sync.connect(url) as ws:
            for message in ws:
                print(message, flush=True)
    except endwell.HandshakeRejected as exc:
        sys.exit(f"refused: {exc}")
    except endwell.HandshakeError as exc:
        failures += 1
        print(exc, flush=True)
    else:
        print(ws.ending, flush=True)
        if not comes_back(ws.ending):
            break
        # A server that accepts and closes again and again must not get a handshake in each second.
        failures = failures + 1 if ws.ending.duration < 10 else 0
    time.sleep(min(0.5 * 2**failures, 60))
