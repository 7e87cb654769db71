"""The driver of the browsers."""

from __future__ import annotations

import os
import signal

import pytest

from tests.browser import driver
from tests.browser.driver import running


async def test_a_browser_that_stands_still_is_started_again_when_a_tab_is_opened(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    with running(name) as browser:
        async with browser.tab() as tab:
            assert await tab.evaluate("1 + 1") == 2
        stopped = browser._process
        # The first time is over at once. The second tab has another one.
        monkeypatch.setattr(driver, "OPEN_TIME", 0.5)
        opening = browser._enter

        async def stands_still(wire):
            if browser._process is stopped:
                os.killpg(stopped.pid, signal.SIGSTOP)
            return await opening(wire)

        monkeypatch.setattr(browser, "_enter", stands_still)
        async with browser.tab() as tab:
            assert await tab.evaluate("1 + 1") == 2
        assert browser._process is not stopped
        assert stopped.returncode == -signal.SIGKILL
