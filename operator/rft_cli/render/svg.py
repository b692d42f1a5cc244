"""Computes the coordinates of line charts for an HTML page. A template draws SVG charts from the coordinates.

A page may stretch the drawing of a chart to any width, but not the texts beside the drawing. So coordinates
are in percent of the drawing's width and height.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from rft_cli.render.plot import Point

COLOURS = 8
"""Number of colours of lines in the template. If a chart has more lines, the colours are used again."""


class Series(NamedTuple):
    """The data of a line of a chart, or of dots that no line joins.

    - ``label``: the name of the line in the legend.
    - ``colour``: the number of the line's colour, from 0.
    """

    label: str
    points: Sequence[Point]
    kind: str = "line"
    """``line``, ``faint`` for a thin line in the background, ``level`` for a dashed line, or ``dots``."""
    colour: int = 0


class Band(NamedTuple):
    """The data of a coloured area in a chart, between the curves ``low`` and ``high``.

    The two curves have the same x values, in ascending order.
    """

    label: str
    low: Sequence[Point]
    high: Sequence[Point]
    colour: int = 0


class Tick(NamedTuple):
    """A mark with a text on an axis of a chart.

    - ``at``: the place of the mark, in percent of the chart's width from the left, or of its height from the
      top.
    - ``text``: the text at the mark.
    """

    at: str
    text: str


class Drawn(NamedTuple):
    """A line, some dots or an area of a chart, in the form in which the HTML template draws it.

    - ``path``: the data of an SVG path.
    - ``kind``: a kind of ``Series``, or ``band`` for an area.
    """

    label: str
    path: Markup
    kind: str
    colour: int


class Chart(NamedTuple):
    """A line chart in the form in which the HTML template draws it.

    ``note`` is a text below the chart, or empty.
    """

    title: str
    note: str
    drawn: Sequence[Drawn]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


class _Frame(NamedTuple):
    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        wide = self.right - self.left
        return 100 * (value - self.left) / wide if wide else 50.0

    def y(self, value: float) -> float:
        return 100 * (1 - (value - self.bottom) / (self.top - self.bottom))


def chart(title: str, series: Sequence[Series], bands: Sequence[Band] = (), note: str = "") -> Chart | None:
    """Return a chart with the lines in ``series`` and the areas in ``bands``, or None if no point is finite.

    Points that are not finite are left out. The vertical axis begins and ends at round numbers.
    """
    shown = [line._replace(points=list(_finite(line.points))) for line in series]
    shown = [line for line in shown if line.points]
    points = [point for line in shown for point in line.points]
    points += [point for band in bands for point in (*_finite(band.low), *_finite(band.high))]
    if not points:
        return None
    y_values = round_steps(min(y for _, y in points), max(y for _, y in points))
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    frame = _Frame(left, right, y_values[0], y_values[-1])
    areas = [Drawn(band.label, _area(band, frame), "band", band.colour) for band in bands if band.low]
    lines = [Drawn(line.label, _path(line, frame), line.kind, line.colour % COLOURS) for line in shown]
    marks = {f"{frame.x(x):.1f}": f"{x:,.0f}" for x in (left, round((left + right) / 2), right)}
    return Chart(
        title,
        note,
        [*areas, *lines],
        [Tick(at, text) for at, text in marks.items()],
        [Tick(f"{frame.y(value):.1f}", f"{value:g}") for value in y_values],
    )


def round_steps(low: float, high: float, count: int = 4) -> list[float]:
    """Return about ``count`` + 1 round numbers at equal distances, for the marks of an axis.

    The first number is at most ``low``, and the last one is at least ``high``.
    """
    if high - low <= abs(high) * 1e-9:
        margin = abs(low) * 0.1 or 0.1
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    distance = next(power * step for step in (1, 2, 2.5, 5, 10, 20) if power * step * count >= high - low)
    first, last = math.floor(low / distance + 1e-9), math.ceil(high / distance - 1e-9)
    return [float(f"{index * distance:.12g}") for index in range(first, last + 1)]


def _finite(points: Sequence[Point]) -> Iterator[Point]:
    return (point for point in points if math.isfinite(point[0]) and math.isfinite(point[1]))


def _path(line: Series, frame: _Frame) -> Markup:
    if line.kind == "dots":
        return _marked("".join(f"M{_at(point, frame)}h0" for point in line.points))
    return _marked("M" + "L".join(_at(point, frame) for point in line.points))


def _area(band: Band, frame: _Frame) -> Markup:
    around = [*_finite(band.high), *reversed(list(_finite(band.low)))]
    return _marked("M" + "L".join(_at(point, frame) for point in around) + "Z")


def _at(point: Point, frame: _Frame) -> str:
    return f"{frame.x(point[0]):.2f} {frame.y(point[1]):.2f}"


def _marked(path: str) -> Markup:
    """Return the data of an SVG path as ``Markup``, which the HTML template does not escape again."""
    return Markup("{}").format(path)
