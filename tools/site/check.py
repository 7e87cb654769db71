"""Check the site that MkDocs has built.

Every public name has an entry, every attribute of a public class has a type, and no page loads anything from another
host.

MkDocs itself fails on a broken link or anchor (``strict`` in mkdocs.yml).
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import griffe

import endwell
import endwell.asgi
import endwell.sync
import endwell.testing

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "build" / "site"
MODULES = (endwell, endwell.asgi, endwell.sync, endwell.testing)
#: What a page loads at once; a link for the reader (``a href``) may lead anywhere.
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
#: Values of ``link rel`` that load nothing.
NOT_LOADED = {"canonical", "prev", "next"}


def public_names() -> Iterator[str]:
    """The public path of each public name and of each public member."""
    for module in MODULES:
        for name in module.__all__:
            path, found = f"{module.__name__}.{name}", getattr(module, name)
            yield path
            if inspect.isclass(found):
                for member in members(found):
                    yield f"{path}.{member}"


def members(found: type) -> Iterator[str]:
    """The public members of a class that this package defines: methods, properties, fields, members of an Enum."""
    names: dict[str, None] = {}
    for base in found.__mro__:
        if base.__module__.partition(".")[0] == "endwell":
            names |= dict.fromkeys(vars(base)) | dict.fromkeys(inspect.get_annotations(base))
    if issubclass(found, enum.Enum):
        names |= dict.fromkeys(found.__members__)
    return (name for name in names if not name.startswith("_"))


def entries() -> set[str]:
    """What the API reference has an entry for: the inventory that mkdocstrings writes."""
    head, _, rest = (SITE / "objects.inv").read_bytes().partition(b"compressed using zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2")
    return {line.split(" ", 1)[0] for line in zlib.decompress(rest).decode().splitlines()}


def untyped() -> Iterator[str]:
    """The attributes of public classes whose type the API reference cannot show."""
    extensions = griffe.load_extensions("griffe_sphinx", str(ROOT / "tools" / "site" / "docstrings.py"))
    package = griffe.load(
        "endwell", search_paths=[ROOT / "src"], extensions=extensions, allow_inspection=False
    )
    for module in MODULES:
        for name in module.__all__:
            found = package[f"{module.__name__}.{name}".removeprefix("endwell.")]
            for member in found.members.values() if found.is_class else ():
                if (
                    member.is_attribute
                    and member.is_public
                    and member.labels == {"instance-attribute"}
                    and member.annotation is None
                ):
                    yield f"{module.__name__}.{name}.{member.name}"


class Loads(HTMLParser):
    """The addresses that one page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element loads."""
        values = dict(attrs)
        address = values.get(LOADED.get(tag, "")) or ""
        if re.match(r"(https?:)?//", address) and values.get("rel") not in NOT_LOADED:
            self.found.append(address)


def main() -> int:
    """Print the faults; 1 if there are any."""
    known = entries()
    faults = [
        f"{path}: public, and no entry in docs/reference/api" for path in public_names() if path not in known
    ]
    faults += [f"{path}: has no type in the API reference" for path in untyped()]
    pages = sorted(SITE.rglob("*.html"))
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        faults += [f"{page.relative_to(SITE)}: loads {address}" for address in loads.found]
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{len(pages)} pages; {len(list(public_names()))} public names; {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
