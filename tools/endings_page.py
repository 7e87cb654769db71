"""Write the columns of endwell in docs/explanation/endings.md from the table that the tests check.

`make docs` runs it; a test fails if the column is out of date.
"""

from __future__ import annotations

from pathlib import Path

from tests.contract.endings.truth import (
    CLIENT_COLUMN,
    CLIENT_TRANSPORT_COLUMN,
    SERVER_COLUMN,
    SERVER_TRANSPORT_COLUMN,
)

__all__ = ["PAGE", "filled"]

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "endings.md"

#: The second column and the third by the first cell of the table's head: endwell, and endwell over a transport.
COLUMNS = {
    "at a server": (SERVER_COLUMN, SERVER_TRANSPORT_COLUMN),
    "at a client": (CLIENT_COLUMN, CLIENT_TRANSPORT_COLUMN),
}


def filled(text: str) -> str:
    """Return ``text`` with the columns of endwell filled in.

    Raises KeyError for a row that the tests do not have, and ValueError for a missing row.
    """
    lines = text.splitlines(keepends=True)
    missing = {table: set(columns[0]) for table, columns in COLUMNS.items()}
    table = ""
    for number, line in enumerate(lines):
        cells = line.split(" | ")
        title = cells[0].removeprefix("| ")
        if title in COLUMNS:
            table = title
        elif not line.startswith("|"):
            table = ""
        elif table and title != "---":
            cells[1:3] = [column[title] for column in COLUMNS[table]]
            missing[table].discard(title)
            lines[number] = " | ".join(cells)
    if any(missing.values()):
        raise ValueError(f"rows are missing: {missing}")
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
