"""The choice of the bus: a wrong URL and a missing package are one error at the call."""

from __future__ import annotations

import subprocess
import sys

import pytest

import endwell
from endwell.rooms.local import LocalBus
from endwell.rooms.rooms import use_bus


def bus_of(server):
    return server.rooms._registry.bus


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("amqp://host", "one of the schemes redis, rediss, valkey, valkeys, unix"),
        ("localhost:6379", "one of the schemes"),
        ("redis://user:secret@host:port/0", "is wrong"),
        ("redis://user:secret@host/name", "number of a database"),
        ("redis://user:secret@host/0?no_such_option=1", "no_such_option"),
        ("unix://", "/path/of/the/socket"),
    ],
)
def test_a_wrong_url_is_an_error_without_the_password(url, error):
    pytest.importorskip("redis")
    with pytest.raises(ValueError, match=error) as caught:
        endwell.Server(bus=url)
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="bus must be a URL"):
        endwell.Server(bus=5)


def test_a_missing_package_is_an_error_that_names_it(monkeypatch):
    for name in [each for each in sys.modules if each.startswith("endwell.rooms.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio.connection", None)
    with pytest.raises(ImportError, match=r"pip install 'endwell\[redis\]'"):
        endwell.Server(bus="redis://host")


def test_the_environment_variable_chooses_unless_the_argument_does(monkeypatch):
    pytest.importorskip("redis")
    assert isinstance(bus_of(endwell.Server()), LocalBus)
    monkeypatch.setenv("ENDWELL_BUS", "valkey://one/3?prefix=p")
    place = bus_of(endwell.Server())._place
    assert (place.address, place.database, place.prefix) == ("valkey://one", 3, "p")
    assert bus_of(endwell.Server(bus="rediss://two"))._place.address == "rediss://two"
    assert isinstance(bus_of(endwell.Server(bus="")), LocalBus)


def test_the_bus_of_the_supervisor_does_not_replace_the_chosen_one():
    pytest.importorskip("redis")
    server, chosen = endwell.Server(), endwell.Server(bus="redis://host")
    other = LocalBus(1)
    use_bus(server.rooms, other)
    use_bus(chosen.rooms, other)
    assert bus_of(server) is other
    assert bus_of(chosen) is not other
    assert not chosen.rooms.is_connected
    assert server.rooms.is_connected


def test_redis_is_imported_only_when_it_is_used():
    program = "import sys, endwell.rooms; endwell.Server(); print('redis' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
