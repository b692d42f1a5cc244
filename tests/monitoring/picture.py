"""Draws the panels of the dashboard as SVG, with what a real Prometheus answers to their queries.

``make`` reads the chart's ``dashboard.json``: the titles, queries, legends, units and places of its panels.
promtool writes the samples of ``Morning`` as a block, and Prometheus answers each query over six hours.
matplotlib draws the lines. This is not Grafana, but the panels are placed and named as Grafana does it.

The same samples and programs make the same file. Lengths are in pixels of the picture at its full size.
"""

import io
import json
import math
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rft_cli.render.svg import round_steps
from tests.monitoring.morning import BEGIN, HOURS, SCRAPE_SECONDS, SHOWN_HOURS, Morning
from tests.monitoring.server import ask, program, prometheus
from tests.waiting import wait_until

DASHBOARD = Path(__file__).parents[2] / "charts/rft-operator/files/dashboard.json"
STEP_SECONDS = 120
"""Seconds between two points of a line."""
WIDTH = 1000
COLUMNS = 24
"""Number of columns of Grafana's grid."""
ROW = 30
"""Height of a row of Grafana's grid."""
HEAD = 56
GAP = 8
LEFT, RIGHT, TOP = 76, 26, 34
"""Space between the border of a panel and its axes: left (for the numbers of the axis), right and above."""
X_TICKS, LEGEND_LINE, BELOW = 24, 16, 10
"""Heights of what is below a panel's axes: the times, one line of the legend, and the space at the bottom."""
CHARACTER, KEY = 6.0, 34
"""Widths in a legend: of an average character, and of the sample of a line's colour with its margins."""
POINTS = 0.75
"""Typographic points per pixel. matplotlib measures texts and lines in points."""
GROUND, CARD, TEXT, DIM, GRID = "#ffffff", "#f6f7f9", "#1b1f24", "#59636e", "#d4d9df"
DARK_LINES = {
    "#0b62c4": "#6db1ff",
    "#b35309": "#f0a35e",
    "#11774a": "#5fcf95",
    "#9a2f8f": "#e08ad6",
    "#b3261e": "#ff8a80",
    "#0f7285": "#62cbdd",
    "#6b5b00": "#d8c24a",
    "#5b4fc7": "#b0a8ff",
    "#7a7f87": "#b9bec5",
}
"""Colours of lines on a light page, each with its colour on a dark page.

They are the colours of the page of ``rft report``, and grey.
"""
LINES = tuple(DARK_LINES)
DARK = {GROUND: "#14171a", CARD: "#1d2125", TEXT: "#e6e9ec", DIM: "#a0a9b2", GRID: "#3a4148", **DARK_LINES}
"""For each colour of a light page, its colour on a dark page."""
SCALES: Mapping[str, Sequence[tuple[float, str]]] = {
    "short": ((1, ""),),
    "percentunit": ((0.01, "%"),),
    "ops": ((1, " ops/s"),),
    "reqps": ((1, " req/s"),),
    "s": ((0.001, " ms"), (1, " s"), (60, " min"), (3600, " h")),
}
"""For each of Grafana's units: the units in which an axis can be labelled.

Each has its size in Grafana's unit and its text, e.g. ``(60, " min")`` for the unit ``s``.
"""


class Place(NamedTuple):
    """A panel's place in Grafana's grid, in columns and rows."""

    x: int
    y: int
    w: int
    h: int


class PanelLine(NamedTuple):
    """A line of a panel. Its points are pairs of the time in seconds since 1970 and the value."""

    label: str
    points: Sequence[tuple[float, float]]


class DrawnPanel(NamedTuple):
    """A panel of the dashboard with the answer to its query."""

    title: str
    unit: str
    place: Place
    query: str
    lines: Sequence[PanelLine]


