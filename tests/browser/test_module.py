"""The module by itself: its types, its size, and its retry policy, which is that of the Python client."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import endwell
from endwell import Cause, Close, Ending, Initiator, Retry, RetryPolicy, StopReason
from endwell.client.retry import History
from endwell.codes import describe
from endwell.errors import HandshakeError
from tests.cli.process import PATIENCE

#: On a busy machine, npm and the compiler of TypeScript need more than two minutes.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "src" / "endwell" / "browser" / "endwell.js"
#: The size limit, minified and compressed, in bytes. 400 of them are the option `token`; 300 are `staleAfter`,
#: a list of URLs, and `state`; 50 are the check of numbers among the options.
MOST = 3850

DECIDE = """
import { decide } from %s;
let input = "";
for await (const chunk of process.stdin) input += chunk;
console.log(JSON.stringify(JSON.parse(input).map((each) => decide(...each))));
"""


CONSTRUCT = """
import { ReconnectingWebSocket } from %s;
globalThis.WebSocket = class {};
try {
  new ReconnectingWebSocket("ws://localhost/", { codes: %s });
  console.log("no error");
} catch (error) {
  console.log(String(error));
}
process.exit();
"""

IN_NODE = """
import { ReconnectingWebSocket } from %s;
const ws = new ReconnectingWebSocket(%s);
ws.onopen = () => ws.send("from Node");
ws.onmessage = ({ data }) => {
  console.log(data);
  ws.close(4001);
};
ws.onending = ({ ending, stop }) => console.log(ending.cause, ending.code, stop);
"""

#: The first token lives for 10,000 s, and the timer of its renewal is due at once: a stall outlasts no token.
TOKEN_IN_NODE = """
import { ReconnectingWebSocket } from %s;
globalThis.setTimeout = ((set) => (callback, wait) => set(callback, wait >= 1e6 && wait < 1e9 ? 0 : wait))(setTimeout);
let calls = 0;
const token = async () => ({ value: `secret-${++calls}`, until: calls < 2 ? Date.now() + 1e7 : undefined });
const ws = new ReconnectingWebSocket(%s, { token });
ws.onmessage = ({ data }) => {
  console.log(data, JSON.stringify(ws.protocol));
  ws.close();
};
"""

TYPED = """
import { ReconnectingWebSocket, type Ending, type EndingEvent, type Options, type State } from "endwell";

const options: Partial<Options> = { codes: { 4001: "never" }, whenFull: "drop", token: () => "abc" };
options.token = async () => ({ value: "abc", until: new Date() });
// @ts-expect-error: until is a Date or a number
options.token = () => ({ value: "abc", until: "soon" });
const ws = new ReconnectingWebSocket(async () => new URL("wss://example.com/"), options);
ws.addEventListener("ending", (event) => {
  const ending: Ending = event.ending;
  if (event.wait !== null) event.wait.toFixed();
  // @ts-expect-error: it has no such attribute
  ending.codes;
});
ws.addEventListener("message", ({ data }) => data, { once: true });
ws.removeEventListener("open", (event: Event) => event.type);
const target: EventTarget = ws;
const heard = (event: EndingEvent): number => event.ending.code;
ws.onending = heard;
const states: State[] = [ws.state];
ws.onstate = ({ state }) => states.push(state);
if (ws.state.phase === "waiting" && ws.state.until !== null) ws.state.until.toFixed();
new ReconnectingWebSocket(["/a", () => "/b", async () => new URL("wss://example.com/")], { staleAfter: 30 });
// @ts-expect-error: it has no such phase
if (ws.state.phase === "gone") ws.close();
const open: 1 = ReconnectingWebSocket.OPEN;
if (ws.readyState === ws.CONNECTING) ws.send(new Uint8Array(1));
// @ts-expect-error: read only
ws.OPEN = 2;
// @ts-expect-error: not a Retry
new ReconnectingWebSocket("/", { codes: { 4001: "always" } });
// @ts-expect-error: a message is no number
ws.send(1);
"""


def run(*command: str, given: str = "") -> str:
    """The output of a program of Node.js."""
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is not there: make test-browser installs it, if there is npm")
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(name: str) -> str:
    return str(ROOT / "tools" / "browser" / "node_modules" / ".bin" / name)


def test_the_module_passes_the_type_checker():
    run(tool("tsc"), "--project", "tools/browser")


def test_the_module_has_at_most_3850_bytes():
    minified = run(tool("esbuild"), "--minify", "--format=esm", str(MODULE))
    assert len(gzip.compress(minified.encode(), 9)) <= MOST


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package that npm packs is installed."""
    folder = tmp_path_factory.mktemp("npm")
    pack = ("npm", "pack", "--json", "--offline", "--pack-destination", str(folder), str(MODULE.parent))
    (packed,) = json.loads(run(*pack))
    assert {file["path"] for file in packed["files"]} == {"endwell.js", "endwell.d.ts", "package.json"}
    archive = str(folder / packed["filename"])
    run("npm", "install", "--offline", "--no-audit", "--no-fund", "--prefix", str(folder), archive)
    return folder


