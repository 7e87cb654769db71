"""The option ``token`` in a page: how it is sent, when it is renewed, and what follows when it is refused."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

import endwell
from tests.browser.driver import Browser, Tab
from tests.browser.hall import hall, until

pytestmark = pytest.mark.timeout(600)

SOON = {"base": 0.1, "maxDelay": 1}
#: Makes a page keep the timers of some thousand seconds, which are those of the renewals: the test says when one is
#: due. The life of a token that is short enough for a test could end while the browser stalls.
HOLD = """void (globalThis.held = [], globalThis.setTimeout = ((set) => (callback, wait) =>
wait >= 1e6 && wait < 1e9 ? (held.push({ callback, wait }), 0) : set(callback, wait))(setTimeout))"""


@asynccontextmanager
async def site(browser: Browser, **page):
    """A page, and a route /token whose ``accept`` function takes the tokens that begin with "good"."""
    async with hall({**SOON, **page}) as place:
        place.tokens, place.heard, place.opened, place.ended = [], [], [], []

        async def accept(request):
            place.tokens.append(request.bearer)
            assert "bearer" not in str([*request.headers])
            if not (request.bearer or "").startswith("good"):
                return endwell.Response(401)
            return endwell.Accept(subject="ada", until=datetime.now(UTC) + timedelta(seconds=1000))

        @place.server.websocket("/token", accept=accept, subprotocols=["chat"])
        async def handler(ws):
            place.opened.append(ws)
            ws.on_close(place.ended.append)
            async for message in ws:
                place.heard.append(message)
                await ws.send(f"{ws.request.bearer}: {message}")

        async with browser.tab(place.url) as tab:
            await place.open(tab)
            yield place, tab


@pytest.mark.parametrize(
    ("token", "others", "interval"),
    [
        ('"good+/=~"', "[]", 20),
        ('Promise.resolve({ value: "good+/=~" })', '["other"]', 0),
        ('"good+/=~"', '"chat"', 0),
        ('Promise.resolve("good+/=~")', '["other", "chat"]', 20),
    ],
)
async def test_the_token_is_a_subprotocol_and_never_selected(browser: Browser, token, others, interval):
    async with site(browser) as (place, tab):
        how = f"{{ token: () => {token}, protocols: {others}, pingInterval: {interval} }}"
        await tab.evaluate(f"void (globalThis.t = open_('/token', {how}), t.send('hello'))")
        await until(lambda: tab.evaluate("messages.length === 1"))
        assert await tab.evaluate("messages[0]") == "good+/=~: hello"
        chosen = "chat" if "chat" in others else None
        assert await tab.evaluate("t.protocol") == (chosen or "")
        assert place.opened[0].subprotocol == chosen
        assert place.opened[0].subject == "ada"
        await tab.evaluate("t.close()")
        await until(lambda: tab.evaluate("told.length === 1"))
        counted = await tab.evaluate("JSON.stringify([told[0].messages_in, told[0].messages_out])")
        assert counted == "[1,1]"


@pytest.mark.parametrize("until_", ["new Date(Date.now() + 1e7)", "Date.now() + 1e7"], ids=["Date", "ms"])
async def test_a_token_is_renewed_on_the_open_connection(browser: Browser, until_):
    async with site(browser) as (place, tab):
        await tab.evaluate(HOLD)
        token = f"() => {{ n += 1; return {{ value: `good${{n}}`, until: n < 3 ? {until_} : undefined }}; }}"
        await tab.evaluate(f"void (globalThis.n = 0, globalThis.t = open_('/token', {{ token: {token} }}))")
        for number in (2, 3):
            # 80 % of 10,000 s, less the time since the function was called.
            assert 7000 < await renew(tab, number - 1) <= 8000
            await until(lambda number=number: _is(place.opened[0].request.bearer == f"good{number}"))
        await tab.evaluate("t.send('hello')")
        await until(lambda: _is(place.heard))
        assert place.tokens == ["good1", "good2", "good3"]
        assert place.heard == ["hello"]
        # The last token has no time.
        assert await tab.evaluate("held.length") == 2
        await tab.evaluate("t.close()")
        await until(lambda: _is(place.ended))
        assert (place.ended[0].messages_in, place.ended[0].messages_out) == (1, 1)


async def test_a_renewal_that_fails_is_tried_again(browser: Browser):
    async with site(browser) as (place, tab):
        await tab.evaluate(HOLD)
        token = """async () => {
            n += 1;
            if (n === 2) throw new Error("no network");
            return { value: `good${n}`, until: Date.now() + (n === 1 ? 1e7 : 1e13) };
        }"""
        await tab.evaluate(f"void (globalThis.n = 0, globalThis.t = open_('/token', {{ token: {token} }}))")
        for number in (1, 2):
            assert 7000 < await renew(tab, number) <= 8000
        await until(lambda: _is(place.tokens == ["good1", "good3"]))
        assert await tab.evaluate("told.length") == 0
        # A timer of a browser takes at most 2 ** 31 ms: a longer life must not renew at once.
        await tab.evaluate("t.send('hello')")
        await until(lambda: _is(place.heard))
        assert await tab.evaluate("n") == 3


async def test_3000_is_followed_by_an_attempt_with_a_new_token(browser: Browser):
    async with site(browser) as (place, tab):
        token = "() => `good${n += 1}`"
        await tab.evaluate(f"void (globalThis.n = 0, globalThis.t = open_('/token', {{ token: {token} }}))")
        await until(lambda: _is(place.opened))
        await place.opened[0].close(3000, "authorization expired: fetch a new token; retry 0-1s")
        await until(lambda: _is(place.tokens == ["good1", "good2"]))
        assert await tab.evaluate("told[0].wait <= 1") is True
        # Without a function for the token, and if `codes` says so, 3000 is final.
        await tab.evaluate("void open_('/token', { token: () => 'goodx', codes: { 3000: 'never' } })")
        await until(lambda: _is(len(place.opened) == 3))
        await place.opened[2].close(3000)
        await until(lambda: tab.evaluate("told.length === 2"))
        assert await tab.evaluate("told[1].stop") == "refused"


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("async () => { throw new Error('signed out') }", "Error: signed out"),
        ("() => undefined", "TypeError: no token"),
        ("() => ({ value: 5 })", "TypeError: no token"),
        ("() => ''", "TypeError: no token"),
        ("() => 'zwei Wörter'", "TypeError: no token"),
    ],
)
async def test_a_function_without_a_token_is_a_failed_handshake(browser: Browser, token, error):
    async with site(browser) as (place, tab):
        await tab.evaluate(f"void open_('/token', {{ token: {token}, maxRetries: 1 }})")
        await until(lambda: tab.evaluate("told.length === 2"))
        assert await tab.evaluate("told[0].cause") == "handshake_failed"
        assert await tab.evaluate("told[0].error") == error
        assert await tab.evaluate("told[1].stop") == "retries"
        assert place.tokens == []


async def test_a_page_cannot_send_a_token_by_accident(browser: Browser):
    async with site(browser) as (_, tab):
        with pytest.raises(AssertionError, match="this message is reserved"):
            await tab.evaluate("ws.send('\\u001abearer x')")


async def renew(tab: Tab, number: int) -> float:
    """Have the renewal with this number be due, once it is planned; the seconds for which it was to wait."""
    await until(lambda: tab.evaluate(f"held.length === {number}"))
    return await tab.evaluate(f"held[{number - 1}].callback(), held[{number - 1}].wait / 1000")


async def _is(value):
    return bool(value)