def make(path: Path) -> None:
    """Draw the dashboard for the invented morning into the file ``path``.

    Raises:
        AssertionError: Prometheus does not answer in time, or a panel's query has no result.
    """
    end = BEGIN.timestamp() + 3600 * HOURS
    span = (end - 3600 * SHOWN_HOURS, end)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = folder / "samples.txt"
        with samples.open("wb") as file:
            file.writelines(Morning().scrapes())
            file.write(b"# EOF\n")
        importing = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run([*importing, samples, folder / "data"], check=True, stdout=subprocess.DEVNULL)
        # A scrape that no longer has a series ends it at once. Imported samples cannot say this, so a series
        # ends here when the next scrape is missing, and not after the usual five minutes.
        ending = f"--query.lookback-delta={SCRAPE_SECONDS + 15}s"
        with prometheus(folder, {}, [ending]) as url:
            build = wait_until("Prometheus answers", lambda: ask(url, "status/buildinfo"))
            dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
            panels = [answered(url, panel, span) for panel in dashboard["panels"]]
    empty = [panel.title for panel in panels if not panel.lines]
    assert not empty, f"no result: {empty}"
    note = (
        f"Invented jobs: the panels' queries, answered by Prometheus {build['version'].partition('+')[0]}"
        " and drawn by python -m tests.monitoring --picture. Not a screenshot of Grafana."
    )
    path.write_text(svg(dashboard["title"], note, panels, span), encoding="utf-8")


def answered(url: str, panel: Mapping[str, Any], span: tuple[float, float]) -> DrawnPanel:
    """Ask the Prometheus at ``url`` for a panel of the dashboard.

    ``span``: begin and end of the time that is asked for, in seconds since 1970.
    """
    times = {"start": f"{span[0]:.0f}", "end": f"{span[1]:.0f}", "step": str(STEP_SECONDS)}
    lines = []
    for target in panel["targets"]:
        data = ask(url, "query_range", query=target["expr"], **times)
        for series in (data or {"result": []})["result"]:
            label = label_of(target["legendFormat"], series["metric"], target["expr"])
            lines.append(PanelLine(label, [(float(x), float(y)) for x, y in series["values"]]))
    unit = panel["fieldConfig"]["defaults"]["unit"]
    query = ", ".join(target["expr"] for target in panel["targets"])
    return DrawnPanel(panel["title"], unit, Place(**panel["gridPos"]), query, lines)


def label_of(form: str, labels: Mapping[str, str], query: str) -> str:
    """Return the text of a line in the legend, as Grafana makes it.

    ``form`` is the legend's format, such as ``{{namespace}}/{{name}}``. If it is empty, the text is the
    name of the series and its labels. If the series has neither, the text is the query.
    """
    if form:
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], found[0]), form)
    inner = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return labels.get("__name__", "") + (f"{{{inner}}}" if inner else "") or query


def scale_of(unit: str, highest: float) -> tuple[float, str]:
    """Choose in which unit to label an axis. Return this unit's size in ``unit``, and its text.

    ``highest`` is the highest value on the axis, in ``unit``, which is a unit of Grafana.

    Raises KeyError for a unit that is not in ``SCALES``.
    """
    fitting = [each for each in SCALES[unit] if 2 * each[0] <= highest]
    return fitting[-1] if fitting else SCALES[unit][0]


