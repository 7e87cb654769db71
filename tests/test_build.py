"""Which build runs: the plain finder, and the reason of a failed compilation."""

from __future__ import annotations

import logging
import runpy
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import pytest

from endwell import build


def test_the_plain_finder_prefers_a_py_file_to_an_extension_module(tmp_path: Path) -> None:
    source = tmp_path / "frames.py"
    extension = tmp_path / f"frames{EXTENSION_SUFFIXES[0]}"
    source.touch()
    extension.touch()
    folders = [str(tmp_path)]

    assert PathFinder.find_spec("endwell.frames", folders).origin == str(extension)
    assert build.PlainFinder.find_spec("endwell.frames", folders).origin == str(source)


def test_the_plain_finder_finds_a_package(tmp_path: Path) -> None:
    package = tmp_path / "wire"
    package.mkdir()
    (package / "__init__.py").touch()

    spec = build.PlainFinder.find_spec("endwell.wire", [str(tmp_path)])

    assert spec.submodule_search_locations == [str(package)]


@pytest.mark.parametrize("name", ["frames", "endwell", "endwellness.frames"])
def test_the_plain_finder_leaves_other_packages_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name.rpartition('.')[2]}.py").touch()

    assert build.PlainFinder.find_spec(name, [str(tmp_path)]) is None


def test_the_plain_finder_finds_no_missing_module(tmp_path: Path) -> None:
    assert build.PlainFinder.find_spec("endwell.nothing", [str(tmp_path)]) is None
    assert build.PlainFinder.find_spec("endwell.nothing") is None


@pytest.mark.parametrize(("value", "pure"), [("1", True), ("0", False), ("", False), (None, False)])
def test_endwell_pure_puts_the_plain_finder_first(
    value: str | None, pure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "PlainFinder"]
    monkeypatch.setattr(sys, "meta_path", others.copy())
    monkeypatch.delenv("ENDWELL_PURE", raising=False)
    if value is not None:
        monkeypatch.setenv("ENDWELL_PURE", value)

    found = runpy.run_path(build.__file__)

    assert sys.meta_path == [found["PlainFinder"]] * pure + others


def test_compiled_lists_extension_modules_of_this_package_only(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.compiled()
    for name in ("endwell.fast", "elsewhere.fast"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, ExtensionFileLoader(name, "fast.so"))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "endwell.odd", ModuleType("endwell.odd"))

    assert set(build.compiled()) - set(before) == {"endwell.fast"}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that an installation writes if the compiler fails; no module is compiled, no warning was
    given.
    """
    path = tmp_path / "not-compiled"
    path.write_text("command 'cc' failed:\nNo such file\n")
    monkeypatch.setattr(build, "_MARKER", str(path))
    monkeypatch.setattr(build, "_warned", False)
    monkeypatch.setattr(build, "compiled", tuple)
    monkeypatch.delenv("ENDWELL_PURE", raising=False)
    return path


def test_the_reason_for_a_failed_compilation_is_known(marker: Path) -> None:
    assert build.failure() == "command 'cc' failed: No such file"


def test_a_plain_build_by_choice_is_no_failure(marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDWELL_PURE", "1")
    assert build.failure() is None


def test_a_plain_wheel_is_no_failure(marker: Path) -> None:
    marker.unlink()
    assert build.failure() is None


def test_a_compiled_build_is_no_failure(marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compiled", lambda: ("endwell.http.headers",))
    assert build.failure() is None


def test_a_failed_compilation_is_warned_about_once(marker: Path, caplog: pytest.LogCaptureFixture) -> None:
    build.warn_of_failure()
    build.warn_of_failure()

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("endwell", logging.WARNING)
    assert (
        "could not be compiled when it was installed: command 'cc' failed: No such file"
        in record.getMessage()
    )


def test_a_build_without_failure_is_not_warned_about(marker: Path, caplog: pytest.LogCaptureFixture) -> None:
    marker.unlink()
    build.warn_of_failure()
    assert not caplog.records
