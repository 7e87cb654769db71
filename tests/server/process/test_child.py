"""A worker, as its supervisor sees it."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest

from endwell.server.process.child import Worker
from endwell.server.process.worker import WorkerConfig


@pytest.fixture
def worker():
    with tempfile.TemporaryFile() as loads:
        config = WorkerConfig(
            supervisor=os.getpid(), number=1, count=1, load=0, channel=-1, loads=loads.fileno(), sockets=[]
        )
        made = Worker([sys.executable, "-c", "import time; time.sleep(600)"], config, 0)
        yield made
        made.process.kill()
        made.process.wait()
        made.channel.close()
        made.link.close()


def test_a_worker_that_listens_just_when_it_has_to_exit_gets_the_time_that_it_needs_to_drain(worker):
    worker.request_exit("stop", 1.0)
    before = worker.due
    worker.begin(30.0)
    assert worker.ready
    assert worker.due == before + 30.0


def test_a_worker_that_has_to_exit_at_once_gets_no_time_to_drain(worker):
    worker.request_exit("now", 1.0)
    before = worker.due
    worker.begin(30.0)
    assert worker.due == before
