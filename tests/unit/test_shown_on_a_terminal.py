"""No text of a manifest, a job, a log or a model can control the terminal of a person who runs rft."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from typer.testing import CliRunner

from rft_api.controls import as_json, one_line, visible, without_colours
from rft_api.dumper import dump
from rft_api.loader import load_documents
from rft_api.status import RFTJobStatus
from rft_cli.main import App, app
from rft_cli.render.console import Terminal
from rft_cli.render.png import write_png
from rft_cli.render.progress import ProgressView
from rft_cli.render.results import print_results
from rft_run.events import FindingEvent
from rft_run.markdown import code, escaped
from rft_run.steps import StepRecord
from tests.api_server import Server, job, pod, served
from tests.manifests import manifest
from tests.unit.shown_support import CLIPBOARD, ESCAPES, OF_ESCAPES, PASSWORD, SECRETS, Sample

Json = dict[str, Any]
EVERY = " ".join(sample.text for sample in ESCAPES)
"""All escape sequences in one text, so that each command runs only once."""
HIDDEN = sorted({part for sample in ESCAPES for part in sample.hidden})
OF_RICH = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""The escape sequences that rich itself writes to a terminal: colours and moves of the cursor."""


def leaked(output: str) -> list[str]:
    return [repr(part) for part in HIDDEN if part in output]


def rft(*arguments: object, **environment: str) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.output, "the command must print something"
    return result.output


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(tmp_path, monkeypatch) as server:
        yield server


def hostile_job(text: str = EVERY, phase: str = "Running") -> Json:
    made = job(phase=phase)
    made["metadata"]["namespace"] = text
    made["metadata"]["annotations"] = {"note": text}
    made["spec"] = manifest()["spec"] | {"model": {"name": text}}
    made["status"] |= {
        "message": text,
        "phase": phase,
        "plan": {"gpus": 1, "device": "cpu", "accelerator": text, "cpu": text, "notes": [text]},
        "recommendations": [{"rule": text, "parameter": text, "message": text}],
        "evaluation": {"rows": 4, "graders": {text: {"base": 0.1}}},
        "usage": {"graderErrors": {text: 3}},
        "output": {"folder": text, "adapter": text},
    }
    return made


