"""The target of ``endwell serve``: the Server or the ASGI application that a file or a module has."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from ..asgi.application import as_asgi
from ..server.app import Server

__all__ = ["TargetError", "load"]


class TargetError(ValueError):
    """The target cannot be served, and the message says why."""


def load(target: str, folder: str | None = None, *, factory: bool = False) -> Any:
    """Import the object that ``FILE_OR_MODULE:ATTR`` names: a Server or an application.

    Args:
        target: ATTR may have dots.
        folder: The folder where a module is looked up. Default: the current folder.
        factory: ATTR is a function without parameters that returns the object.

    Raises:
        TargetError: There is no such object. Exceptions of the imported code propagate.
    """
    name, colon, attribute = target.rpartition(":")
    if not (name and colon and attribute):
        raise TargetError(f"{target!r} is not FILE_OR_MODULE:ATTR, such as app.py:server")
    if folder is not None:
        sys.path.insert(0, os.path.abspath(folder))
    module = _import_file(Path(name)) if name.endswith(".py") or os.sep in name else _import(name, folder)
    try:
        found: Any = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        if error.name not in attribute.split("."):
            raise
        raise TargetError(f"{name} has no attribute {attribute!r}{_candidates(module)}") from None
    what = f"{attribute!r} of {name}"
    if factory:
        _check_factory(found, what)
        found = found()
        what = f"the result of {what}"
    if not isinstance(found, Server):
        _check_application(found, what)
    return found


def _check_factory(found: Any, what: str) -> None:
    if not callable(found):
        raise TargetError(f"{what} is of type {type(found).__name__}, which --factory cannot call")
    if inspect.iscoroutinefunction(found):
        raise TargetError(f"{what} is a coroutine function; --factory calls an ordinary function")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return  # of a function in C, for example
    try:
        signature.bind()
    except TypeError:
        raise TargetError(f"{what} is not a function without parameters, which --factory calls") from None


def _check_application(found: Any, what: str) -> None:
    if _is_factory(found):
        raise TargetError(f"{what} takes no arguments; if it returns the application, add --factory")
    try:
        as_asgi(found)
    except TypeError:
        kind = type(found).__name__
        raise TargetError(f"{what} is of type {kind}, and neither a Server nor an ASGI application") from None
    except ImportError as error:  # for WSGI, without a2wsgi
        raise TargetError(str(error)) from None


def _is_factory(found: Any) -> bool:
    if not inspect.isroutine(found):
        return False
    try:
        return not inspect.signature(found).parameters
    except ValueError:
        return False


def _candidates(module: ModuleType) -> str:
    """A hint with the names that the user may have meant."""
    values = vars(module).items()
    for kind, names in (
        ("Server", [name for name, value in values if isinstance(value, Server)]),
        ("application", [name for name, value in values if _looks_like_asgi(value)]),
    ):
        if names:
            return f"; its {kind} is called {', '.join(names)}"
    return ""


def _looks_like_asgi(value: Any) -> bool:
    # An object like FastAPI's; not a class or a function, which the module may only have imported.
    call = getattr(type(value), "__call__", None)  # noqa: B004 - an object with __call__
    return inspect.iscoroutinefunction(call) and len(inspect.signature(call).parameters) == 4


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"there is no file {str(path)!r}")
    # As "python FILE" does.
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look up the module by its name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str, folder: str | None) -> ModuleType:
    if folder is None:
        # As "python -m MODULE" does.
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # If the module exists, but imports a missing one, show the traceback.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise TargetError(f"there is no module {error.name!r}") from None
