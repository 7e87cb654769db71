"""Which reports of Autobahn count as failures, and how the cases are divided."""

import json

import pytest

from tests.conformance.suite import split
from tests.conformance.verdict import faults, reports

GOOD = {"behavior": "OK", "behaviorClose": "OK"}


@pytest.mark.parametrize("behavior", ["OK", "INFORMATIONAL"])
def test_a_good_report_is_no_failure(behavior):
    assert list(faults(["1.1.1"], {"1.1.1": {**GOOD, "behavior": behavior}})) == []


@pytest.mark.parametrize("behavior", ["FAILED", "NON-STRICT", "UNIMPLEMENTED", "FAILED BY CLIENT"])
def test_any_other_behavior_is_a_failure(behavior):
    assert list(faults(["1.1.1"], {"1.1.1": {**GOOD, "behavior": behavior}}))


@pytest.mark.parametrize("behavior", ["FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT"])
def test_a_bad_close_is_a_failure(behavior):
    assert list(faults(["1.1.1"], {"1.1.1": {**GOOD, "behaviorClose": behavior}}))


def test_a_case_without_a_report_is_a_failure():
    assert list(faults(["1.1.1", "1.1.2"], {"1.1.1": GOOD})) == ["1.1.2: there is no report"]


def test_the_reports_of_all_parts_are_read(tmp_path):
    for part, case in (("0", "1.1.1"), ("1", "2.1")):
        folder = tmp_path / part
        folder.mkdir()
        row = {**GOOD, "reportfile": "case.json"}
        (folder / "index.json").write_text(json.dumps({"endwell": {case: row}}))
        (folder / "case.json").write_text(json.dumps({"result": f"what happened in {case}"}))
    found = reports(tmp_path)
    assert {case: report["result"] for case, report in found.items()} == {
        "1.1.1": "what happened in 1.1.1",
        "2.1": "what happened in 2.1",
    }


@pytest.mark.parametrize("jobs", [1, 2, 3, 9])
def test_each_case_is_in_one_part(jobs):
    cases = ["1.1.1", "9.1.1", "12.1.1", "2.1", "13.1.1"]
    parts = split(cases, jobs)
    assert len(parts) == min(jobs, len(cases))
    assert sorted(case for part in parts for case in part) == sorted(cases)
    assert all(part == sorted(part, key=cases.index) for part in parts)
