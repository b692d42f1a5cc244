"""rft curve and the line charts that it draws in a terminal."""

import json
from pathlib import Path

import matplotlib.backends.backend_agg  # noqa: F401 - imported here, outside of the tests' time
import pytest
from typer.testing import CliRunner

from rft_cli.commands.curve import load_curve
from rft_cli.local.records import steps
from rft_cli.main import app
from rft_cli.render.curve import HeldOutReward, points_of_steps
from rft_cli.render.plot import line_chart
from rft_cli.render.png import write_png
from rft_cli.render.smoothing import DRAWN, centred_mean, smoothed, thinned, window_of
from rft_run.steps import StepRecord

RISING = [(step, step / 10) for step in range(1, 11)]

runner = CliRunner()


def metrics(path: Path) -> Path:
    path.write_text("".join(json.dumps({"step": x, "reward": y, "loss": 0.1}) + "\n" for x, y in RISING))
    return path


def test_a_chart_labels_both_axes_with_the_ranges_of_the_data() -> None:
    lines = line_chart(RISING, width=30, height=6).splitlines()
    assert lines[0] == "reward"
    assert "1.000" in lines[1]
    assert "0.100" in lines[6]
    assert lines[-1].split() == ["1", "step", "10"]


def test_a_rising_curve_runs_from_bottom_left_to_top_right() -> None:
    rows = line_chart(RISING, width=30, height=6, ascii_only=True).splitlines()[1:7]
    columns = [row.partition("|")[2].find("*") for row in rows]
    assert columns == sorted(columns, reverse=True)
    assert columns[-1] == 0
    assert rows[0].endswith("*")


def test_every_line_of_a_chart_keeps_within_its_width() -> None:
    assert max(map(len, line_chart(RISING, width=30, height=6).splitlines())) <= 30 + len("1.000 ┤")


def test_braille_has_eight_dots_a_cell() -> None:
    dense = [(x, y) for x in range(2) for y in range(4)]
    assert "⣿" in line_chart([(float(x), float(y)) for x, y in dense], width=1, height=1)


@pytest.mark.parametrize("points", [[], [(1.0, float("nan"))]])
def test_a_chart_without_points_says_so(points: list[tuple[float, float]]) -> None:
    assert line_chart(points) == "no reward yet"


def test_a_single_point_and_a_flat_curve_are_drawn() -> None:
    assert "⠁" in line_chart([(3, 0.5)]) or any(0x2800 < ord(c) < 0x2900 for c in line_chart([(3, 0.5)]))
    assert "0.500" not in line_chart([(1, 0.5), (2, 0.5)]).splitlines()[1]


def test_the_mean_is_centred() -> None:
    # A mean of earlier points is below a rising line. A mean of the points on both sides is on the line.
    rising: list[tuple[float, float]] = [(x, 2 * x) for x in range(9)]
    assert centred_mean(rising)[2:-2] == rising[2:-2]


def test_the_mean_has_at_least_half_its_window_at_both_ends() -> None:
    assert [y for _, y in centred_mean([(0, 0.0), (1, 3.0), (2, 6.0)])] == [3.0, 3.0, 3.0]
    assert centred_mean([(x, float(x == 0)) for x in range(9)])[0][1] == pytest.approx(1 / 3)


def test_the_band_has_the_lowest_and_the_highest_value_of_the_window() -> None:
    middle = smoothed([(0, 0.2), (1, 0.9), (2, 0.5), (3, 0.1), (4, 0.3)])[2]
    assert (middle.low, middle.high) == (0.1, 0.9)
    assert middle.mean == pytest.approx(0.4)


@pytest.mark.parametrize("count", [0, 1, 2, DRAWN, DRAWN + 1, 10_000])
def test_a_long_curve_is_drawn_with_few_points_from_end_to_end(count: int) -> None:
    line = [(float(step), step / max(count, 1)) for step in range(1, count + 1)]
    assert len(smoothed(line)) == len(thinned(line)) == min(count, DRAWN)
    assert [point.x for point in smoothed(line)][:1] == [x for x, _ in line][:1]
    assert [point.x for point in smoothed(line)][-1:] == [x for x, _ in line][-1:]
    assert window_of(count) % 2 == 1


def test_the_curve_of_a_folder_is_that_of_its_metrics(tmp_path: Path) -> None:
    metrics(tmp_path / "metrics.jsonl")
    folder = runner.invoke(app, ["curve", str(tmp_path)])
    file = runner.invoke(app, ["curve", str(tmp_path / "metrics.jsonl")])
    assert folder.exit_code == file.exit_code == 0
    assert folder.stdout == file.stdout
    assert "reward" in folder.stdout
    assert "step" in folder.stdout


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = metrics(tmp_path / "metrics.jsonl")
    whole = runner.invoke(app, ["curve", str(path)]).stdout
    with path.open("a") as file:
        file.write('{"step": 11, "rew')
    assert runner.invoke(app, ["curve", str(path)]).stdout == whole


def test_a_step_without_a_graded_rollout_has_no_point(tmp_path: Path) -> None:
    path = metrics(tmp_path / "metrics.jsonl")
    before = points_of_steps(steps(path))
    with path.open("a") as file:
        file.write('{"step": 11, "reward": null}\n')
    assert points_of_steps(steps(path)) == before


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "reward": 0.1}\n{"step": 2}\n')
    result = runner.invoke(app, ["curve", str(path)])
    assert result.exit_code == 2
    assert "line 2" in result.stderr


def test_the_curve_of_a_saved_status_is_its_history(tmp_path: Path) -> None:
    path = tmp_path / "status.yaml"
    path.write_text("reward:\n  history:\n  - {step: 1, reward: 0.25}\n  - {step: 2, reward: 0.75}\n")
    result = runner.invoke(app, ["curve", str(path)])
    assert result.exit_code == 0
    assert "0.750" in result.stdout


def test_a_picture_is_written(tmp_path: Path) -> None:
    png = tmp_path / "charts" / "reward.png"
    result = runner.invoke(app, ["curve", str(metrics(tmp_path / "metrics.jsonl")), "--png", str(png)])
    assert result.exit_code == 0
    assert png.read_bytes().startswith(b"\x89PNG")


def test_the_picture_has_the_jobs_name_the_graders_base_and_tuned(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    steps = [StepRecord(step=x, reward=y, graders={"right": y, "a$b": 1 - y}) for x, y in RISING]
    drawn: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
        write_png(steps, tmp_path / "reward.png", "my-job", HeldOutReward(0.25, 0.75))
    axes = drawn[0].axes[0]
    assert axes.get_title() == "my-job"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "each step",
        "right",
        "a$b",
        "reward, centred mean of 5 steps",
        "base on held-out rows: 0.250",
        "tuned on held-out rows: 0.750",
    ]
    assert [list(line.get_ydata()) for line in axes.lines[-2:]] == [[0.25, 0.25], [0.75, 0.75]]  # type: ignore[arg-type]


def test_the_curve_of_a_folder_is_named_after_its_job(tmp_path: Path) -> None:
    metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "status.yaml").write_text("evaluation: {rows: 4, reward: {base: 0.1, tuned: 0.6}}\n")
    found = load_curve(str(tmp_path), None, None)
    assert found.name == tmp_path.name
    assert found.held_out == HeldOutReward(0.1, 0.6)


def test_a_path_that_is_not_there_is_not_taken_for_a_job(tmp_path: Path) -> None:
    result = runner.invoke(app, ["curve", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "no such file or folder" in result.stderr
