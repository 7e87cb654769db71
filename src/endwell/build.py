"""The version of endwell, and which of its modules are compiled.

The modules that every message passes through are ordinary Python files, which Cython compiles unchanged.
Python prefers an extension module to the `.py` file beside it. With `ENDWELL_PURE=1` in the environment,
this package uses the `.py` files instead. This module is imported before every other module of the package,
so that the choice applies to all of them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType

__all__ = ["PlainFinder", "__version__", "compiled", "failure", "warn_of_failure"]

__version__ = "0.1.0.dev0"

logger = logging.getLogger("endwell")

#: Written by setup.py if the compiler is missing or fails; it holds the reason.
_MARKER = os.path.join(os.path.dirname(__file__), "not-compiled")


class PlainFinder:
    """An import finder that loads this package from its `.py` files and ignores extension modules."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the module's `.py` file; None for a module of another package."""
        if fullname.startswith("endwell."):
            for folder in path or ():
                spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)
                if spec is not None:
                    return spec
        return None


if os.environ.get("ENDWELL_PURE") == "1":
    sys.meta_path.insert(0, PlainFinder)


def compiled() -> tuple[str, ...]:
    """The names of the loaded modules of this package that run compiled.

    Returns:
        The full module names, sorted. The tuple is empty in the pure Python build and with `ENDWELL_PURE=1`.

    Example:
        ```python
        import endwell

        print(len(endwell.compiled()), "compiled modules")
        ```
    """
    modules = sorted(name for name in sys.modules if name.startswith("endwell."))
    specs = [getattr(sys.modules[name], "__spec__", None) for name in modules]
    return tuple(spec.name for spec in specs if spec and isinstance(spec.loader, ExtensionFileLoader))


def failure() -> str | None:
    """The reason why this package could not be compiled when it was installed.

    None if it is compiled. Also None if the plain Python build was intended: with `ENDWELL_PURE=1`, or when
    the package was installed from a wheel without compiled modules.
    """
    if os.environ.get("ENDWELL_PURE") == "1" or compiled():
        return None
    try:
        with open(_MARKER, encoding="utf-8") as file:
            return " ".join(file.read().split())
    except OSError:
        return None


def warn_of_failure() -> None:
    """Log a warning, once for each process, if this package could not be compiled when it was installed."""
    global _warned  # noqa: PLW0603  (once for each process)
    if _warned:
        return
    _warned = True
    if why := failure():
        logger.warning(
            "endwell runs as plain Python, and each message costs more CPU time, because it could not be compiled when "
            "it was installed: %s (ENDWELL_PURE=1 in the environment omits this warning)",
            why,
        )


_warned = False
