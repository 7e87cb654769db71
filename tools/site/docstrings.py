"""An extension of griffe: what the API reference reads beside the docstrings.

- The fields of ``endwell.Options``, ``Deflate`` and ``RetryPolicy`` carry their documentation as arguments (unit,
  consequence), because tables are made from it. Here that becomes the docstring of the field.
- An attribute that ``__init__`` sets is shown with its type, and without the expression that is assigned.
- A Sphinx role such as ``:class:`Response``` becomes a link, if the object is public, or code.
"""

from __future__ import annotations

import ast
import re
from functools import partial
from importlib import import_module
from typing import Any

import griffe

__all__ = ["DocstringsExtension"]

#: The functions that make documented fields.
DOCUMENTING = {"_option", "_limit"}
#: Modules whose ``__all__`` is public.
PUBLIC = ("endwell", "endwell.sync")
ROLE = re.compile(r":(?P<role>class|meth|exc|attr|func|data):`(?P<target>~?[\w.]+)`")


def public_paths(package: griffe.Module) -> dict[str, str]:
    """The public path of each public object, by the path of its definition."""
    paths = {}
    for module in PUBLIC:
        members = package[module.removeprefix("endwell.")] if module != "endwell" else package
        for name in map(str, members.exports or ()):
            if name in members.members:
                found = members[name]
                paths[found.final_target.path if found.is_alias else found.path] = f"{module}.{name}"
    return paths


class DocstringsExtension(griffe.Extension):
    """Give documented fields their docstrings, attributes their types, and docstrings their links."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **rest: Any) -> None:
        """Write the docstring of a field that ``_option`` or ``_limit`` makes."""
        call = getattr(node, "value", None)
        if attr.docstring is not None or not isinstance(call, ast.Call):
            return
        if ast.unparse(call.func) not in DOCUMENTING or not isinstance(attr.parent, griffe.Class):
            return
        # The sentence may be computed, so it is taken from the class and not from its source.
        owner = getattr(import_module(attr.parent.module.path), attr.parent.name)
        says = owner.__dataclass_fields__[attr.name].metadata
        words = says["consequence"]
        attr.value = ast.unparse(call.args[0])
        unit = f" (unit: {says['unit']})" if says["unit"] else ""
        side = says.get("used_by", "both")
        only = "" if side == "both" else f" Only a {side} uses it."
        text = f"{words[0].upper()}{words[1:]}{unit}.{only}"
        attr.docstring = griffe.Docstring(text, parent=attr)

    def on_package(self, *, pkg: griffe.Module, **rest: Any) -> None:
        """Resolve the roles in the docstrings of public classes and functions."""
        if pkg.path != "endwell":
            return
        public = public_paths(pkg)
        names = {path.rpartition(".")[2]: path for path in reversed(public.values())}
        for path, shown in public.items():
            found = pkg[path.removeprefix("endwell.")]
            if isinstance(found, griffe.Class):
                _show_types(found)
            for each in (found, *found.members.values()):
                if not each.is_alias and each.docstring is not None:
                    link = partial(_link, found=found, shown=shown, names=names)
                    each.docstring.value = ROLE.sub(link, each.docstring.value)


def _show_types(found: griffe.Class) -> None:
    """Remove the values of instance attributes. One without a type has that of the parameter that it stores."""
    init = found.members.get("__init__")
    parameters = init.parameters if isinstance(init, griffe.Function) else ()
    types = {each.name: each.annotation for each in parameters}
    for each in found.members.values():
        if isinstance(each, griffe.Attribute) and each.labels == {"instance-attribute"}:
            if each.annotation is None:
                each.annotation = types.get(str(each.value))
            each.value = None


def _link(role: re.Match[str], found: griffe.Object, shown: str, names: dict[str, str]) -> str:
    """A role in the docstring of ``found``, whose public path is ``shown``, as Markdown."""
    target = role["target"].removeprefix("~")
    text = target.rpartition(".")[2] if role["target"].startswith("~") else target
    if role["role"] in {"meth", "func"}:
        text += "()"
    owner, _, member = target.removeprefix("endwell.").rpartition(".")
    if target in found.members:
        path = f"{shown}.{target}"
    elif target.startswith("endwell.sync.") or (owner.rpartition(".")[2] in names and member):
        path = target if target.startswith("endwell.sync.") else f"{names[owner.rpartition('.')[2]]}.{member}"
    elif member in names:
        # The blocking WebSocket refers to its own kind.
        same = f"{shown.rpartition('.')[0]}.{member}"
        path = same if same in names.values() else names[member]
    else:
        return f"`{text}`"
    return f"[`{text}`][{path}]"
