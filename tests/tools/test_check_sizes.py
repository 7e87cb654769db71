"""The size limits, and the reasons that lift them."""

from __future__ import annotations

import pytest

from tools.check_sizes import oversized


def function(lines: int, head: str = "def f():") -> str:
    return "\n".join([head, *["    pass"] * (lines - 1)])


def faults(text: str) -> list[str]:
    return [fault for _line, fault in oversized(text)]


def test_a_file_may_have_400_lines() -> None:
    assert not faults("\n" * 400)
    assert faults("\n" * 401) == ["401 lines, 400 allowed"]


def test_a_long_file_may_give_its_reason() -> None:
    assert not faults("# size: one table, a row for each code" + "\n" * 401)


@pytest.mark.parametrize("comment", ["# size:", "x = 1  # size: of x", "# resize: no"])
def test_another_comment_is_no_reason_for_a_long_file(comment: str) -> None:
    assert faults(comment + "\n" * 401)


def test_a_function_may_have_50_lines() -> None:
    assert not faults(function(50))
    assert faults(function(51)) == ["f: 51 lines, 50 allowed"]
    assert faults(function(51, "async def f():")) == ["f: 51 lines, 50 allowed"]


def test_a_long_function_may_give_its_reason_in_its_header() -> None:
    assert not faults(function(51, "def f():  # size: the cases stand side by side"))
    assert faults(function(51) + "  # size: not in the head")


def test_a_method_is_measured_without_counting_self() -> None:
    method = "class C:\n    def m(self, a, b, c, d, e, {}): ..."

    assert not faults(method.format("f"))
    assert faults(method.format("f, g")) == ["m: 7 parameters, 6 allowed"]


@pytest.mark.parametrize("seventh", ["g", "*, g", "*g", "**g"])
def test_a_seventh_parameter_of_any_kind_is_refused(seventh: str) -> None:
    assert faults(f"def f(a, b, c, d, /, e, f, {seventh}): ...") == ["f: 7 parameters, 6 allowed"]


def test_many_parameters_may_give_their_reason() -> None:
    assert not faults("def f(a, b, c, d, e, f, g):  # size: the columns of the table\n    ...")
