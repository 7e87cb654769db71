"""A server for tests of reconnecting clients: a script says what each connection meets."""

from __future__ import annotations

import contextlib

import endwell
from endwell import Close, Response, RetryPolicy
from endwell.aio.syscalls import monotonic
from tests.pair import nothing_left_behind

__all__ = ["QUICK", "SLOW", "ScriptedServer", "due", "refusal", "serving"]

#: The defaults, 250 times as fast.
QUICK = RetryPolicy(base=0.02, max_delay=0.24, stable_after=10)
#: A policy that is still waiting when the test ends.
SLOW = RetryPolicy(base=60)


class ScriptedServer:
    """A server that treats its n-th connection as the n-th of ``turns`` says, and echoes on later ones."""

    def __init__(self, *turns, **options):
        self.turns = list(turns)
        self.server = endwell.Server(legacy=True, **options)
        #: All requests with their times, and the connections that were accepted.
        self.requests = []
        self.request_times = []
        self.opened = []
        self.server.process_request(self._request)
        self.server.websocket("/")(self._handle)

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.server.port}/"

    async def _request(self, request):
        self.requests.append(request)
        self.request_times.append(monotonic())
        turn = self.turns[0] if self.turns else None
        if isinstance(turn, Response):
            return self.turns.pop(0)
        return None

    async def _handle(self, ws):
        self.opened.append(ws)
        turn = self.turns.pop(0) if self.turns else None
        if isinstance(turn, Close):
            await ws.close(turn.code, turn.reason)
        elif turn == "abort":
            ws.abort()
        elif turn == "idle":
            await ws.closed
        else:
            async for message in ws:
                await ws.send(message)


@contextlib.asynccontextmanager
async def serving(*turns, **where):
    served = ScriptedServer(*turns)
    async with nothing_left_behind(), served.server.serving(**where):
        yield served


def due(client):
    """The time that ``client`` has chosen for its next attempt; its callback reports no exact time."""
    return client._connecting._due


def refusal(status, **headers):
    fields = endwell.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return Response.text("no\n", status, fields)
