"""Windows, as far as Linux can tell: the package imports, and names each unsupported feature."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import tests.without_posix
import asyncio, contextlib, importlib, io, json, os, pathlib, sys

# A name that is there after all would make the test say nothing.
assert not hasattr(os, "fork") and not hasattr(os, "readv") and sys.platform == "win32"

package = pathlib.Path(sys.argv[1])
modules = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in sorted(package.rglob("*.py"))]
for name in modules:
    if not name.endswith("__main__"):
        importlib.import_module(name.removesuffix(".__init__"))

import endwell, endwell.sync, endwell.cli

server = endwell.Server()

async def opened():
    async with endwell.connect("ws://127.0.0.1:1/"):
        pass

async def served():
    async with server.serving():
        pass

async def looped():
    async for ws in endwell.reconnecting("ws://127.0.0.1:1/"):
        pass

def loop_blocking():
    for ws in endwell.sync.reconnecting("ws://127.0.0.1:1/"):
        pass

calls = {
    "connect": lambda: asyncio.run(opened()),
    "sync.connect": lambda: endwell.sync.connect("ws://127.0.0.1:1/"),
    "sync.connect to a Unix socket": lambda: endwell.sync.connect("ws://localhost/", unix_path="path"),
    "reconnecting": lambda: asyncio.run(looped()),
    "sync.reconnecting": loop_blocking,
    "serving": lambda: asyncio.run(served()),
    "run": server.run,
    "run on a Unix socket": lambda: server.run(unix_path="path"),
    "run with workers": lambda: server.run(workers=2),
}
told = {"modules": len(modules)}
for name, call in calls.items():
    try:
        call()
    except NotImplementedError as error:
        told[name] = str(error)
for command in (["why", "1006"], ["connect", "ws://127.0.0.1:1/"], ["serve", "app.py:server"], ["demo"]):
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = endwell.cli.main(command)
    told["endwell " + command[0]] = [status, output.getvalue(), errors.getvalue()]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    # The plain build: compiled modules are compiled for this platform.
    environment = {**os.environ, "ENDWELL_PURE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ROOT / "src" / "endwell"],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=100,
    )
    assert not done.stderr
    return json.loads(done.stdout)


def test_every_module_can_be_imported_on_windows(told):
    assert told["modules"] > 100


@pytest.mark.parametrize(
    "call",
    [
        "connect",
        "sync.connect",
        "sync.connect to a Unix socket",
        "reconnecting",
        "sync.reconnecting",
        "serving",
        "run",
        "run on a Unix socket",
        "run with workers",
    ],
)
def test_an_unsupported_feature_on_windows_says_so_in_one_sentence(told, call):
    assert told[call].startswith("endwell does not run on Windows")
    assert "\n" not in told[call]


@pytest.mark.parametrize("command", ["connect", "serve", "demo"])
def test_an_unsupported_command_on_windows_says_so(told, command):
    status, output, errors = told[f"endwell {command}"]
    assert (status, output) == (1, "")
    assert errors.startswith("endwell: endwell does not run on Windows")
    assert errors.count("\n") == 1


def test_close_codes_are_explained_on_windows(told):
    status, output, errors = told["endwell why"]
    assert (status, errors) == (0, "")
    assert output.startswith("1006 ABNORMAL_CLOSURE\n")
