"""Renders ``docs/pictures/flow.toml`` as ``docs/pictures/flow.svg``, or checks that the SVG is up to date.

    python scripts/picture.py [--check]

Exits with 1 in these cases:

- with ``--check``, the committed picture is not up to date;
- a text in the source is too long for its box;
- a file that the source names does not exist;
- an arrow would cross a box.

Lengths are in pixels of the picture.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "docs/pictures/flow.toml"
PICTURE = "docs/pictures/flow.svg"

MARGIN = 16
LABEL = 120
"""Width in pixels of the picture's left column, which has the names of the bands (rows of boxes)."""
BOX, GAP, HEIGHT = 156, 24, 84
"""In pixels: the width of a box in one column, the width of the gap between boxes, the height of a box."""
PADDING, BETWEEN, BACK = 14, 38, 34
"""Heights in pixels of empty space: above and below boxes, between bands, below boxes for back arrows."""
INSET, LINE = 11, 17
CURVE = 150
WIDTHS = {"name": 15 * 0.58, "line": 13 * 0.54, "file": 12 * 0.605}
"""Average width of a character in pixels for each class of text, in common fonts, rounded up."""

STYLE = """\
text { font-family: -apple-system, "Segoe UI", "Helvetica Neue", Helvetica, Arial, sans-serif; fill: #1f2328 }
.ground { fill: #ffffff; stroke: #d0d7de }
.band { fill: #f3f5f8 }
.box { fill: #ffffff; stroke-width: 1.5 }
.server { stroke: #0969da } .operator { stroke: #8250df } .pod { stroke: #1a7f37 }
.name { font-size: 15px; font-weight: 600 }
.line { font-size: 13px }
.file { font-size: 12px; font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace }
.file, .quiet { fill: #59636e }
.arrow { fill: none; stroke: #59636e; stroke-width: 1.5; marker-end: url(#head) }
.head { fill: #59636e }
.axis { fill: none; stroke: #8c959f }
.curve { fill: none; stroke: #0969da; stroke-width: 2; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .ground { fill: #0d1117; stroke: #3d444d }
  .band { fill: #1b222c }
  .box { fill: #0d1117 }
  .server { stroke: #4493f8 } .operator { stroke: #ab7df8 } .pod { stroke: #3fb950 }
  .file, .quiet { fill: #9198a1 }
  .arrow { stroke: #9198a1 }
  .head { fill: #9198a1 }
  .axis { stroke: #656c76 }
  .curve { stroke: #4493f8 }
}"""


class BadPicture(ValueError):
    """The picture's source file cannot be drawn well. The message says what to change."""


@dataclass(frozen=True)
class Area:
    """A rectangle of the picture, in pixels."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """X coordinate of the rectangle's right edge, in pixels."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Y coordinate of the rectangle's lower edge, in pixels."""
        return self.top + self.height

    @property
    def middle(self) -> float:
        """Y coordinate of the rectangle's middle, in pixels."""
        return self.top + self.height / 2

    def meets(self, start: tuple[float, float], end: tuple[float, float]) -> bool:
        """Return whether a horizontal or vertical line from ``start`` to ``end`` crosses the rectangle."""
        (left, right), (top, bottom) = sorted((start[0], end[0])), sorted((start[1], end[1]))
        return left < self.right and right > self.left and top < self.bottom and bottom > self.top


