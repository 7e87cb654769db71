"""A public name is always the object that the package exports, and never a submodule of the same name."""

from __future__ import annotations

import pkgutil

import pytest

import endwell
import endwell.sync


@pytest.mark.parametrize("package", [endwell, endwell.sync], ids=lambda package: package.__name__)
def test_no_submodule_has_the_name_of_a_public_object(package):
    # Importing such a submodule may rebind the name in the package, and tools that read the source
    # (documentation, IDEs) find the submodule instead of the object.
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(package.__all__)
