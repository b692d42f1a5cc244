"""Tables that tests fill while they run; the summary of the run prints them."""

from dataclasses import dataclass, field

import pytest

TABLES = pytest.StashKey[dict[str, "Table"]]()


@dataclass
class Table:
    """Rows of texts below a title."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return it as Markdown."""
        head = [f"| {' | '.join(self.columns)} |", f"|{'---|' * len(self.columns)}"]
        return head + [f"| {' | '.join(row)} |" for row in self.rows]


def table(config: pytest.Config, title: str, *columns: str) -> Table:
    """Return the table of a title, made with its first use."""
    return config.stash.setdefault(TABLES, {}).setdefault(title, Table(title, columns))
