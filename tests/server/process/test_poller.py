"""What a supervisor waits with: epoll, and poll() where the system has none."""

from __future__ import annotations

import select
import socket

import pytest

from endwell.server.process.poller import READ, WRITE, Poller


@pytest.fixture(params=["epoll", "poll"])
def poller(request, monkeypatch):
    if request.param == "poll":
        monkeypatch.delattr(select, "epoll", raising=False)
    elif not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    poller = Poller()
    yield poller
    poller.close()


@pytest.fixture
def pair():
    one, two = socket.socketpair()
    with one, two:
        yield one, two


def test_its_events_are_those_of_the_system():
    assert (READ, WRITE) == (select.POLLIN, select.POLLOUT)


def test_a_descriptor_is_ready_when_it_is_readable(poller, pair):
    one, two = pair
    poller.add(one, "one")
    assert one in poller
    assert two not in poller
    assert poller[one.fileno()] == "one"
    assert poller.wait(0.0) == []
    assert poller.wait(0.01) == []
    two.send(b"x")
    assert poller.wait(None) == [(one.fileno(), READ)]
    assert poller.wait(5.0) == [(one.fileno(), READ)]


def test_a_descriptor_is_ready_when_it_is_writable_if_that_is_asked_for(poller, pair):
    one, _ = pair
    poller.add(one, "one")
    poller.change(one, READ | WRITE)
    assert poller.wait(None) == [(one.fileno(), WRITE)]
    poller.change(one, READ)
    assert poller.wait(0.0) == []


def test_the_end_of_the_peer_is_an_event(poller, pair):
    one, two = pair
    poller.add(one, "one")
    two.close()
    ((descriptor, events),) = poller.wait(None)
    assert (descriptor, events & READ) == (one.fileno(), READ)


def test_a_descriptor_that_was_removed_is_not_ready(poller, pair):
    one, two = pair
    poller.add(one, "one")
    two.send(b"x")
    poller.remove(one)
    assert one not in poller
    assert poller.wait(0.0) == []