def test_the_folder_of_the_module_is_an_npm_package(installed: Path):
    (installed / "page.mjs").write_text(
        "import * as all from 'endwell'; console.log(Object.keys(all).sort() + '');"
    )
    assert run("node", str(installed / "page.mjs")) == "ReconnectingWebSocket,decide\n"


def test_the_type_declarations_match_the_comments():
    run(sys.executable, "tools/browser_types.py", "--check")


def test_the_programs_in_the_docs_compile_with_typescript(installed: Path):
    docs = (ROOT / "docs" / "howto" / "browser.md").read_text()
    programs = re.findall(r"```js\n(.*?)```", docs, re.DOTALL)
    assert len(programs) == 2
    (page,) = re.findall(r'<script type="module">\n(.*?)</script>', docs, re.DOTALL)
    assert '"/endwell.js"' in page
    head = "declare function show(text: string): void;\n"
    (installed / "page.ts").write_text(head + page.replace('"/endwell.js"', '"endwell"'))
    compile_strictly(installed / "page.ts")
    when = (ROOT / "docs" / "howto" / "when.md").read_text()
    programs += re.findall(r"```js\n(.*?)```", when, re.DOTALL)
    for number, program in enumerate(programs):
        name = f"program-{number}.ts"
        line = 'import { ReconnectingWebSocket } from "endwell";\n'
        (installed / name).write_text(f"{line}{head}{program}")
        compile_strictly(installed / name)


def test_typescript_knows_the_events_and_options(installed: Path):
    (installed / "typed.ts").write_text(TYPED)
    compile_strictly(installed / "typed.ts")


def compile_strictly(page: Path) -> None:
    run(
        tool("tsc"),
        "--strict",
        "--noEmit",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--types",
        "",
        str(page),
    )


@pytest.mark.parametrize("key", ["404", "999", "1004", "1015", "2000", "5000", "1e3", "4001 ", "gone"])
def test_an_impossible_key_in_codes_raises(key: str):
    assert construct({key: "later"}) == f"RangeError: codes cannot have {key},later"


def test_an_invalid_value_in_codes_raises():
    assert construct({"4001": "always"}) == "RangeError: codes cannot have 4001,always"


def test_a_possible_key_in_codes_is_accepted():
    codes = [code for code in range(1000, 5000) if describe(code).may_receive]
    assert construct(dict.fromkeys([*codes, 1005, 1006], "never")) == "no error"


def construct(codes: dict[Any, str]) -> str:
    """The error that the constructor throws."""
    script = CONSTRUCT % (json.dumps(str(MODULE)), json.dumps(codes))
    return run("node", "--input-type=module", "--eval", script).strip()


async def test_the_module_works_in_node():
    """Without a page or its events; and after close() the process can end."""
    server, messages = endwell.Server(), []

    @server.websocket("/ws")
    async def handler(ws: endwell.WebSocket) -> None:
        messages.append(await ws.recv())
        await ws.send("hello")
        async for _ in ws:
            pass

    async with server.serving("127.0.0.1"):
        script = IN_NODE % (json.dumps(str(MODULE)), json.dumps(f"ws://127.0.0.1:{server.port}/ws"))
        command = (
            "node",
            "--experimental-websocket",
            "--no-warnings",
            "--input-type=module",
            "--eval",
            script,
        )
        assert await asyncio.to_thread(run, *command) == "hello\napp_closed 4001 done\n"
    assert messages == ["from Node"]


async def test_a_token_is_sent_and_renewed_in_node():
    server, tokens = endwell.Server(), []

    async def accept(request: endwell.Request) -> None:
        tokens.append(request.bearer)

    @server.websocket("/ws", accept=accept)
    async def handler(ws: endwell.WebSocket) -> None:
        async with asyncio.timeout(PATIENCE):
            while ws.request.bearer != "secret-2":
                await asyncio.sleep(0.01)
        await ws.send("renewed")
        await ws.wait_closed()

    async with server.serving("127.0.0.1"):
        assert await asyncio.to_thread(run_with_token, server) == 'renewed ""\n'
    assert tokens == ["secret-1", "secret-2"]


def run_with_token(server: endwell.Server) -> str:
    script = TOKEN_IN_NODE % (json.dumps(str(MODULE)), json.dumps(f"ws://127.0.0.1:{server.port}/ws"))
    return run("node", "--experimental-websocket", "--no-warnings", "--input-type=module", "--eval", script)


