"""The package works without OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.process import PATIENCE

#: As if the package were not installed.
WITHOUT = "import sys; sys.modules['opentelemetry'] = None\n"


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=PATIENCE
    )


def test_without_the_package_the_import_names_the_extra():
    done = run(WITHOUT + "import endwell, endwell.sync, endwell.cli\nimport endwell.otel")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: endwell.otel needs a package: pip install 'endwell[otel]'"), (
        done.stderr
    )


def test_the_library_imports_nothing_of_opentelemetry():
    done = run(
        "import sys, endwell, endwell.sync\nprint([name for name in sys.modules if 'opentel' in name])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", ["instrument", "instrument_client", "uninstrument_client"])
def test_the_names_are_public(name):
    from endwell import otel

    assert name in otel.__all__
    assert getattr(otel, name).__doc__
