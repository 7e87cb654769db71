"""The supervisor keeps the histories of its workers' rooms, within the limit of the program's rooms."""

from __future__ import annotations

import pytest

from endwell import Server
from endwell.rooms import Rooms
from endwell.server import run as module
from endwell.server.process.options import ProcessOptions
from endwell.server.process.supervisor import Supervisor


class Started(Exception):
    """The supervisor would start its workers."""


@pytest.fixture
def supervisors(monkeypatch):
    made = []

    def run(supervisor, socks, pages, *, passed):
        for sock in socks:
            sock.close()
        made.append(supervisor)
        raise Started

    monkeypatch.setattr(Supervisor, "run", run)
    return made


def by_run(server):
    server.run(port=0, workers=2)


def by_endwell_serve(server):
    module.run(server, list, None, ProcessOptions(workers=2))


@pytest.mark.parametrize("serve", [by_run, by_endwell_serve])
def test_the_supervisor_has_the_limit_of_the_rooms(supervisors, serve):
    server = Server(rooms=Rooms(max_history=4321, max_known_rooms=77))
    with pytest.raises(Started):
        serve(server)
    (supervisor,) = supervisors
    assert supervisor._broker._hub._max_bytes == 4321
    assert supervisor._broker._hub._max_rooms == 77
