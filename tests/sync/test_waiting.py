"""Threads that wait, and threads that work."""

from __future__ import annotations

import importlib
import threading
import time

import pytest

import endwell
from endwell.sync import locks, threads
from endwell.sync.threads import Threads
from endwell.sync.waiting import Waiting, remaining
from tests.raw import BOUND
from tests.sync.background import Background, until

PLAIN = locks
BOTH = [PLAIN]
if "endwell.sync._locks" in endwell.compiled():
    BOTH.append(importlib.import_module("endwell.sync._locks"))


@pytest.mark.parametrize("module", BOTH, ids=lambda module: module.__name__)
def test_locks_are_those_of_the_threading_module(module):
    lock = module.allocate()
    assert lock.acquire()
    assert lock.locked()
    assert not lock.acquire(False)
    began = time.monotonic()
    assert not lock.acquire(True, 0.05)
    assert time.monotonic() - began > 0.04
    waiting = Background(lock.acquire)
    time.sleep(0.02)
    assert waiting.running
    lock.release()
    assert waiting.result()
    lock.release()
    assert not lock.locked()
    assert lock.acquire(True, 0)


@pytest.mark.parametrize("module", BOTH, ids=lambda module: module.__name__)
@pytest.mark.parametrize("count", [0, 1, 100])
def test_threads_waiting_for_handed_over_locks_resume(module, count):
    held = [module.allocate() for _ in range(count)]
    assert all(lock.acquire() for lock in held)
    waiting = [Background(lock.acquire) for lock in held]
    module.hand_over(held)
    assert all(each.result() for each in waiting)


def test_waiting_threads_wake_in_order():
    waiting = Waiting()
    woken = []

    def wait(name):
        waiting.wait(lambda: False, -1)
        woken.append(name)

    threads = []
    for name in range(3):
        threads.append(Background(wait, name))
        until(lambda name=name: len(waiting) > name)
    for count in (1, 2, 3):
        waiting.wake(1)
        until(lambda count=count: len(woken) == count)
    assert woken == [0, 1, 2]
    waiting.wake(1)  # no thread
    assert not waiting


def test_wait_returns_at_once_if_satisfied_or_at_its_timeout():
    waiting = Waiting()
    waiting.wait(lambda: True, -1)
    waiting.wait(lambda: False, 0.01)
    assert not waiting
    assert remaining(None, 5.0) == -1
    assert remaining(4.0, 5.0) == 0
    assert remaining(1e300, 5.0) == threading.TIMEOUT_MAX


def test_the_thread_pool_grows_to_its_bound_and_shrinks_when_idle(monkeypatch):
    monkeypatch.setattr(threads, "IDLE_TIME", 0.1)
    pool = Threads(3, "test of threads")
    release, ran = threading.Event(), []

    def job():
        release.wait(BOUND)
        ran.append(threading.current_thread().name)

    for _ in range(7):
        pool.submit(job)
    assert pool.busy == 3
    release.set()
    until(lambda: len(ran) == 7)
    assert len(set(ran)) <= 3
    until(lambda: not any(each.name.startswith("test of threads") for each in threading.enumerate()))
    assert pool.busy == 0
    pool.submit(job)  # and they start again
    until(lambda: len(ran) == 8)


def test_a_failing_job_does_not_affect_others(caplog):
    pool = Threads(1, "test of threads")
    ran = []

    def fail():
        raise RuntimeError("mine")

    pool.submit(fail)
    pool.submit(lambda: ran.append(1))
    until(lambda: ran)
    pool.dismiss()
    assert "mine" in caplog.text