def without_gaps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points, with an additional point in each gap. Its value is NaN.

    matplotlib interrupts the line at such a point.
    """
    found: list[tuple[float, float]] = []
    for x, y in points:
        if found and x - found[-1][0] > 1.5 * STEP_SECONDS:
            found.append((found[-1][0] + STEP_SECONDS, math.nan))
        found.append((x, y))
    return found


def svg(title: str, note: str, panels: Sequence[DrawnPanel], span: tuple[float, float]) -> str:
    """Return the picture of the panels as SVG, which follows the reader's choice of light or dark.

    - ``title``, ``note``: two lines of text above the panels.
    - ``span``: begin and end of all time axes, in seconds since 1970.
    """
    # Imported here, because it takes half a second.
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    height = HEAD + ROW * max(panel.place.y + panel.place.h for panel in panels) + GAP
    with mpl.rc_context(
        {
            "svg.fonttype": "none",  # texts stay texts
            "svg.hashsalt": "dashboard",
            "font.family": "DejaVu Sans",
            "font.size": 11 * POINTS,
        }
    ):
        figure = Figure(figsize=(WIDTH * POINTS / 72, height * POINTS / 72), facecolor=GROUND)
        FigureCanvasSVG(figure)
        figure.text(14 / WIDTH, 1 - 24 / height, title, color=TEXT, fontsize=16 * POINTS, weight="bold")
        figure.text(14 / WIDTH, 1 - 44 / height, note, color=DIM)
        for panel in panels:
            _draw(figure, height, panel, span)
        drawn = io.StringIO()
        described = "\n".join(f"{panel.title}: {panel.query}" for panel in panels)
        metadata = {"Title": f"Dashboard {title}", "Description": described, "Date": None}
        figure.savefig(drawn, format="svg", metadata=metadata)
    return _with_style(_rounded(drawn.getvalue()))


def _draw(figure: Any, height: int, panel: DrawnPanel, span: tuple[float, float]) -> None:
    """Draw a panel into a figure of matplotlib, which is ``height`` pixels high."""
    from matplotlib.dates import DateFormatter, HourLocator
    from matplotlib.patches import Rectangle

    left = panel.place.x * (WIDTH - GAP) / COLUMNS + GAP
    top = HEAD + panel.place.y * ROW
    wide, high = panel.place.w * (WIDTH - GAP) / COLUMNS - GAP, panel.place.h * ROW - GAP

    def at(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """Return a rectangle in fractions of the figure: left, bottom, width and height.

        ``x`` and ``y`` are pixels from the panel's upper left corner to that of the rectangle. ``w`` and
        ``h`` are its width and height in pixels.
        """
        return (left + x) / WIDTH, 1 - (top + y + h) / height, w / WIDTH, h / height

    x, y, w, h = at(0, 0, wide, high)
    figure.add_artist(Rectangle((x, y), w, h, facecolor=CARD, edgecolor=GRID, linewidth=0.75, zorder=-1))
    x, y, _, _ = at(12, 21, 0, 0)
    figure.text(x, y, panel.title, color=TEXT, fontsize=12.5 * POINTS, weight="bold")

    longest = max(len(line.label) for line in panel.lines)
    columns = min(len(panel.lines), max(1, int((wide - 24) / (longest * CHARACTER + KEY))))
    legend = math.ceil(len(panel.lines) / columns) * LEGEND_LINE
    axes = figure.add_axes(
        at(LEFT, TOP, wide - LEFT - RIGHT, high - TOP - X_TICKS - legend - BELOW), facecolor="none"
    )
    values = [y for line in panel.lines for _, y in line.points if math.isfinite(y)]
    size, text = scale_of(panel.unit, max(values))
    ticks = round_steps(0.0, max(values) / size)
    for number, line in enumerate(panel.lines):
        points = without_gaps(line.points)
        times = [datetime.fromtimestamp(x, UTC) for x, _ in points]
        colour = LINES[number % len(LINES)]
        look = {
            "color": colour,
            "linewidth": 1.5 * POINTS,
            "linestyle": "--" if number >= len(LINES) else "-",
        }
        axes.plot(times, [y / size for _, y in points], label=line.label, **look)
    axes.set_xlim(*(datetime.fromtimestamp(x, UTC) for x in span))
    axes.set_ylim(ticks[0], ticks[-1] + 0.04 * (ticks[-1] - ticks[0]))
    axes.set_yticks(ticks, [f"{tick:g}{text}" for tick in ticks])
    axes.xaxis.set_major_locator(HourLocator())
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.grid(color=GRID, linewidth=0.6)
    axes.tick_params(length=0, labelcolor=DIM)
    axes.tick_params(axis="x", pad=7 * POINTS)
    axes.spines[:].set_visible(False)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=at(14, high - legend - BELOW + 4, 0, 0)[:2],
        bbox_transform=figure.transFigure,
        ncols=columns,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.2,
        handletextpad=0.6,
        columnspacing=1.4,
        labelspacing=0.3,
        labelcolor=TEXT,
    )


def _rounded(drawn: str) -> str:
    """Cut the numbers in the SVG's paths to one decimal, and join lines. The file becomes half as large."""

    def shorter(found: re.Match[str]) -> str:
        return re.sub(r"\.(\d)\d+", r".\1", " ".join(found[0].split()))

    return re.sub(r'\bd="[^"]*"', shorter, drawn)


def _with_style(drawn: str) -> str:
    """Add a style sheet to the SVG: the font of its texts, and the colours in dark mode.

    The browser uses these colours (``DARK``) if the reader prefers dark pages.
    """
    rules = [
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
        if f"{kind}: {light}" in drawn
    ]
    font = 'text{font-family:system-ui,-apple-system,"Segoe UI","Helvetica Neue",Arial,sans-serif!important}'
    style = f"<style>\n{font}\n@media (prefers-color-scheme:dark){{\n" + "\n".join(rules) + "\n}\n</style>\n"
    head, end, rest = drawn.rpartition("</svg>")
    return f"{head}{style}{end}{rest}"
