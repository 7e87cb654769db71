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
def test_a_lock_is_that_of_the_threading_module(module):
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
def test_what_is_handed_over_goes_on(module, count):
    held = [module.allocate() for _ in range(count)]
    assert all(lock.acquire() for lock in held)
    waiting = [Background(lock.acquire) for lock in held]
    module.hand_over(held)
    assert all(each.result() for each in waiting)


def test_those_who_wait_are_woken_in_the_order_in_which_they_came():
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
    waiting.wake(1)  # nobody
    assert not waiting


def test_nobody_waits_for_what_is_there_or_longer_than_asked():
    waiting = Waiting()
    waiting.wait(lambda: True, -1)
    waiting.wait(lambda: False, 0.01)
    assert not waiting
    assert remaining(None, 5.0) == -1
    assert remaining(4.0, 5.0) == 0
    assert remaining(1e300, 5.0) == threading.TIMEOUT_MAX


def test_threads_grow_to_the_bound_take_turns_above_it_and_go_when_idle(monkeypatch):
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
    pool.submit(job)  # and they come again
    until(lambda: len(ran) == 8)


def test_a_job_that_fails_harms_no_other(caplog):
    pool = Threads(1, "test of threads")
    ran = []

    def fail():
        raise RuntimeError("mine")

    pool.submit(fail)
    pool.submit(lambda: ran.append(1))
    until(lambda: ran)
    pool.dismiss()
    assert "mine" in caplog.text
