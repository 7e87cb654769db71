"""Rules for every test, and the fixtures that many tests share.

The tests of the layers without I/O open no socket. Coroutines run on a loop of their own and leave no task
behind.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import endwell

from .leftovers import pytest_runtest_protocol  # noqa: F401  (a hook)
from .selection import is_virtual, once, rest

TESTS = Path(__file__).parent

#: The folders of the layers without I/O and without a clock. The tests of layer 0 are files of this folder.
SANS_IO = {"wire", "protocol"}

#: The loop of the tests: "asyncio" or "uvloop".
LOOP = os.environ.get("ENDWELL_LOOP", "asyncio")

# A busy machine is not a fault of the code. The timeout of each test bounds its examples too.
hypothesis.settings.register_profile("endwell", hypothesis.settings(), deadline=None)
hypothesis.settings.register_profile("once", hypothesis.settings(), deadline=None, max_examples=20)

# Makes a failing assert of these modules show the compared values.
pytest.register_assert_rewrite("tests.raw", "tests.pair", "tests.contract.endings.witness")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--once", action="store_true", help="run each behaviour once: tests/selection.py")
    parser.addoption("--rest", action="store_true", help="run what --once leaves out: tests/selection.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for option, select in {"once": once, "rest": rest}.items():
        if config.getoption(option):
            items[:], left_out = select(items)
            config.hook.pytest_deselected(items=left_out)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test an extension module that is older than its source; let child programs be interrupted."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        # Many container images set this. Each process that a test starts would compile the whole package
        # again.
        sys.dont_write_bytecode = False
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(
            TESTS.parent / ".pytest_cache" / "bytecode"
        )
    # The proxies of this machine are not part of the tests, nor of the programs that they start.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    hypothesis.settings.load_profile("once" if config.getoption("once") else "endwell")
    # A shell starts background jobs with SIGINT ignored, and nohup ignores SIGHUP. The tests' child
    # programs would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    if os.environ.get("ENDWELL_PURE") == "1":
        return
    for extension in (TESTS.parent / "src").rglob("*.so"):
        sources = [extension.with_name(extension.name.partition(".")[0] + end) for end in (".py", ".pyx")]
        times = [source.stat().st_mtime for source in sources if source.exists()]
        if not times or max(times) > extension.stat().st_mtime:
            raise pytest.UsageError(f"{extension} is older than its source: run make build, or delete it")


def pytest_report_header() -> str:
    """What is being tested."""
    modules = ", ".join(name.removeprefix("endwell.") for name in endwell.compiled())
    build = f"compiled: {modules}" if modules else "pure Python"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"endwell {endwell.__version__} ({build}) on {python}, {LOOP}"


@pytest.fixture(autouse=True)
def sans_io(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test of the layers without I/O if it opens a socket or sleeps."""
    folder = request.path.relative_to(TESTS).parts[:-1]
    if not folder or folder[0] in SANS_IO:
        monkeypatch.setattr(socket.socket, "__init__", _refuse)
        monkeypatch.setattr(time, "sleep", _refuse)


def _refuse(*_args: object, **_kwargs: object) -> None:
    pytest.fail("layers 0 to 2 open no socket and never sleep, and neither do their tests")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return the transport of a name, and have our side use it."""
    from endwell.aio import reactor
    from tests.raw import RawPeer, named

    def use(name: str) -> Any:
        transport = named(name)
        if transport.foreign:
            monkeypatch.setenv("ENDWELL_DRIVER", "transport")
            monkeypatch.setattr(RawPeer, "answers_notify", True)
            reactor._all.clear()  # a reactor reads the variable once, and the background loop may have one
        return transport

    yield use
    reactor._all.clear()


@pytest.fixture(params=["ws", "wss"])
def transport(request: pytest.FixtureRequest, use: Callable[[str], Any]) -> Any:
    return use(request.param)


@pytest.fixture
def way(request: pytest.FixtureRequest, use: Callable[[str], Any]) -> Any:
    """The transport and the protocol: for a test with a transport's or an old protocol's name as parameter."""
    from tests.raw import PLAIN, TRANSPORTS

    if request.param in TRANSPORTS:
        return use(request.param), "13"
    return PLAIN, request.param


@pytest.fixture(params=["server", "client"])
def role(request: pytest.FixtureRequest) -> str:
    """The role of endwell; the raw peer has the other role."""
    return request.param


@pytest.fixture(params=["asyncio", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    from endwell.sync.background import background
    from tests.face import ASYNCIO, BLOCKING

    background()  # the background loop stays once it is started: no test leaves it behind
    return ASYNCIO if request.param == "asyncio" else BLOCKING


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test on a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    marker = pyfuncitem.get_closest_marker("timeout")
    limit = float(marker.args[0] if marker else pyfuncitem.config.getini("timeout"))
    factory = _virtual_loop if is_virtual(pyfuncitem) else _new_loop
    if loop := pyfuncitem.get_closest_marker("loop"):
        factory = loop.kwargs["factory"]
    with asyncio.Runner(debug=False, loop_factory=factory) as runner:
        runner.run(_leaving_nothing_behind(test, limit))
    return True


def _new_loop() -> asyncio.AbstractEventLoop:
    if LOOP == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


def _virtual_loop() -> asyncio.AbstractEventLoop:
    from tests.memory import SocketLoop

    return SocketLoop()


async def _leaving_nothing_behind(test: Coroutine[Any, Any, None], limit: float) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    # Ends before pytest-timeout, whose signal does not show where the coroutine waits.
    async with asyncio.timeout(0.9 * limit):
        await test
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        # A task that is about to end may need time on a busy machine; a task that waits for a timeout may
        # not.
        _, tasks = await asyncio.wait(tasks, timeout=30)
    assert not tasks, f"the test left tasks behind: {tasks}"
    for fault in faults:
        raise AssertionError(f"reported to the loop: {fault['message']}") from fault.get("exception")
