"""A test that fails does not make a later test fail."""

from __future__ import annotations

from tests.cli.process import ROOT, finish, python

TESTS = """
import gc, socket

def test_one():
    sock = socket.socket()
    assert sock is None

def test_two():
    gc.collect()
"""


def test_resources_of_a_failed_test_do_not_fail_the_next_test(tmp_path):
    file = tmp_path / "test_both.py"
    file.write_text(TESTS)
    options = ["-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path), "-W", "error"]
    with python("-m", "pytest", "-p", "tests.leftovers", *options, str(file), cwd=ROOT) as process:
        status, out, _ = finish(process)
    assert status == 1
    assert "1 failed, 1 passed" in out
