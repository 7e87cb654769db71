"""The times in the block for Kubernetes; tests/server/test_health.py tests that a health page turns 503."""

from __future__ import annotations

import re

import endwell
from tests.deploy.page import block, seconds

POD = block("yaml")


def test_the_grace_period_covers_the_pause_before_the_signal_and_a_drain():
    (pause,) = re.findall(r'"sleep", "(\d+)"', POD)
    assert seconds(POD, "terminationGracePeriodSeconds") > int(pause) + endwell.Drain().deadline + 3


def test_the_readiness_probe_requests_the_programs_health_page():
    (path,) = re.findall(r"path: (\S+)", POD)
    assert f'@server.get("{path}")' in block("python", "app.py")


def test_the_pod_leaves_the_service_before_the_signal():
    (pause,) = re.findall(r'"sleep", "(\d+)"', POD)
    assert int(pause) > seconds(POD, "periodSeconds") * seconds(POD, "failureThreshold")
