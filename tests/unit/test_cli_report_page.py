"""The HTML page of rft report: what it shows, and that a browser executes no text of the run."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.report import write_run
from rft_api.status import RFTJobStatus
from rft_api.validation import parse
from rft_cli.local.reported import ReportedRun, of_folder
from rft_cli.main import app
from rft_cli.render import sections
from rft_cli.render.html import SHOWN, as_html, shown
from rft_cli.render.page import as_markdown
from rft_cli.render.svg import Band, Series, chart, round_steps
from rft_run.evaluation import EvaluationRecord
from rft_run.steps import StepRecord
from tests.manifests import manifest
from tests.unit.shown_support import PASSWORD


class Parsed(HTMLParser):
    """Parses an HTML page, and keeps its tags, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def headings(self) -> list[str]:
        return [text for text in self.texts if text in HEADINGS]


HEADINGS = [
    "Held-out evaluation",
    "Reward",
    "Graders",
    "Advice",
    "Training",
    "Time by phase",
    "Plan and use",
    "Held-out answers, base and tuned",
    "Rollouts, first and last step",
    "Parameters",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "long"
    write_run(path, 40)
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    path = folder / "page.html"
    result = CliRunner().invoke(app, ["report", str(folder), "--output", str(path)])
    assert result.exit_code == 0, result.output
    return path.read_text()


def test_the_page_has_every_part(page: str) -> None:
    parsed = Parsed(page)
    assert parsed.headings() == HEADINGS
    for text in (
        "centred mean of 5 steps",
        "base, held-out rows",
        "tuned, held-out rows",
        "held-out evaluations",
        "Entropy, nats per token",
        "KL to the reference, nats per token",
        "Length of completions, tokens",
        "+0.790",
        "completions-cut",
        "spec.sampling.maxTokens",
        "GPU-hours",
        "What is 1 + 30?",
        "training.batchSizeTokens",
        "32768",
    ):
        assert any(text in shown for shown in parsed.texts), text


def test_the_page_asks_no_server_and_has_no_script(page: str) -> None:
    parsed = Parsed(page)
    assert not {"script", "img", "iframe", "object", "form", "base"} & set(parsed.tags)
    addresses = [value for name, value in parsed.attributes if name in ("href", "src", "action", "srcset")]
    assert addresses == ["data:,"]
    assert not re.search(r"url\(|@import", "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL)))
    assert "default-src 'none'" in page
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]


def test_hostile_texts_are_shown_as_texts(page: str) -> None:
    texts = Parsed(page).texts
    assert any("<script>document.title = 'hacked'</script>" in text for text in texts)
    assert any("</pre></style></title>{{ 7 * 7 }}{% raw %} &lt; &amp;" in text for text in texts)
    assert any("שלום" in text for text in texts)  # letters of every alphabet stay
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert len(page) < 400_000
    assert re.search(rf"x{{{SHOWN // 2}}}.*more characters\)", page)


def test_a_secret_in_a_rollout_is_not_on_the_page() -> None:
    spec = parse(manifest()).spec
    answers = [EvaluationRecord(step=n, lines=[1], reward=[n], completions=[PASSWORD]) for n in (0, 1)]
    run = ReportedRun("job", spec, status=RFTJobStatus(), base=answers[0], tuned=answers[1])
    for secret in re.findall(r"\S{12,}", PASSWORD):
        assert secret not in as_html(run)


def test_a_run_that_has_just_begun_has_a_page() -> None:
    run = ReportedRun("job", parse(manifest()).spec, status=RFTJobStatus())
    assert Parsed(as_html(run)).headings() == ["Parameters"]
    assert "Pending" in as_html(run)
    assert 'http-equiv="refresh"' not in as_html(run)
    assert '<meta http-equiv="refresh" content="5">' in as_html(run, refresh=5)


def test_the_markdown_has_the_same_tables(folder: Path) -> None:
    text = as_markdown(of_folder(folder))
    assert "| training.batchSizeTokens | 8192 | 32768 | changed |" in text
    assert "| sampling | 3m20s | 53% |" in text
    assert "| other | 16s | 4% |" in text
    assert "| time of a step | 8.7 s | 9.5 s |" in text


def test_the_format_follows_the_name_of_the_file_unless_it_is_given(folder: Path, tmp_path: Path) -> None:
    def first(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["report", str(folder), *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()[0]

    assert first() == "# long"
    assert first("--format", "html") == "<!DOCTYPE html>"
    first("--output", str(tmp_path / "page.txt"), "--format", "html")
    assert (tmp_path / "page.txt").read_text().startswith("<!DOCTYPE html>")
    first("--output", str(tmp_path / "page.md"))
    assert (tmp_path / "page.md").read_text().startswith("# long")


def test_phases_that_overlap_share_the_whole() -> None:
    step = StepRecord(step=1, reward=0.5, step_seconds=4.0, phases={"rollout": 4.0, "update": 4.0})
    found = sections.phases(ReportedRun("job", parse(manifest()).spec, RFTJobStatus(), [step]))
    assert [(each.name, each.share) for each in found if each.seconds] == [("sampling", 0.5), ("update", 0.5)]


def evaluation(step: int, rewards: list[float | None], lines: list[int] | None = None) -> EvaluationRecord:
    rows = lines or list(range(1, len(rewards) + 1))
    return EvaluationRecord(step=step, lines=rows, reward=rewards, completions=[f"{step}.{n}" for n in rows])


def test_the_answers_are_those_that_changed_the_most() -> None:
    base = evaluation(0, [0.0, 0.5, 0.5, 1.0, 0.2, None, 0.9])
    tuned = evaluation(9, [1.0, 0.5, 0.9, 0.0, 0.8, 1.0, 0.4])
    found = sections.answers(base, tuned)
    assert [each.line for each in found] == [1, 5, 3, 4, 7]
    assert found[0] == sections.HeldOutAnswer(1, "0.1", "9.1", 0.0, 1.0)


def test_answers_to_other_rows_are_not_compared() -> None:
    assert sections.answers(evaluation(0, [0.0], [1]), evaluation(9, [1.0], [2])) == []
    assert sections.answers(None, None) == []


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.13, 0.94, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (-3.0, 38.0, [-20.0, 0.0, 20.0, 40.0]),
        (0.00011, 0.00019, [0.0001, 0.00012, 0.00014, 0.00016, 0.00018, 0.0002]),
    ],
)
def test_an_axis_has_round_numbers(low: float, high: float, steps: list[float]) -> None:
    assert round_steps(low, high) == steps


@pytest.mark.parametrize("value", [0.0, 0.5, 3.0, -2.0])
def test_a_constant_curve_lies_within_its_axis(value: float) -> None:
    steps = round_steps(value, value)
    assert steps[0] < value < steps[-1]


def test_a_line_goes_from_corner_to_corner() -> None:
    drawn = chart(
        "t", [Series("a", [(1, 0.0), (3, 1.0)])], [Band("b", [(1, 0.0), (3, 0.0)], [(1, 0.5), (3, 1)])]
    )
    assert drawn is not None
    assert [(line.kind, line.path) for line in drawn.drawn] == [
        ("band", "M0.00 50.00L100.00 0.00L100.00 100.00L0.00 100.00Z"),
        ("line", "M0.00 100.00L100.00 0.00"),
    ]
    assert [tick.text for tick in drawn.x_ticks] == ["1", "2", "3"]


@pytest.mark.parametrize("points", [[], [(1.0, float("nan"))], [(float("inf"), 1.0)]])
def test_a_chart_without_points_is_left_out(points: list[tuple[float, float]]) -> None:
    assert chart("t", [Series("a", points)]) is None


def test_the_characters_of_a_replaced_secret_are_not_counted_as_left_out() -> None:
    assert shown(f"token: {'x' * (SHOWN + 1000)}") == "token: [redacted]"
