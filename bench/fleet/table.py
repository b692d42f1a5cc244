"""Collects the results and prints them as a Markdown table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bench.scale.audit import standing
from bench.scale.process import percentile


@dataclass
class Figures:
    """The results. Each result is printed when it is measured, and all are printed as a table at the end."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, value: str) -> None:
        """Add a row."""
        self.rows.append((what, value))
        print(f"  {what}: {value}", flush=True)

    def seconds(self, what: str, values: Sequence[float]) -> None:
        """Add a row with the median (p50) and the 99th percentile (p99) of ``values``, in seconds."""
        said = f"{percentile(values, 50):.2f} s, {percentile(values, 99):.2f} s" if values else "none seen"
        self.add(f"{what}, p50 and p99", said)

    def requests(self, what: str, asked: Counter[str], by: float) -> None:
        """Add a row with the number of requests, divided by the number ``by``.

        ``by`` counts jobs, reports or minutes. The 12 most frequent kinds of requests are also printed.
        Watches and requests for the Lease are not counted.
        """
        busy = asked - standing(asked)
        self.add(what, f"{busy.total() / by:.1f}")
        for request, number in busy.most_common(12):
            print(f"      {request}: {number / by:.2f}", flush=True)

    def table(self) -> str:
        """Return the table."""
        lines = ["| | measured |", "|---|--:|", *(f"| {what} | {value} |" for what, value in self.rows)]
        return "\n".join(lines)


def today() -> str:
    """Return today's date in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")
