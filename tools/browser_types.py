"""Write endwell.d.ts, the TypeScript declarations of endwell.js, from the types in its comments.

`make types` runs it; a test of tests/browser runs it with --check, which writes nothing and
fails if the file is out of date. It needs the TypeScript that `make test-browser` installs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULE = ROOT / "src" / "endwell" / "browser" / "endwell.js"
DECLARATIONS = MODULE.with_suffix(".d.ts")

HEAD = "// Made by tools/browser_types.py from the comments of endwell.js: change those, then run `make types`.\n"
COMMENT = re.compile(r"^/\*\*(?:(?!\*/).)*?@typedef .*?\*/\n", re.MULTILINE | re.DOTALL)
TYPEDEF = re.compile(r"@typedef \{.*\} (\w+) ?(.*)")
CAST = re.compile(r"(?<=extends )(?:/\*\*.*?\*/ )+")


def declarations() -> str:
    """Return the declarations that TypeScript derives from the comments, each with its comment."""
    project = ROOT / "tools" / "browser"
    with tempfile.TemporaryDirectory() as folder:
        command: list[str | Path] = [
            project / "node_modules/.bin/tsc",
            "--project",
            project,
            "--noEmit",
            "false",
        ]
        command += ["--declaration", "--emitDeclarationOnly", "--rootDir", MODULE.parent, "--outDir", folder]
        subprocess.run(command, check=True)  # noqa: S603  the command is made of constants
        text = (Path(folder) / DECLARATIONS.name).read_text(encoding="utf-8")
    said = {}
    for comment in COMMENT.findall(text):
        *before, typedef = [
            line.strip(" */") for line in comment.partition("@property")[0].splitlines() if line.strip(" */")
        ]
        found = TYPEDEF.search(typedef)
        if found is None:
            raise ValueError(f"a typedef is not the last line of its comment: {comment}")
        said[found[1]] = " ".join([*before, found[2]]).strip()
    text = CAST.sub("", COMMENT.sub("", text))
    for name, words in said.items():
        if words:
            text = text.replace(f"export type {name} =", f"/** {words} */\nexport type {name} =")
    return HEAD + text


def main() -> int:
    """Write the file, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is out of date")
    check = parser.parse_args().check
    new = declarations()
    stale = not DECLARATIONS.exists() or DECLARATIONS.read_text(encoding="utf-8") != new
    if stale:
        print("out of date, run `make types`:" if check else "written:", DECLARATIONS.name)
        if not check:
            DECLARATIONS.write_text(new, encoding="utf-8")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
