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
        (
            "amqp://host",
            "one of the schemes redis, rediss, valkey, valkeys, unix, redis.sentinel, rediss.sentinel, redis.cluster, rediss.cluster, nats, tls",
        ),
        ("localhost:6379", "one of the schemes"),
        ("redis://user:secret@host:port/0", "is wrong"),
        ("redis://user:secret@host/name", "number of a database"),
        ("redis://user:secret@host/0?no_such_option=1", "no_such_option"),
        ("unix://", "/path/of/the/socket"),
        ("redis+cluster://user:secret@host,", "a host is missing"),
        ("redis+cluster://user:secret@host/1", "only the database 0"),
        ("redis+cluster://user:secret@host,host:port", "is wrong"),
        ("rediss+cluster://user:secret@host?prefix={a}", "the prefix must have no braces"),
        ("rediss+cluster://user:secret@host?no_such_option=1", "no_such_option"),
        ("redis+sentinel://user:secret@host,host/", "must end with /SERVICE"),
        ("redis+sentinel://user:secret@host/main/x", "must end with /SERVICE"),
        ("redis+sentinel://user:secret@host:port/main", "is wrong"),
        ("redis+sentinel://host/main?sentinel_password=secret&no_such_option=1", "no_such_option"),
        ("nats://user:secret@host/0", "must end after the host"),
        ("nats://user:secret@", "a host is missing"),
        ("nats://user:secret@host:port", "Port could not be cast"),
        ("nats://user:secret@host?prefix=a%20b", "prefix must have letters"),
        ("nats://user:secret@host?no_such_option=1", "unknown options: no_such_option"),
        ("tls://user:secret@host?ssl_ca_certs=/no/such/file", "ssl_ca_certs: .*No such file"),
    ],
)
def test_a_wrong_url_is_an_error_without_the_password(url, error):
    pytest.importorskip("nats" if url.startswith(("nats", "tls")) else "redis")
    with pytest.raises(ValueError, match=error) as caught:
        endwell.Server(bus=url)
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="bus must be a URL"):
        endwell.Server(bus=5)


@pytest.mark.parametrize("package", ["redis", "nats"])
def test_a_missing_package_is_an_error_that_names_it(monkeypatch, package):
    for name in [
        each for each in sys.modules if each.startswith((f"endwell.rooms.{package}", f"{package}."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'endwell\[{package}\]'"):
        endwell.Server(bus=f"{package}://host")


def test_the_environment_variable_chooses_unless_the_argument_does(monkeypatch):
    pytest.importorskip("redis")
    assert isinstance(bus_of(endwell.Server()), LocalBus)
    monkeypatch.setenv("ENDWELL_BUS", "valkey://one/3?prefix=p")
    place = bus_of(endwell.Server())._place
    assert (place.address, place.database, place.prefix) == ("valkey://one", 3, "p")
    assert bus_of(endwell.Server(bus="rediss://two"))._place.address == "rediss://two"
    assert isinstance(bus_of(endwell.Server(bus="")), LocalBus)


@pytest.mark.parametrize("package", ["redis", "nats"])
def test_the_bus_of_the_supervisor_does_not_replace_the_chosen_one(package):
    pytest.importorskip(package)
    server, chosen = endwell.Server(), endwell.Server(bus=f"{package}://host")
    other = LocalBus(1)
    use_bus(server.rooms, other)
    use_bus(chosen.rooms, other)
    assert bus_of(server) is other
    assert bus_of(chosen) is not other
    assert not chosen.rooms.is_connected
    assert server.rooms.is_connected


def test_the_package_of_a_bus_is_imported_only_when_it_is_used():
    program = "import sys, endwell.rooms; endwell.Server(); print({'redis', 'nats'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
