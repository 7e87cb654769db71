"""What setup.py leaves behind and removes."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest
import setuptools
from setuptools import Distribution, Extension

SETUP = Path(__file__).resolve().parents[2] / "setup.py"
MARKER = Path("lib", "endwell", "not-compiled")


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Builds a module from C source, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setenv("ENDWELL_PURE", "1")  # so that importing it compiles nothing
    command_class = runpy.run_path(str(SETUP))["BuildExtensions"]
    monkeypatch.delenv("ENDWELL_PURE")

    def build(source: str, **attributes: object) -> None:
        Path("module.c").write_text(source)
        command = command_class(Distribution({"ext_modules": [Extension("endwell.module", ["module.c"])]}))
        command.build_lib, command.build_temp = "lib", "temp"
        vars(command).update(attributes)
        command.ensure_finalized()
        command.run()

    return build


def test_a_failure_of_the_compiler_leaves_its_reason_in_the_package(build, capsys):
    build("#error this is not to be compiled")
    assert MARKER.read_text().strip()
    assert [path.name for path in MARKER.parent.iterdir()] == ["not-compiled"]
    assert "installed as plain Python" in capsys.readouterr().err


def test_a_failed_build_in_place_leaves_its_reason_beside_the_source(build, monkeypatch):
    Path("src", "endwell").mkdir(parents=True)
    build("#error this is not to be compiled", inplace=True)
    assert Path("src", "endwell", "not-compiled").exists()


def test_a_build_that_succeeds_removes_the_reason(build):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    build("#error this is not to be compiled")
    build("int compiled;")
    assert not MARKER.exists()


def test_a_failure_is_an_error_if_requested(build, monkeypatch):
    monkeypatch.setenv("ENDWELL_PURE", "0")
    with pytest.raises(setuptools.errors.CCompilerError):
        build("#error this is not to be compiled")
    assert not MARKER.exists()


@pytest.mark.parametrize("inplace", [False, True], ids=["wheel", "in-place"])
def test_a_build_removes_the_compiled_form_of_a_module_that_is_no_longer_compiled(build, inplace):
    root = Path("src" if inplace else "lib", "endwell")
    (root / "aio").mkdir(parents=True)
    (root / "aio" / "plain.py").touch()
    for name in ("gone.cpython-311-x86_64-linux-gnu.so", "plain.abi3.so", "driver.cpython-312-darwin.so"):
        (root / "aio" / name).touch()
    build("int compiled;", inplace=inplace)
    assert sorted(path.name for path in (root / "aio").iterdir()) == [
        "driver.cpython-312-darwin.so",
        "plain.py",
    ]
