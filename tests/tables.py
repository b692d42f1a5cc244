"""Tables into which tests write. The summary of the test run prints the tables."""

from dataclasses import dataclass, field

import pytest

TABLES = pytest.StashKey[dict[str, "Table"]]()


@dataclass
class Table:
    """A table with a title, names of columns, and rows of texts."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the lines of the table as Markdown."""
        head = [f"| {' | '.join(self.columns)} |", f"|{'---|' * len(self.columns)}"]
        return head + [f"| {' | '.join(row)} |" for row in self.rows]


def table(config: pytest.Config, title: str, *columns: str) -> Table:
    """Return the table with this title. The first call creates it."""
    return config.stash.setdefault(TABLES, {}).setdefault(title, Table(title, columns))