@pytest.mark.parametrize("forged", ["\x1abearer", "\x1abearer secret-2"])
async def test_a_message_of_another_user_does_not_make_a_page_send_its_token(forged: str):
    server = endwell.Server()

    @server.websocket("/ws")
    async def chat(ws: endwell.WebSocket) -> None:
        await ws.send(forged)
        await ws.send("end")
        await ws.wait_closed()

    async with server.serving("127.0.0.1"):
        assert await asyncio.to_thread(run_with_token, server) == f'{forged} ""\n'


def policies(dice: random.Random) -> RetryPolicy:
    codes = {1000: Retry.NOW, 1006: Retry.NEVER, 4001: Retry.NEVER, 1008: Retry.LATER, 4000: Retry.NOW}
    return RetryPolicy(
        base=dice.choice([5.0, 0.5, 7.25]),
        max_delay=dice.choice([60.0, 3.0]),
        max_advised=dice.choice([3600.0, 30.0]),
        max_retries=dice.choice([None, 3]),
        max_time=dice.choice([None, 100.0]),
        codes=dice.choice([{}, codes]),
    )


def endings(dice: random.Random) -> Ending:
    codes = [*range(1000, 1016), 3000, 3003, 3008, 3500, 4000, 4001, 4990, 4991, 4999]
    # A Close with another code is refused on its arrival, so no ending has it.
    code = dice.choice([None, *(code for code in codes if describe(code).may_send)])
    reason = dice.choice(
        [
            "",
            "full",
            "retry 2-12s",
            "x; retry 0-0s",
            "retry 9-3s",
            "x retry 1-2s",
            "retry 5000-6000s",
            "retry 1-2s ",
        ]
    )
    local = [Cause.APP_CLOSED, Cause.KEEPALIVE_TIMEOUT, Cause.IDLE_TIMEOUT]
    cause = dice.choice([Cause.PEER_CLOSED, *local, Cause.PEER_VANISHED])
    if cause is Cause.PEER_VANISHED:
        return Ending(cause=cause, initiator=Initiator.NETWORK, clean=False)
    received = Close() if code is None else Close(code, reason)
    if cause is Cause.PEER_CLOSED:
        return Ending(cause=cause, initiator=Initiator.PEER, clean=True, received=received, sent=received)
    answer = dice.choice([received, None])
    return Ending(cause=cause, initiator=Initiator.LOCAL, clean=bool(answer), received=answer, sent=received)


def test_1006_in_codes_applies_to_a_connection_that_was_open():
    policy = of_page(RetryPolicy()) | {"codes": {1006: "never"}}
    lost = Ending(cause=Cause.PEER_VANISHED, initiator=Initiator.NETWORK, clean=False)
    failed = Ending(cause=Cause.HANDSHAKE_FAILED, initiator=Initiator.LOCAL, clean=False)
    given = [[policy, {"tries": 1, "since": 0}, in_page(ending), 0, 0] for ending in (lost, failed)]
    script = DECIDE % json.dumps(str(MODULE))
    told = json.loads(run("node", "--input-type=module", "--eval", script, given=json.dumps(given)))
    assert told == ["refused", 5]


def in_page(ending: Ending) -> dict[str, object]:
    return {**ending.as_dict(), "ok": ending.ok}


def of_page(policy: RetryPolicy) -> dict[str, object]:
    return {
        "base": policy.base,
        "maxDelay": policy.max_delay,
        "maxAdvised": policy.max_advised,
        # JSON has no Infinity.
        "maxRetries": policy.max_retries or 1e9,
        "maxTime": policy.max_time or 1e9,
        "codes": {code: retry.value for code, retry in policy.codes.items()},
    }


def test_the_module_decides_like_the_python_client():
    dice, given, expected = random.Random(1), [], []
    for _ in range(5000):
        policy, ending = policies(dice), endings(dice)
        history = History(dice.choice([1, 1, 2, 3, 4, 9]), dice.choice([0.0, 50.0]))
        now, jitter = dice.choice([60.0, 120.0]), dice.random()
        last: Ending | HandshakeError = ending
        if dice.random() < 0.2:
            ending = Ending(cause=Cause.HANDSHAKE_FAILED, initiator=Initiator.LOCAL, clean=False)
            last = HandshakeError(ending)
        verdict = policy.decide(history, last, now, jitter)
        expected.append(verdict.name.lower() if isinstance(verdict, StopReason) else verdict)
        given.append(
            [of_page(policy), {"tries": history.tries, "since": history.since}, in_page(ending), now, jitter]
        )
    script = DECIDE % json.dumps(str(MODULE))
    told = json.loads(run("node", "--input-type=module", "--eval", script, given=json.dumps(given)))
    assert len(told) == len(expected) == 5000
    for of_javascript, of_python in zip(told, expected, strict=True):
        assert of_javascript == (of_python if isinstance(of_python, str) else pytest.approx(of_python))
    assert {each for each in expected if isinstance(each, str)} == {"done", "refused", "retries", "time"}
