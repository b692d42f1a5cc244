"""The committed picture of the dashboard has the panels of the chart. Legends, units and gaps are right."""

import math
import re
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from rft_codegen.monitoring import PANELS
from tests.monitoring.picture import (
    DARK,
    SCALES,
    STEP_SECONDS,
    DrawnPanel,
    PanelLine,
    Place,
    label_of,
    scale_of,
    svg,
    without_gaps,
)

PICTURE = Path(__file__).parents[2] / "docs/pictures/dashboard.svg"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
NOON = 1_795_694_400.0


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in xml.fromstring(picture).iter() if element.tag.endswith("}text")]


def test_the_committed_picture_has_each_panel_with_its_query() -> None:
    picture = PICTURE.read_text(encoding="utf-8")
    (described,) = xml.fromstring(picture).iter(DESCRIPTION)
    assert (described.text or "").splitlines() == [f"{panel.title}: {panel.expr}" for panel in PANELS]
    assert {panel.title for panel in PANELS} <= set(texts(picture))


def test_the_committed_picture_is_small_and_has_dark_colours() -> None:
    picture = PICTURE.read_text(encoding="utf-8")
    assert len(picture.encode()) < 200_000
    assert "prefers-color-scheme:dark" in picture


def test_the_unit_of_each_panel_is_known() -> None:
    assert {panel.unit for panel in PANELS} <= SCALES.keys()


@pytest.mark.parametrize(
    ("form", "labels", "shown"),
    [
        ("{{phase}} {{ reason }}", {"phase": "Failed", "reason": "DataError"}, "Failed DataError"),
        ("{{name}}", {"phase": "Failed"}, "{{name}}"),
        ("", {"__name__": "rft_job_step", "name": "a"}, 'rft_job_step{name="a"}'),
        ("", {}, "sum(rft_lease_held)"),
    ],
)
def test_a_legend_is_made_of_its_format_or_of_the_labels_or_of_the_query(
    form: str, labels: dict[str, str], shown: str
) -> None:
    assert label_of(form, labels, "sum(rft_lease_held)") == shown


@pytest.mark.parametrize(
    ("unit", "highest", "scale"),
    [
        ("s", 0.2, (0.001, " ms")),
        ("s", 90.0, (1, " s")),
        ("s", 9000.0, (3600, " h")),
        ("s", 0.0, (0.001, " ms")),
        ("percentunit", 0.9, (0.01, "%")),
        ("reqps", 0.3, (1, " req/s")),
    ],
)
def test_the_unit_of_an_axis_fits_its_highest_value(
    unit: str, highest: float, scale: tuple[float, str]
) -> None:
    assert scale_of(unit, highest) == scale


def test_a_line_is_interrupted_where_points_are_missing() -> None:
    times = [0.0, STEP_SECONDS, 5.0 * STEP_SECONDS]
    points = without_gaps([(time, 1.0) for time in times])
    assert [time for time, value in points if math.isnan(value)] == [2.0 * STEP_SECONDS]
    assert [time for time, value in points if value == 1.0] == times


def test_a_panel_is_drawn_with_title_units_and_legend_in_colours_for_light_and_dark() -> None:
    lines = [PanelLine(f"job <{n}>", [(NOON - 600, 0.1 * n), (NOON, 0.9)]) for n in range(12)]
    panels = [
        DrawnPanel("Reward & more", "percentunit", Place(0, 0, 12, 8), "reward", lines),
        DrawnPanel("Wait", "s", Place(12, 0, 12, 8), "wait", [PanelLine("a", [(NOON, 7200.0)])]),
    ]
    picture = svg("Jobs", "A note.", panels, (NOON - 7200, NOON))
    assert {
        "Jobs",
        "A note.",
        "Reward & more",
        "Wait",
        "100%",
        "2 h",
        "12:00",
        *(line.label for line in lines),
    } <= (set(texts(picture)))
    drawn, _, dark = picture.partition("prefers-color-scheme:dark")
    used = set(re.findall(r"(?:fill|stroke): (#\w+)", drawn))
    assert used <= DARK.keys()
    assert all(f'{colour}"]' in dark for colour in used)