class Picture:
    """The content of the picture's source file, and the positions of bands and boxes."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        """Calculate the positions of all bands and boxes.

        Raises:
            BadPicture: an arrow cannot be drawn.
        """
        self.source = source
        self.columns = int(source["columns"])
        self.bands: dict[str, Area] = {}
        self.boxes: dict[str, Area] = {}
        band_of = {box["id"]: box["band"] for box in source["boxes"]}
        turning = {band_of[arrow["from"]] for arrow in source["arrows"] if arrow.get("back")}
        top: float = MARGIN
        width = LABEL + self.columns * (BOX + GAP) - GAP + PADDING
        for band in source["bands"]:
            height = HEIGHT + 2 * PADDING + (BACK if band["id"] in turning else 0)
            self.bands[band["id"]] = Area(MARGIN, top, width, height)
            top += height + BETWEEN
        self.width, self.height = width + 2 * MARGIN, top - BETWEEN + MARGIN
        for box in source["boxes"]:
            self.boxes[box["id"]] = self._area(box)

    def _area(self, box: Mapping[str, Any]) -> Area:
        first, span = box["column"] - 1, box.get("span", 1)
        left = MARGIN + LABEL + first * (BOX + GAP)
        return Area(left, self.bands[box["band"]].top + PADDING, span * (BOX + GAP) - GAP, HEIGHT)

    def path(self, arrow: Mapping[str, Any]) -> list[tuple[float, float]]:
        """Return the points of an arrow's line.

        If the arrow has ``back`` set to true in the source, its line goes below the boxes. Otherwise the line
        is straight.

        Raises:
            BadPicture: if a straight line is not possible between the two boxes.
        """
        start = self.boxes[arrow["from"]]
        if arrow.get("back"):
            end, below = self.boxes[arrow["to"]], start.bottom + BACK - 8
            first, last = start.left + start.width / 2, end.left + end.width / 2
            return [(first, start.bottom), (first, below), (last, below), (last, end.bottom + 4)]
        if arrow["to"] in self.bands:
            x = start.left + start.width / 2
            return [(x, start.bottom), (x, self.bands[arrow["to"]].top - 4)]
        end = self.boxes[arrow["to"]]
        if start.top == end.top:
            right = start.left < end.left
            edges = (start.right, end.left - 4) if right else (start.left, end.right + 4)
            return [(edges[0], start.middle), (edges[1], start.middle)]
        narrow = min(start, end, key=lambda area: area.width)
        x = narrow.left + narrow.width / 2
        if not (start.left < x < start.right and end.left < x < end.right):
            raise BadPicture(f"the arrow from {arrow['from']} to {arrow['to']} would not be straight")
        down = start.top < end.top
        return [(x, start.bottom if down else start.top), (x, end.top - 4 if down else end.bottom + 4)]

    def check(self) -> None:
        """Raise BadPicture for a text that is too long, a missing file, or an arrow through a box."""
        codes = {band["id"]: band["code"] for band in self.source["bands"]}
        for band in self.source["bands"]:
            for kind, text in [("name", band["name"]), *(("line", line) for line in band["lines"])]:
                _fits(kind, text, LABEL - 2 * INSET, band["id"])
        for box in self.source["boxes"]:
            room = self.boxes[box["id"]].width - 2 * INSET - (CURVE if "curve" in box else 0)
            for kind, text in _texts(box):
                _fits(kind, text, room, box["id"])
            file = box.get("file")
            if file is not None and not any((ROOT / code / file).exists() for code in codes[box["band"]]):
                raise BadPicture(
                    f"{box['id']}: the file {file} does not exist in {' or '.join(codes[box['band']])}"
                )
        for arrow in self.source["arrows"]:
            corners = self.path(arrow)
            ends = (arrow["from"], arrow["to"])
            for name, area in self.boxes.items():
                crossed = any(area.meets(*pair) for pair in pairwise(corners))
                if name not in ends and crossed:
                    raise BadPicture(f"the arrow from {ends[0]} to {ends[1]} crosses {name}")

    def svg(self) -> str:
        """Return the picture as SVG. Raises BadPicture if it cannot be drawn well."""
        self.check()
        title = escape(self.source["title"])
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}"'
            f' width="{self.width:g}" height="{self.height:g}" role="img" aria-labelledby="title">'
        )
        marker = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" markerHeight="8"'
            ' markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0 8 4 0 8Z"/>'
            "</marker></defs>"
        )
        ground = _rectangle(Area(0.5, 0.5, self.width - 1, self.height - 1), "ground", 8)
        note = f"<!-- Rendered by scripts/picture.py from {SOURCE}; do not edit. -->"
        lines = [
            head,
            note,
            f'<title id="title">{title}</title>',
            f"<style>\n{STYLE}\n</style>",
            marker,
            ground,
        ]
        for band in self.source["bands"]:
            lines += self._band(band)
        for arrow in self.source["arrows"]:
            lines += self._arrow(arrow)
        for box in self.source["boxes"]:
            lines += self._box(box)
        return "\n".join([*lines, "</svg>", ""])

    def _band(self, band: Mapping[str, Any]) -> Iterator[str]:
        area = self.bands[band["id"]]
        yield _rectangle(area, "band", 8)
        texts = [("name", band["name"]), *(("line quiet", line) for line in band["lines"])]
        yield from _column(texts, area.left + INSET, area.top + PADDING + 15)

    def _box(self, box: Mapping[str, Any]) -> Iterator[str]:
        area = self.boxes[box["id"]]
        if not box.get("plain"):
            yield _rectangle(area, f"box {box['band']}", 6)
        texts = [(f"{kind} quiet" if box.get("plain") else kind, text) for kind, text in _texts(box)]
        unused = HEIGHT - LINE * len(texts)
        yield from _column(texts, area.left + INSET, area.top + unused / 2 + 13)
        if "curve" in box:
            yield from _curve(box["curve"], area)

    def _arrow(self, arrow: Mapping[str, Any]) -> Iterator[str]:
        corners = self.path(arrow)
        yield f'<path class="arrow" d="M{" L".join(f"{x:g} {y:g}" for x, y in corners)}"/>'
        if "label" not in arrow:
            return
        label = escape(arrow["label"])
        if arrow.get("back"):
            x, y = (corners[1][0] + corners[2][0]) / 2, corners[1][1] - 6
            yield f'<text class="line quiet" text-anchor="middle" x="{x:g}" y="{y:g}">{label}</text>'
            return
        # The label is in the space between two bands, beside the arrow.
        x, lower = corners[0][0] + 9, max(corners[0][1], corners[-1][1])
        y = max(area.bottom for area in self.bands.values() if area.bottom < lower) + BETWEEN / 2 + 4
        yield f'<text class="line quiet" x="{x:g}" y="{y:g}">{label}</text>'


def _texts(box: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of text in a box, each with its CSS class."""
    named = [(kind, box[kind]) for kind in ("name", "file") if kind in box]
    return [*named[:1], *(("line", line) for line in box["lines"]), *named[1:]]


