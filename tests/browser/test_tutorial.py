"""The page of docs/tutorial in a real browser: it survives a reload of itself and a deploy of its server."""

from __future__ import annotations

import asyncio
import signal

from tests.browser.driver import Browser
from tests.browser.hall import until
from tests.cli.process import ROOT, finish, listening, python
from tests.ports import free_port

PROGRAM = str(ROOT / "examples" / "tutorial" / "page.py")
SHOWN = 'document.querySelector("#lines")?.textContent ?? ""'
STATE = 'document.querySelector("#state")?.textContent ?? ""'
RECORD = """
window.states = [];
new MutationObserver(() => states.push(document.querySelector("#state").textContent)).observe(
  document.querySelector("#state"), { childList: true });
"""
SEND = 'document.querySelector("#text").value = "{}"; document.querySelector("#form").requestSubmit()'


async def test_the_page_of_the_tutorial_survives_a_reload_and_a_deploy(browser: Browser):
    port = free_port()
    with python(PROGRAM, str(port)) as process:
        assert await asyncio.to_thread(listening, process) == port
        async with browser.tab(f"http://127.0.0.1:{port}/") as tab:

            async def connected() -> bool:
                return (await tab.evaluate(STATE)).startswith("connected as guest-")

            async def says(text: str) -> None:
                await tab.do(SEND.format(text))

                async def shown() -> bool:
                    return f": {text}" in await tab.evaluate(SHOWN)

                await until(shown)

            await until(connected)
            name = await tab.evaluate("sessionStorage.name")
            await says("hello")
            await tab.do("location.reload()")

            async def reloaded() -> bool:
                return not await tab.evaluate(SHOWN) and await connected()

            await until(reloaded)
            assert await tab.evaluate("sessionStorage.name") == name
            await says("reloaded")
            await tab.evaluate(RECORD)
            # The deploy: the old process drains, and a new one takes over its address.
            process.send_signal(signal.SIGTERM)
            status, _, _ = await asyncio.to_thread(finish, process)
            assert status == 0

            async def restart_shown() -> bool:
                return "server stopping; retry " in await tab.evaluate("states.join()")

            await until(restart_shown)
            with python(PROGRAM, str(port)) as renewed:
                await asyncio.to_thread(listening, renewed)
                await until(connected)
                await says("deployed")
                assert ": reloaded" in await tab.evaluate(SHOWN)