def written(folder: Path, body: Json) -> Path:
    """Write a manifest in which YAML escapes stand for control characters. Return its path."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def named(text: str) -> Json:
    return manifest() | {"metadata": {"name": text}}


MANIFESTS: dict[str, Json] = {
    "name": named(EVERY),
    "field": manifest(**{EVERY: 1}),
    "field-in-an-object": manifest(training={EVERY: {EVERY: 1}}),
    "value": manifest(training={"learningRate": EVERY, "loraRank": [EVERY], "seed": {EVERY: EVERY}}),
    "code": manifest(graders=[{"name": "right", "python": {"inline": f"def grade(:\n  {EVERY}"}}]),
    "pattern": manifest(graders=[{"name": "right", "regex": {"pattern": f"({EVERY}"}}]),
    "model": manifest(model={"name": EVERY}),
    "kind": {"apiVersion": "v1", "kind": EVERY, "metadata": {"name": "x"}},
}


@pytest.mark.parametrize("part", MANIFESTS)
@pytest.mark.parametrize(
    "command",
    [
        ("validate",),
        ("plan",),
        ("plan", "-o", "yaml"),
        ("plan", "-o", "json"),
        ("suggest", "--goal", "better-quality"),
    ],
    ids=" ".join,
)
def test_a_strangers_manifest_is_only_shown(part: str, command: tuple[str, ...], tmp_path: Path) -> None:
    assert leaked(rft(command[0], written(tmp_path, MANIFESTS[part]), *command[1:])) == []


def test_a_manifest_that_is_not_yaml_is_only_shown(tmp_path: Path) -> None:
    for sample in ESCAPES:
        path = tmp_path / "job.yaml"
        path.write_text(f"a: {sample.text}\n b: [")
        assert leaked(rft("validate", path)) == []


def test_the_name_of_a_file_is_only_shown(tmp_path: Path) -> None:
    path = tmp_path / "job\x1b]0;x\x07.yaml"
    path.write_text(json.dumps(manifest()))
    assert leaked(rft("validate", path)) == []
    assert leaked(rft("curve", f"none/{EVERY}".replace("\x00", ""))) == []


def test_a_manifest_cannot_forge_a_line_of_the_verdict(tmp_path: Path) -> None:
    forged = "\n/home/me/mine.yaml: RFTJob mine: OK"
    for body in (named(f"x{forged}"), manifest(**{forged: 1}), manifest(training={"loraRank": [forged]})):
        assert "\n/home/me" not in rft("validate", written(tmp_path, body))


def test_a_refusal_of_the_server_is_only_shown(server: Server) -> None:
    server.refusal, server.refusal_status = EVERY, 422
    output = rft("suspend", "arithmetic")
    assert CLIPBOARD in output
    assert leaked(output) == []


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("get",),
    ("get", "arithmetic", "-o", "wide"),
    ("get", "-A", "-o", "wide"),
    ("get", "-o", "yaml"),
    ("get", "-o", "json"),
    ("watch", "arithmetic"),
    ("suspend", "arithmetic"),
    ("report", "arithmetic"),
    ("samples", "arithmetic"),
    ("export", "arithmetic", "-o", "x"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_job_of_another_team_is_only_shown(server: Server, command: tuple[str, ...]) -> None:
    server.jobs = [hostile_job(phase="Failed")]
    assert leaked(rft(*command)) == []


def test_another_phase_is_only_shown(server: Server) -> None:
    server.jobs = [hostile_job(phase=EVERY)]
    assert leaked(rft("get")) == []
    assert leaked(rft("logs", "arithmetic")) == []


@pytest.mark.parametrize("command", COMMANDS[:3] + COMMANDS[5:7], ids=" ".join)
def test_nor_does_it_act_where_rich_draws(server: Server, command: tuple[str, ...]) -> None:
    def drawn(text: str) -> str:
        server.jobs = [hostile_job(text, phase="Failed")]
        return rft(*command, FORCE_COLOR="1", COLUMNS="4096")

    output = drawn(EVERY)
    assert leaked(OF_RICH.sub("", output).replace("\r", "")) == []
    assert output.count("\x1b") == drawn(visible(EVERY)).count("\x1b"), "only rich's own escapes may stay"


def test_a_message_is_not_read_as_markup(server: Server) -> None:
    server.jobs = [hostile_job("[link=https://evil.example]x[/link] [/bold] :boom:")]
    output = rft("get", "-o", "wide", FORCE_COLOR="1")
    assert "[link=https://evil.example]x[/link] [/bold] :boom:" in output


def test_a_message_cannot_forge_a_change_of_the_job(server: Server) -> None:
    server.jobs = [hostile_job("waits\nSucceeded, step 4/4", phase="Failed")]
    assert rft("watch", "arithmetic").splitlines()[-1] == "  Succeeded, step 4/4"


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_machines_get_the_same_texts(server: Server, output: str) -> None:
    server.jobs = [hostile_job()]
    read: Callable[[str], Any] = json.loads if output == "json" else yaml.safe_load
    assert read(rft("get", "arithmetic", "-o", output)) == server.jobs[0]


def test_a_log_is_only_shown(server: Server) -> None:
    server.pods, server.log = [pod("new", "2020-01-02T00:00:00Z")], f"{EVERY}\n50 %\r100 %\r\nend"
    output = rft("logs", "arithmetic")
    assert CLIPBOARD in output
    assert leaked(output) == []
    assert output.endswith("\n50 %\n100 %\nend\n")


def test_colours_and_progress_bars_of_a_log_are_left_out() -> None:
    assert without_colours("\x1b[1;36m(EngineCore)\x1b[0m ready \x1b[38:5:1mx") == "(EngineCore) ready x"
    assert without_colours("\x1b[2J\x1b]0;x\x07") == "\x1b[2J\x1b]0;x\x07"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rollouts").mkdir()
    record = {
        "step": 1, "line": 7, "messages": [{"role": EVERY, "content": EVERY}], "fields": {EVERY: EVERY},
        "completion": EVERY, "reward": 1.0, "graders": {EVERY: 1.0}, "errors": {EVERY: EVERY},
        "printed": {EVERY: EVERY}, "advantage": 0.5, "finishReason": EVERY, "tokens": 2,
    }  # fmt: skip
    data = zstandard.ZstdCompressor().compress((json.dumps(record) + "\n").encode())
    (tmp_path / "rollouts" / "step-000001.jsonl.zst").write_bytes(data)
    return tmp_path


def test_what_a_model_and_its_graders_said_is_only_shown(folder: Path) -> None:
    assert leaked(rft("samples", folder)) == []
    output = rft("samples", folder, "-o", "json")
    assert leaked(output) == []
    assert json.loads(output)[0]["completion"] == EVERY


def terminal() -> tuple[Terminal, io.StringIO]:
    file = io.StringIO()
    return Terminal(file=file, width=200), file


def test_what_a_local_run_says_is_only_shown() -> None:
    console, file = terminal()
    with ProgressView(console) as view:
        view.show(FindingEvent(event="finding", parameter=EVERY, message=EVERY))
    body = hostile_job()["status"]
    fields = ("recommendations", "evaluation", "output")
    print_results(console, RFTJobStatus.model_validate({name: body[name] for name in fields}), Path(EVERY))
    assert file.getvalue()
    assert leaked(file.getvalue()) == []


def test_the_traceback_of_an_unexpected_error_is_only_shown(capsys: pytest.CaptureFixture[str]) -> None:
    broken = App(pretty_exceptions_enable=False)

    @broken.command()
    def fail() -> None:
        raise ValueError(EVERY)

    with pytest.raises(SystemExit) as ended:
        broken([])
    assert ended.value.code == 1
    output = capsys.readouterr().err
    assert "ValueError" in output
    assert leaked(output) == []


def test_the_title_of_a_picture_may_be_anything(tmp_path: Path) -> None:
    write_png(
        [StepRecord(step=1, reward=0.5, graders={EVERY: 0.5})], tmp_path / "curve.png", f"$\\frac{{x$ {EVERY}"
    )
    assert (tmp_path / "curve.png").stat().st_size > 1000


@OF_ESCAPES
def test_a_control_character_is_shown_as_its_code(sample: Sample) -> None:
    shown = visible(sample.text)
    assert not [part for part in sample.hidden if part in shown]
    assert visible(shown) == shown
    assert json.loads(as_json([sample.text])) == [sample.text]
    assert not [part for part in sample.hidden if part in as_json(sample.text)]


def test_letters_of_every_script_and_line_ends_stay() -> None:
    text = "naïve 日本語\u3000한국어 עברית العربية فارسی\u200cها 👩\u200d🔬 e\u0301 \u00a0 a\tb\nc"
    assert visible(text) == text
    assert one_line("a\tb\nc\x07") == r"a\tb\nc\x07"


@OF_ESCAPES
def test_a_written_manifest_has_no_control_characters_and_the_same_values(sample: Sample) -> None:
    for text in (sample.text, f"{sample.text}\nsecond line\n"):
        body = {"kind": "x", "metadata": {"annotations": {"note": text}}, "name": "日本"}
        assert not [part for part in sample.hidden if part in dump(body)]
        assert load_documents(dump(body))[0].body == body


HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"
MARKDOWN: tuple[tuple[str, Callable[[str], bool]], ...] = (
    (HTML, lambda page: re.search(r"(?<!\\)<[a-z/]", page) is None),
    ("[here](https://evil.example)", lambda page: "](https" not in page.replace(r"\]", "")),
    ("![](https://evil.example/x.png)", lambda page: "](https" not in page.replace(r"\]", "")),
    (
        "a\n# Succeeded\n\n- phase: Succeeded",
        lambda page: "\n# Succeeded" not in page and "\n- phase: S" not in page,
    ),
    ("a | zz", lambda page: re.search(r"(?<!\\)\| zz", page) is None),
    ("```\nx", lambda page: "```" not in page),
    ("**Succeeded** _yes_ ~~no~~", lambda page: re.search(r"(?<!\\)\*\*|(?<!\\)~~", page) is None),
    ("# heading", lambda page: "- # heading" not in page),
)


@pytest.mark.parametrize(("text", "holds"), MARKDOWN, ids=[text[:12] for text, _ in MARKDOWN])
def test_a_report_shows_a_text_and_does_not_obey_it(
    server: Server, text: str, holds: Callable[[str], bool]
) -> None:
    made = hostile_job(text)
    made["status"]["output"] = {"folder": "/runs/x", "adapter": "/runs/x/adapter"}
    server.jobs = [made]
    without_code = re.sub(r"(?s)(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", rft("report", "arithmetic"))
    assert without_code.count("# ") > 3
    assert holds(without_code)


def test_a_report_has_no_secrets_and_no_control_characters(server: Server, tmp_path: Path) -> None:
    samples = (*SECRETS, *ESCAPES)
    made = hostile_job()
    made["status"]["plan"]["notes"] = [f"note {sample.name}: {sample.text}" for sample in samples]
    server.jobs = [made]
    page = tmp_path / "page.md"
    rft("report", "arithmetic", "--output", page)
    lines = [line for line in page.read_text().splitlines() if line.startswith("- note ")]
    for sample, line in zip(samples, lines, strict=True):
        assert line.startswith(f"- note {sample.name}: ")
        assert not [part for part in sample.hidden if part in line], sample.name


def test_ordinary_texts_are_not_escaped() -> None:
    for text in (
        "spec.graders[0].weight: 2",
        "reward -0.050 → +0.100",
        "12/~40 (3 < 4)",
        "max_tokens",
        "a-b.c",
    ):
        assert escaped(text) == text
    assert escaped("a*b|c<d>") == r"a\*b\|c\<d>"
    assert escaped("1. a") == r"1\. a"
    assert code("/runs/x") == "`/runs/x`"
    assert code("a`b``") == "``` a`b`` ```"
    assert PASSWORD not in escaped("x")
