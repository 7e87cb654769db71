"""A process whose event loop is blocked says where, and exits."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

from endwell.server.process.watchdog import REPORT_TIME
from tests.cli.process import finish, python

LIMIT = 2.5

PROGRAM = f"""
import time
from endwell.server.process.watchdog import Watchdog

def blocks():
    print("limited", flush=True)
    time.sleep(3600)

Watchdog().limit({LIMIT})
blocks()
"""


def test_a_process_that_stands_still_at_the_limit_makes_its_report():
    with ExitStack() as stack:
        # Several: the scheduler chooses which thread of each goes on first.
        processes = [stack.enter_context(python("-c", PROGRAM)) for _ in range(5)]
        for process in processes:
            assert process.stdout.readline() == "limited\n"
            process.send_signal(signal.SIGSTOP)
        time.sleep(LIMIT + REPORT_TIME + 0.5)
        for process in processes:
            process.send_signal(signal.SIGCONT)
        for process in processes:
            status, _, err = finish(process)
            assert status == 1
            assert "the event loop is blocked" in err
            assert "in blocks" in err
