"""The times of the block for Kubernetes; that a health page turns 503 is in tests/server/test_health.py."""

from __future__ import annotations

import re

import endwell
from tests.deploy.page import block, seconds

POD = block("yaml")


def test_the_grace_period_covers_the_pause_before_the_signal_and_a_drain():
    (pause,) = re.findall(r'"sleep", "(\d+)"', POD)
    assert seconds(POD, "terminationGracePeriodSeconds") > int(pause) + endwell.Drain().deadline + 3


def test_a_pod_is_asked_for_the_health_page_that_the_program_has():
    (path,) = re.findall(r"path: (\S+)", POD)
    assert f'@server.get("{path}")' in block("python", "app.py")


def test_the_pod_is_out_of_the_service_before_the_signal_comes():
    (pause,) = re.findall(r'"sleep", "(\d+)"', POD)
    assert int(pause) > seconds(POD, "periodSeconds") * seconds(POD, "failureThreshold")
