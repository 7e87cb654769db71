from __future__ import annotations

import json
from dataclasses import replace

from endwell.server.drain.report import DrainReport
from endwell.server.drain.timetable import Phase


def test_reports_of_several_servers_and_processes_are_summed():
    one = DrainReport(
        connections=3,
        endings={"clean": 2, "aborted": 1},
        refused=1,
        last_called=1,
        unanswered=2,
        cancelled=1,
        stuck=("work", "work", "idle"),
        slowest=("work", 1.5),
        phases={Phase.CLOSE: 0.5, Phase.WAIT: 1.0},
        duration=1.5,
    )
    other = replace(
        one, endings={"clean": 3}, stuck=(), slowest=("idle", 2.0), phases={Phase.CLOSE: 0.7}, duration=2.0
    )
    reports = [DrainReport.from_dict(json.loads(json.dumps(each.as_dict()))) for each in (one, other)]
    assert reports == [one, other]
    assert DrainReport.total(reports) == DrainReport(
        connections=6,
        endings={"clean": 5, "aborted": 1},
        refused=2,
        last_called=2,
        unanswered=4,
        cancelled=2,
        stuck=("idle", "work", "work"),
        slowest=("idle", 2.0),
        phases={Phase.CLOSE: 0.7, Phase.WAIT: 1.0},
        duration=2.0,
    )
    nobody = replace(one, slowest=None)
    assert DrainReport.from_dict(nobody.as_dict()) == nobody
    assert DrainReport.total([nobody]).slowest is None


def test_a_report_uses_the_singular_for_one_connection():
    report = DrainReport(
        connections=1,
        endings={"clean": 1},
        refused=1,
        last_called=1,
        unanswered=1,
        cancelled=1,
        stuck=(),
        slowest=None,
        phases={},
        duration=1.5,
    )
    assert str(report) == (
        "drained 1 connection in 1.5 s: 1 clean; 1 message unanswered; 1 closed while busy; 1 handler cancelled; "
        "1 request refused"
    )
    many = replace(report, connections=2, endings={}, refused=2, last_called=2, unanswered=2, cancelled=2)
    assert str(many) == (
        "drained 2 connections in 1.5 s: none; 2 messages unanswered; 2 closed while busy; 2 handlers cancelled; "
        "2 requests refused"
    )
