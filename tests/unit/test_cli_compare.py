"""rft compare shows runs side by side. It reads them from folders or from jobs in the cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib.backends.backend_agg  # noqa: F401 - imported here, outside of the tests' time
import pytest
from typer.testing import CliRunner, Result

from bench.report import write_run
from rft_advice.baseline import ANNOTATION
from rft_api.validation import parse
from rft_cli.local.reported import ReportedRun, of_folder
from rft_cli.main import app
from rft_cli.render.comparison import Comparison, compare
from rft_run.evaluation import EvaluationRecord
from rft_run.folder import RunFolder
from tests.api_server import Server, job, served
from tests.manifests import manifest


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders of two runs with different LoRA ranks. The second run scores 0.1 less on held-out
    rows.
    """
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / "first", folder / "second"]
    for path in paths:
        write_run(path, 20, path.name)
    second = RunFolder(paths[1])
    config = json.loads(second.config.read_text())
    config["spec"]["training"]["loraRank"] = 16
    second.config.write_text(json.dumps(config))
    evaluation = json.loads(RunFolder(paths[0]).evaluation_of(20).read_text())
    evaluation["reward"] = [reward - 0.1 for reward in evaluation["reward"]]
    second.evaluation_of(20).write_text(json.dumps(evaluation))
    return paths


def test_two_folders_are_compared_in_every_part(folders: list[Path]) -> None:
    text = command(*folders).stdout
    assert text.startswith("# first and second\n")
    assert "| spec.training.loraRank | 8 | 16 |" in text
    assert "| first | Succeeded | 20/20 |" in text
    assert "| second | 32 |" in text
    assert "| -0.100 | -0.100 to -0.100 |" in text
    assert "| first | 3m10s | 0.05 | 82,000 | 74,000 | - |" in text


def test_the_page_and_the_picture_have_both_curves(folders: list[Path], tmp_path: Path) -> None:
    page, picture = tmp_path / "compare.html", tmp_path / "curves.png"
    result = command(*folders, "--output", page, "--png", picture)
    assert result.exit_code == 0, result.output
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert page.read_text().count('<path class="line ') == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_runs_of_one_name_are_told_apart_by_their_paths(folders: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_run(other, 20, "first")
    text = command(folders[0], other).stdout
    assert f"{folders[0]} and {other}" in text.splitlines()[0]
    assert "Every parameter has the same value." in text
    assert "the same run is named twice" in command(other, other).stderr


def run(name: str, rewards: dict[str, float], **spec: object) -> ReportedRun:
    rows = list(rewards)
    last = EvaluationRecord(step=1, lines=list(range(len(rows))), reward=list(rewards.values()), rows=rows)
    return of_nothing(name, last, **spec)


def of_nothing(name: str, last: EvaluationRecord | None, **spec: object) -> ReportedRun:
    from rft_api.status import RFTJobStatus

    return ReportedRun(name, parse(manifest(**spec)).spec, RFTJobStatus(), base=last)


def paired(found: Comparison) -> tuple[list[str], str]:
    table = next(table for table in found.tables if table.title == "The same held-out rows")
    return [row[1] for row in table.rows], table.note


def test_rows_are_matched_by_their_content() -> None:
    first = run("a", {"x": 0.0, "y": 0.5, "z": 1.0, "only a": 1.0})
    second = run("b", {"z": 0.0, "only b": 0.0, "y": 0.5, "x": 1.0})
    assert paired(compare({"a": first, "b": second})) == (
        ["3"],
        "b: the interval includes 0, so these rows show no clear difference from a.",
    )


def test_it_is_said_why_rows_cannot_be_compared() -> None:
    first = run("a", {"x": 0.0, "y": 0.5})
    undigested = of_nothing("c", EvaluationRecord(step=1, lines=[1, 2], reward=[0.0, 1.0]))
    others = {"b": run("b", {"v": 0.0, "w": 1.0}), "c": undigested, "d": of_nothing("d", None)}
    assert paired(compare({"a": first, **others})) == (
        [],
        "b: the two runs have fewer than two held-out rows in common."
        " c: the evaluation of c does not say which rows it used."
        " d: d has no held-out evaluation on this machine; name the folder of a run with one.",
    )


def test_other_graders_are_named() -> None:
    graders = [{"name": "right", "numeric": {}, "weight": 2}]
    found = compare(
        {"a": run("a", {"x": 0.0, "y": 0.5}), "b": run("b", {"x": 1.0, "y": 1.0}, graders=graders)}
    )
    assert "b: the graders differ from those of a" in paired(found)[1]


def test_three_runs_have_a_column_each() -> None:
    runs = {
        name: of_nothing(name, None, training={"loraRank": rank})
        for name, rank in (("a", 4), ("b", 8), ("c", 4))
    }
    table = compare(runs).tables[0]
    assert table.heading == ("parameter", "a", "b", "c")
    assert ("spec.training.loraRank", "4", "8", "4") in table.rows


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(tmp_path, monkeypatch) as server:
        yield server


def test_a_job_alone_is_compared_with_its_baseline(server: Server) -> None:
    first, second = job("first"), job("second")
    for each in (first, second):
        each["spec"] = manifest()["spec"]
    second["metadata"]["annotations"] = {ANNOTATION: "first"}
    server.jobs = [first, second]
    text = command("second").stdout
    assert text.startswith("# first and second\n")
    assert "second: first has no held-out evaluation on this machine" in text


def test_one_run_without_a_baseline_asks_for_a_second(server: Server, folders: list[Path]) -> None:
    server.jobs = [job("first")]
    for source, said in (("first", "no annotation rft.dev/baseline"), (folders[0], "is only one run")):
        result = command(source)
        assert result.exit_code == 2
        assert said in result.stderr


def test_the_page_shows_hostile_names_as_texts(folders: list[Path]) -> None:
    from rft_cli.render.html import comparison_as_html

    found = compare({"<script>alert(1)</script>": of_folder(folders[0]), "b": of_folder(folders[1])})
    assert "<script" not in comparison_as_html(found)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in comparison_as_html(found)