def _fits(kind: str, text: str, room: float, where: str) -> None:
    if WIDTHS[kind] * len(text) > room:
        raise BadPicture(f"{where}: {text!r} is too long: at most {int(room / WIDTHS[kind])} characters fit")


def _column(texts: Sequence[tuple[str, str]], x: float, y: float) -> Iterator[str]:
    for number, (kind, text) in enumerate(texts):
        yield f'<text class="{kind}" x="{x:g}" y="{y + LINE * number:g}">{escape(text)}</text>'


def _rectangle(area: Area, kind: str, radius: int) -> str:
    return (
        f'<rect class="{kind}" x="{area.left:g}" y="{area.top:g}" width="{area.width:g}"'
        f' height="{area.height:g}" rx="{radius}"/>'
    )


def _curve(points: Sequence[float], area: Area) -> Iterator[str]:
    """Yield the axes and a reward curve, in the right part of a box. ``points`` are rewards from 0 to 1."""
    left, right, top, bottom = area.right - CURVE, area.right - INSET, area.top + 11, area.bottom - 11
    yield f'<path class="axis" d="M{left:g} {top:g} V{bottom:g} H{right:g}"/>'
    places = (
        f"{left + 4 + (right - left - 8) * number / (len(points) - 1):g},{bottom - (bottom - top) * value:g}"
        for number, value in enumerate(points)
    )
    yield f'<polyline class="curve" points="{" ".join(places)}"/>'


def main(arguments: list[str] | None = None) -> int:
    """Write or check the picture. Return 1 if it cannot be drawn, or if ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(prog="python scripts/picture.py", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the picture differs"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="root of the repository")
    options = parser.parse_args(arguments)
    try:
        wanted = Picture(tomllib.loads((options.root / SOURCE).read_text(encoding="utf-8"))).svg()
    except BadPicture as error:
        print(f"{SOURCE}: {error}", file=sys.stderr)
        return 1
    path = options.root / PICTURE
    if options.check:
        same = path.exists() and path.read_text(encoding="utf-8") == wanted
        if not same:
            print(f"{PICTURE} is out of date; run: make generate", file=sys.stderr)
        return 0 if same else 1
    path.write_text(wanted, encoding="utf-8")
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
