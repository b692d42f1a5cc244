"""The committed picture in the documentation matches its source. A source that cannot be drawn is refused."""

import copy
import tomllib
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts.picture import SOURCE, BadPicture, Picture, main

ROOT = Path(__file__).parents[2]
Source = dict[str, Any]


@pytest.fixture
def source() -> Source:
    return copy.deepcopy(tomllib.loads((ROOT / SOURCE).read_text(encoding="utf-8")))


def test_the_committed_picture_is_up_to_date() -> None:
    assert main(["--check"]) == 0


def test_a_picture_that_is_out_of_date_fails_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / SOURCE
    source.parent.mkdir(parents=True)
    source.write_text((ROOT / SOURCE).read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert "make generate" in capsys.readouterr().err
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    source.write_text(source.read_text(encoding="utf-8").replace('"Plan"', '"Plans"'), encoding="utf-8")
    assert main(["--check", "--root", str(tmp_path)]) == 1


def test_the_picture_is_valid_xml_with_every_text_of_the_source(source: Source) -> None:
    drawn = {element.text for element in xml.fromstring(Picture(source).svg()).iter() if element.text}
    names = {part["name"] for part in (*source["bands"], *source["boxes"]) if "name" in part}
    labels = {arrow["label"] for arrow in source["arrows"] if "label" in arrow}
    lines = {line for part in (*source["bands"], *source["boxes"]) for line in part["lines"]}
    assert names | labels | lines <= drawn


def long_text(source: Source) -> None:
    source["boxes"][0]["lines"][0] = "more than a box of one column holds"


def missing_file(source: Source) -> None:
    source["boxes"][0]["file"] = "nowhere.py"


def arrow_through_a_box(source: Source) -> None:
    source["arrows"].append({"from": "rollouts", "to": "advantages"})


def slanted_arrow(source: Source) -> None:
    source["arrows"].append({"from": "manifest", "to": "plan"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (long_text, "characters"),
        (missing_file, "the file nowhere.py does not exist"),
        (arrow_through_a_box, "crosses rewards"),
        (slanted_arrow, "not be straight"),
    ],
)
def test_a_source_that_cannot_be_drawn_well_is_refused(
    source: Source, spoil: Callable[[Source], None], said: str
) -> None:
    spoil(source)
    with pytest.raises(BadPicture, match=said):
        Picture(source).svg()
