"""The page of rft report in a real browser logs no errors, sends no requests, and fits the screen
of a phone.
"""

from pathlib import Path

import pytest

from bench.report import write_run
from rft_cli.local.reported import of_folder
from rft_cli.render.html import as_html
from tests.browser.chromium import Visit, visit

pytestmark = pytest.mark.browser
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "arithmetic"
    write_run(folder, 200, "arithmetic")
    path = folder / "report.html"
    path.write_text(as_html(of_folder(folder)), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["light", "dark"])
def visits(page: Path, request: pytest.FixtureRequest) -> list[Visit]:
    return visit(page.as_uri(), (PHONE, DESKTOP), dark=request.param == "dark")


def test_the_page_is_quiet_and_asks_no_server(page: Path, visits: list[Visit]) -> None:
    for each in visits:
        assert each.messages == []
        assert {address for address in each.requests if not address.startswith("data:")} == {page.as_uri()}


def test_hostile_rollouts_stay_texts(visits: list[Visit]) -> None:
    for each in visits:
        assert each.title == "arithmetic"
        assert not {"script", "img"} & set(each.elements)
        assert "<script>document.title = 'hacked'</script>" in each.text


def test_the_page_fits_a_phone_and_a_desktop(visits: list[Visit]) -> None:
    assert [each.scroll_width for each in visits] == [PHONE, DESKTOP]
    assert all(0 < each.tallest_tick < 25 for each in visits), "each number is on one line"
