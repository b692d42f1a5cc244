"""Draws line charts as text. Pure functions: points in, text out."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

Point = tuple[float, float]

# The bit of each dot of a braille character. The first index is the dot's row from the top, then its column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800


class _Grid(NamedTuple):
    """The number of dots in one character of a chart, horizontally and vertically.

    It is 2 × 4 for braille characters, and 1 × 1 for ASCII characters.
    """

    across: int
    down: int


def line_chart(
    points: Sequence[Point],
    *,
    width: int = 64,
    height: int = 12,
    x_label: str = "step",
    y_label: str = "reward",
    ascii_only: bool = False,
) -> str:
    """Return a chart with axes as a text of several lines. Lines join the points, in the order of their x.

    Points that are not finite are left out. If no point is left, return a sentence such as "no reward yet".

    - ``width``, ``height``: the size of the chart without its axes, in characters
    - ``x_label``, ``y_label``: the names of the axes
    - ``ascii_only``: whether to use no braille characters, for terminals without them
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return f"no {y_label} yet"
    grid = _Grid(1, 1) if ascii_only else _Grid(2, 4)
    low_x, high_x = min(x for x, _ in finite), max(x for x, _ in finite)
    low_y, high_y = _widened(min(y for _, y in finite), max(y for _, y in finite))
    columns, rows = width * grid.across, height * grid.down

    def place(point: Point) -> tuple[int, int]:
        share_x = (point[0] - low_x) / (high_x - low_x) if high_x > low_x else 0.5
        share_y = (point[1] - low_y) / (high_y - low_y)
        return round(share_x * (columns - 1)), round((1 - share_y) * (rows - 1))

    placed = [place(point) for point in sorted(finite)]
    dots = set(placed)
    for start, end in itertools.pairwise(placed):
        dots |= _segment(start, end)
    lines = _cells(dots, width, height, grid)
    return "\n".join(_with_axes(lines, (low_x, high_x), (low_y, high_y), x_label, y_label, ascii_only))


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return the two ends of an axis: ``low`` and ``high``, or a range around them if they are equal."""
    if high > low:
        return low, high
    margin = abs(low) * 0.1 or 0.1
    return low - margin, high + margin


def _segment(start: tuple[int, int], end: tuple[int, int]) -> set[tuple[int, int]]:
    """Return all dots of the straight line from ``start`` to ``end``, both included.

    A dot is a pair of its column and its row.
    """
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return {
        (
            round(start[0] + (end[0] - start[0]) * i / steps),
            round(start[1] + (end[1] - start[1]) * i / steps),
        )
        for i in range(steps + 1)
    }


def _cells(dots: set[tuple[int, int]], width: int, height: int, grid: _Grid) -> list[str]:
    if grid == (1, 1):
        return ["".join("*" if (x, y) in dots else " " for x in range(width)) for y in range(height)]
    cells = [[0] * width for _ in range(height)]
    for x, y in dots:
        cells[y // grid.down][x // grid.across] |= _DOTS[y % grid.down][x % grid.across]
    return ["".join(chr(_BRAILLE + bits) if bits else " " for bits in row) for row in cells]


def _with_axes(
    lines: list[str],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    y_label: str,
    ascii_only: bool,
) -> list[str]:
    vertical, corner, horizontal = ("|", "+", "-") if ascii_only else ("┤", "└", "─")
    low, high = y_range
    last = len(lines) - 1
    ticks = {0: high, last // 2: high - (high - low) * (last // 2) / max(last, 1), last: low}
    labels = {row: f"{value:.3f}" for row, value in ticks.items()}
    margin = max(map(len, labels.values()))
    width = len(lines[0])
    body = [f"{labels.get(row, ''):>{margin}} {vertical}{line}".rstrip() for row, line in enumerate(lines)]
    left, right = f"{x_range[0]:g}", f"{x_range[1]:g}"
    middle = x_label.center(max(width - len(left) - len(right), len(x_label)))
    return [
        y_label,
        *body,
        f"{'':>{margin}} {corner}{horizontal * width}",
        f"{'':>{margin}}  {left}{middle}{right if right != left else ''}".rstrip(),
    ]
