"""The module by itself: its types, its size, and its policy, which is that of the Python client."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from endwell import Cause, Close, Ending, Initiator, Retry, RetryPolicy, Stop
from endwell.client.retry import History
from endwell.errors import HandshakeFailed

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "src" / "endwell" / "browser" / "endwell.js"
#: Minified and compressed, in bytes.
MOST = 3000

DECIDE = """
import { decide } from %s;
let input = "";
for await (const chunk of process.stdin) input += chunk;
console.log(JSON.stringify(JSON.parse(input).map((each) => decide(...each))));
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


def test_its_types_are_right():
    run(tool("tsc"), "--project", "tools/browser")


def test_it_has_at_most_3_kilobytes():
    minified = run(tool("esbuild"), "--minify", "--format=esm", str(MODULE))
    assert len(gzip.compress(minified.encode(), 9)) <= MOST


def test_its_folder_is_an_npm_package(tmp_path: Path):
    folder = str(MODULE.parent)
    (packed,) = json.loads(run("npm", "pack", "--dry-run", "--json", "--offline", folder))
    assert {file["path"] for file in packed["files"]} == {"endwell.js", "package.json"}
    run("npm", "install", "--offline", "--no-audit", "--no-fund", "--prefix", str(tmp_path), folder)
    (tmp_path / "page.mjs").write_text(
        "import * as all from 'endwell'; console.log(Object.keys(all).sort() + '');"
    )
    assert run("node", str(tmp_path / "page.mjs")) == "ReconnectingWebSocket,decide\n"


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
    code = dice.choice([*range(1000, 1016), 3000, 3003, 3008, 3500, 4000, 4001, 4990, 4991, 4999, 2000, 5000])
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
    cause = dice.choice([Cause.PEER_CLOSED, Cause.APP_CLOSED, Cause.KEEPALIVE_TIMEOUT, Cause.PEER_VANISHED])
    if cause is Cause.PEER_VANISHED:
        return Ending(cause=cause, initiator=Initiator.NETWORK, clean=False)
    received = Close(None if code == 1005 else code, reason)
    if cause is Cause.PEER_CLOSED:
        return Ending(cause=cause, initiator=Initiator.PEER, clean=True, received=received, sent=received)
    answer = dice.choice([received, None])
    return Ending(cause=cause, initiator=Initiator.LOCAL, clean=bool(answer), received=answer, sent=received)


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


def test_it_decides_as_the_python_client_does():
    dice, given, expected = random.Random(1), [], []
    for _ in range(5000):
        policy, ending = policies(dice), endings(dice)
        history = History(dice.choice([1, 1, 2, 3, 4, 9]), dice.choice([0.0, 50.0]))
        now, die = dice.choice([60.0, 120.0]), dice.random()
        last: Ending | HandshakeFailed = ending
        if dice.random() < 0.2:
            ending = Ending(cause=Cause.HANDSHAKE_FAILED, initiator=Initiator.LOCAL, clean=False)
            last = HandshakeFailed(ending)
        verdict = policy.decide(history, last, now, die)
        expected.append(verdict.name.lower() if isinstance(verdict, Stop) else verdict)
        given.append(
            [of_page(policy), {"tries": history.tries, "since": history.since}, in_page(ending), now, die]
        )
    script = DECIDE % json.dumps(str(MODULE))
    told = json.loads(run("node", "--input-type=module", "--eval", script, given=json.dumps(given)))
    assert len(told) == len(expected) == 5000
    for of_javascript, of_python in zip(told, expected, strict=True):
        assert of_javascript == (of_python if isinstance(of_python, str) else pytest.approx(of_python))
    assert {each for each in expected if isinstance(each, str)} == {"done", "refused", "retries", "time"}
