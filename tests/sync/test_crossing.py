"""The way between threads and the loop."""

from __future__ import annotations

import asyncio

from endwell.sync.crossing import ATTENDED, Crossing


class _Restless:
    """Has something to say again each time it has been attended to, as a thread may that sends without end."""

    def __init__(self, crossing: Crossing) -> None:
        self.crossing = crossing
        self.attended = 0
        self.over = False

    def attend(self) -> None:
        self.attended += 1
        if not self.over:
            self.crossing.post(self)


async def test_whoever_has_always_more_to_say_does_not_keep_the_loop_to_itself():
    crossing = Crossing.of(asyncio.get_running_loop())
    restless = _Restless(crossing)
    crossing.post(restless)
    for turn in range(1, 10):
        await asyncio.sleep(0)
        assert restless.attended <= ATTENDED * (turn + 1)
    assert restless.attended >= ATTENDED * 4
    restless.over = True
    await asyncio.sleep(0.01)
    attended = restless.attended
    await asyncio.sleep(0.01)
    assert restless.attended == attended
