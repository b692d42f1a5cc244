"""The trainer sends reports to a real HTTPS server.

If the server does not answer, the report is sent again. Sending never delays the training.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rft_api.conditions import CONDITION_TYPES
from rft_api.job import RFTJobSpec
from rft_api.lifecycle import Stop
from rft_api.status import (
    MAX_HISTORY,
    Effective,
    Output,
    Progress,
    Recommendation,
    Reward,
    RewardPoint,
    RFTJobStatus,
    RunStatus,
    Usage,
    thin,
)
from rft_run.config import JobIdentity, ReportTarget, RunConfig
from rft_run.errors import Fenced
from rft_run.exit_codes import ExitCode
from rft_run.report import MAX_REPORT_BYTES, MAX_TERMINATION_BYTES, Ending, ProgressReport
from rft_trainer.attempt import ending_of
from rft_trainer.monitors.report import Reporter, backoff, fitted
from tests.trainer.report_support import Server, certificate
from tests.unit.shown_support import ESCAPES, SECRETS, texts_of

OK = Ending(exit_code=ExitCode.OK, reason="Completed", message="All done")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def termination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RFT_TERMINATION_LOG", str(tmp_path / "termination-log"))
    monkeypatch.setenv("RFT_POD_UID", "pod-1")
    return tmp_path / "termination-log"


def config(folder: Path, server: Server | None = None, ca: Path | None = None) -> RunConfig:
    spec = RFTJobSpec.model_validate(
        {
            "model": {"name": "org/model"},
            "dataset": {"uri": "./rows.jsonl"},
            "graders": [{"name": "right", "numeric": {}}],
            "storage": {"ephemeral": {}},
        }
    )
    given: dict[str, Any] = {}
    if server is not None:
        (folder / "token").write_text("token-1\n")
        given["report"] = ReportTarget(
            url=server.url, ca_file=str(ca or server.certificate), token_file=str(folder / "token")
        )
    return RunConfig(
        job=JobIdentity(name="job", namespace="default", uid="uid"),
        spec=spec,
        effective=Effective(
            seed=1, max_context_length=64, clip_high=0.2, kl_beta=0.0, loss_aggregation="token"
        ),
        run_dir=str(folder / "run"),
        dataset_path="rows.jsonl",
        **given,
    )


def at(step: int, **given: Any) -> RunStatus:
    return RunStatus(progress=Progress(step=step, stage="training", **given))


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not true within {seconds:g} s"
        time.sleep(0.01)


def test_a_snapshot_arrives_with_token_attempt_and_sequence(tmp_path: Path, server: Server) -> None:
    with Reporter(config(tmp_path, server), interval=0.02) as reporter:
        reporter.publish(at(3, resumed_from_step=2))
        until(lambda: bool(server.bodies))
    assert server.tokens == ["Bearer token-1"]
    report = ProgressReport.model_validate(server.bodies[0])
    assert (report.attempt, report.sequence, report.resumed_from_step) == ("pod-1", 1, 2)
    assert report.run.progress.step == 3


def test_only_the_newest_of_many_snapshots_is_sent(tmp_path: Path, server: Server) -> None:
    with Reporter(config(tmp_path, server), interval=0.2) as reporter:
        for step in range(500):
            reporter.publish(at(step))
        reporter.publish(at(500), ending=OK)
    assert server.steps[-1] == 500
    assert len(server.steps) < 20
    assert server.steps == sorted(server.steps)
    assert server.bodies[-1]["ending"] == {"exitCode": 0, "reason": "Completed", "message": "All done"}


def test_publishing_never_waits_for_the_operator(tmp_path: Path, server: Server) -> None:
    server.answer = 503
    reporter = Reporter(config(tmp_path, server), interval=0.02)
    started = time.monotonic()
    for step in range(50):
        reporter.publish(at(step))
    assert time.monotonic() - started < 1.0
    assert not reporter.close(timeout=0.1)


def test_an_attempt_that_was_replaced_ends_at_once_and_writes_nothing(
    tmp_path: Path, server: Server, termination: Path
) -> None:
    server.answer = 403  # the trainer's pod does not exist any more, so its token is invalid
    ended = Ending(exit_code=ExitCode.FENCED, reason="Fenced", message="attempt 2 took over from attempt 1")
    started = time.monotonic()
    with Reporter(config(tmp_path, server), interval=0.02, local_status=True) as reporter:
        reporter.publish(at(1))
        written = (tmp_path / "run" / "status.yaml").read_text()
        reporter.publish(at(2), ending=ended, force=True)
    assert time.monotonic() - started < 15
    assert (tmp_path / "run" / "status.yaml").read_text() == written
    assert json.loads(termination.read_text())["ending"]["exitCode"] == ExitCode.FENCED


@pytest.mark.parametrize("answer", [401, 403, 429, 500, 503])
def test_a_report_is_tried_again_and_the_trouble_is_logged_once_without_the_token(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, answer: int
) -> None:
    server.answer = answer
    with Reporter(config(tmp_path, server), interval=0.01) as reporter:
        reporter.publish(at(1))
        until(lambda: len(server.bodies) >= 3)
        server.answer = 200
        reporter.publish(at(2), ending=OK)
    assert server.steps[-1] == 2
    assert caplog.text.count(f"a report failed with HTTP status {answer}") == 1
    assert "token-1" not in caplog.text


def test_the_last_report_is_tried_until_the_time_is_up(tmp_path: Path, server: Server) -> None:
    server.answer = 503
    reporter = Reporter(config(tmp_path, server), interval=0.02)
    reporter.publish(at(1), ending=OK)
    assert not reporter.close(timeout=0.5)
    assert len(server.bodies) >= 3


def test_an_attempt_that_was_asked_to_stop_waits_only_seconds_for_an_operator_that_is_away(
    tmp_path: Path, server: Server, termination: Path
) -> None:
    server.answer = 503
    stopped = Ending(exit_code=ExitCode.PREEMPTED, reason="Retrying", message="asked to stop")
    started = time.monotonic()
    with Reporter(config(tmp_path, server), interval=0.02) as reporter:
        reporter.publish(at(2), ending=stopped, force=True)
    assert time.monotonic() - started < 10
    assert json.loads(termination.read_text())["ending"]["exitCode"] == ExitCode.PREEMPTED


@pytest.mark.parametrize("answer", [410, 422])
def test_a_report_that_the_operator_refuses_is_not_repeated(
    tmp_path: Path, server: Server, answer: int
) -> None:
    server.answer = answer
    with Reporter(config(tmp_path, server), interval=0.01) as reporter:
        reporter.publish(at(1))
        until(lambda: server.steps == [1])
        server.answer = 200
        reporter.publish(at(2))
    assert server.steps == [1, 2]


def test_an_older_attempt_learns_that_it_is_fenced(tmp_path: Path, server: Server) -> None:
    server.answer = 409
    with Reporter(config(tmp_path, server), interval=0.01) as reporter:
        reporter.publish(at(1))
        until(lambda: reporter.fenced)
        with pytest.raises(Fenced):
            reporter.publish(at(2))
        reporter.publish(at(2), ending=Ending(exit_code=ExitCode.FENCED, reason="TrainerFailed"))
    assert server.steps == [1]


def test_a_renewed_token_and_a_renewed_ca_are_used_from_the_next_report_on(
    tmp_path: Path, server: Server
) -> None:
    stranger, _ = certificate(tmp_path / "stranger")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(stranger.read_bytes())
    with Reporter(config(tmp_path, server, ca), interval=0.01) as reporter:
        reporter.publish(at(1))
        until(lambda: bool(reporter._complaints))
        assert server.bodies == []
        (tmp_path / "token").write_text("token-2")
        ca.write_bytes(stranger.read_bytes() + server.certificate.read_bytes())
        until(lambda: bool(server.bodies))
    assert server.tokens[0] == "Bearer token-2"


def test_the_ca_may_be_a_folder(tmp_path: Path, server: Server) -> None:
    (tmp_path / "cas").mkdir()
    (tmp_path / "cas" / "old.crt").write_bytes(certificate(tmp_path / "old")[0].read_bytes())
    (tmp_path / "cas" / "new.crt").write_bytes(server.certificate.read_bytes())
    with Reporter(config(tmp_path, server, tmp_path / "cas"), interval=0.01) as reporter:
        reporter.publish(at(1))
    assert server.steps == [1]


def test_missing_files_and_servers_never_fail_the_training(tmp_path: Path, server: Server) -> None:
    given = config(tmp_path, server)
    (tmp_path / "token").unlink()
    reporter = Reporter(given, interval=0.01)
    reporter.publish(at(1))
    until(lambda: bool(reporter._complaints))
    assert not reporter.close(timeout=0.05)


def test_a_snapshot_with_a_nan_is_kept_back_and_the_next_is_sent(tmp_path: Path, server: Server) -> None:
    broken = at(1).model_copy(update={"reward": Reward().model_copy(update={"latest": math.nan})})
    with Reporter(config(tmp_path, server), interval=0.01) as reporter:
        reporter.publish(broken)
        until(lambda: bool(reporter._complaints))
        reporter.publish(at(2))
    assert server.steps == [2]


def test_the_termination_message_is_the_newest_snapshot_within_its_limit(
    tmp_path: Path, termination: Path
) -> None:
    points = [RewardPoint(step=i, reward=0.123456789012345) for i in range(50)]
    run = RunStatus(progress=Progress(step=50), reward=Reward(latest=0.5, history=points))
    long = Ending(exit_code=ExitCode.DATA, reason="DataError", message="x" * 2048)
    with Reporter(config(tmp_path)) as reporter:
        reporter.publish(run)
        assert "ending" not in json.loads(termination.read_text())
        reporter.publish(run, ending=long)
    assert len(termination.read_bytes()) <= MAX_TERMINATION_BYTES
    report = ProgressReport.model_validate_json(termination.read_text())
    assert report.run.progress.step == 50
    assert report.ending is not None
    assert report.ending.exit_code == ExitCode.DATA


def everywhere(text: str) -> RunStatus:
    """Return a status with ``text`` in each field that can contain a text from a run."""
    return RunStatus(
        progress=Progress(step=3, stage="training"),
        reward=Reward(graders={text: 0.5}, history=[RewardPoint(step=1, reward=0.5, graders={text: 0.5})]),
        recommendations=[Recommendation(rule=text, parameter=text, message=text)],
        usage=Usage(grader_errors={text: 1}),
        output=Output(folder=text, adapter=text),
    )


def test_no_secret_or_control_character_leaves_the_trainer(tmp_path: Path, termination: Path) -> None:
    """Termination messages, reports and the status of a local run must not contain secrets."""
    made = config(tmp_path)
    (tmp_path / "run").mkdir()
    for sample in (*SECRETS, *ESCAPES):
        ending = Ending(exit_code=ExitCode.DATA, reason="DataError", message=f"row 3: {sample.text}")
        with Reporter(made) as reporter:
            reporter.publish(everywhere(sample.text), ending=ending)
        report = ProgressReport(attempt="a", sequence=1, run=everywhere(sample.text), ending=ending)
        bodies = [
            json.loads(termination.read_text()),
            json.loads(fitted(report)),
            yaml.safe_load((tmp_path / "run" / "status.yaml").read_text()),
        ]
        for body in bodies:
            said = "\n".join(texts_of(body))
            assert "row 3: " in said, sample.name
            assert not [part for part in sample.hidden if part in said], sample.name


def test_an_unexpected_error_ends_an_attempt_without_its_secrets() -> None:
    for sample in (*SECRETS, *ESCAPES):
        ending = ending_of(RuntimeError("x" * 2000 + f" {sample.text}"))
        assert not [part for part in sample.hidden if part[:12] in ending.message], sample.name


def test_an_attempt_without_a_pod_gets_an_id_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RFT_POD_UID")
    assert Reporter(config(tmp_path)).attempt != Reporter(config(tmp_path)).attempt


def test_an_oversized_report_loses_advice_before_progress() -> None:
    advice = [Recommendation(rule="r", message="x" * 4000)] * 20
    run = at(7).model_copy(update={"recommendations": advice, "reward": Reward(latest=0.5)})
    data = fitted(ProgressReport(attempt="a", sequence=1, run=run))
    body = json.loads(data)
    assert len(data) <= MAX_REPORT_BYTES
    assert "recommendations" not in body["run"]
    assert body["run"]["progress"]["step"] == 7
    assert body["run"]["reward"]["latest"] == 0.5


def test_the_curve_of_many_graders_loses_their_scores_before_anything_else() -> None:
    scores = {f"{number:02}-{'x' * 60}": 0.5 for number in range(64)}
    points = [RewardPoint(step=i, reward=0.5, graders=scores) for i in range(MAX_HISTORY)]
    advice = [Recommendation(rule="r", message="keep me")]
    run = at(7).model_copy(update={"recommendations": advice, "reward": Reward(latest=0.5, history=points)})
    data = fitted(ProgressReport(attempt="a", sequence=1, run=run))
    body = json.loads(data)["run"]
    assert len(data) <= MAX_REPORT_BYTES
    assert len(body["reward"]["history"]) == MAX_HISTORY
    assert body["recommendations"][0]["message"] == "keep me"


def test_retries_slow_down_to_half_a_minute_however_long_the_operator_is_away() -> None:
    assert [backoff(n, 1.0) for n in (0, 1, 2, 3, 5, 100_000)] == [1.0, 2.0, 4.0, 8.0, 30.0, 30.0]


def test_a_short_curve_is_kept_whole() -> None:
    points = [RewardPoint(step=i, reward=0.0) for i in range(MAX_HISTORY)]
    assert thin(points) == points


@pytest.mark.parametrize("length", [51, 52, 99, 100, 1000, 12345])
@pytest.mark.parametrize("position", [0, 3, 17, 50])
def test_a_long_curve_keeps_its_first_best_and_last_point_in_order(length: int, position: int) -> None:
    points = [RewardPoint(step=i, reward=1.0 if i == position else 0.5) for i in range(length)]
    kept = thin(points)
    assert len(kept) in (MAX_HISTORY - 1, MAX_HISTORY)
    assert [kept[0], kept[-1]] == [points[0], points[-1]]
    assert points[position] in kept
    assert kept == sorted(kept, key=lambda point: point.step)


# --- status.yaml of a local run -----------------------------------------------------------------


def written(folder: Path) -> RFTJobStatus:
    body = yaml.safe_load((folder / "run" / "status.yaml").read_text())
    return RFTJobStatus.model_validate(body)


def holding(status: RFTJobStatus) -> set[str]:
    assert tuple(c.type for c in status.conditions) == CONDITION_TYPES
    return {c.type for c in status.conditions if c.status == "True"}


@pytest.mark.parametrize(
    ("ending", "phase", "conditions"),
    [
        (None, "Running", {"Accepted", "Planned", "Ready"}),
        (OK, "Succeeded", {"Accepted", "Planned", "Ready", "Complete"}),
        (
            Ending(exit_code=ExitCode.DATA, reason="DataError", message="line 7: not JSON"),
            "Failed",
            {"Accepted", "Planned", "Stalled", "Failed"},
        ),
        (
            Ending(exit_code=ExitCode.PREEMPTED, reason="Suspended"),
            "Suspended",
            {"Accepted", "Planned", "Ready", "Suspended"},
        ),
    ],
)
def test_a_local_run_has_the_status_that_a_cluster_would_show(
    tmp_path: Path, ending: Ending | None, phase: str, conditions: set[str]
) -> None:
    with Reporter(config(tmp_path)) as reporter:
        reporter.publish(at(5, total_steps=9), ending=ending)
    status = written(tmp_path)
    assert status.phase == phase
    assert holding(status) == conditions
    assert status.progress is not None
    assert status.progress.step == 5
    assert status.plan is not None
    assert status.plan.effective is not None
    assert (status.completion_time is not None) == (phase in ("Succeeded", "Failed"))
    assert status.message == (ending.message if ending else "Step 5 of about 9")


def test_a_run_that_has_not_stepped_yet_is_starting(tmp_path: Path) -> None:
    with Reporter(config(tmp_path)) as reporter:
        reporter.publish(RunStatus())
    assert written(tmp_path).phase == "Starting"
    assert "Ready" not in holding(written(tmp_path))


def test_a_resumed_local_run_keeps_its_start_time(tmp_path: Path) -> None:
    with Reporter(config(tmp_path)) as reporter:
        reporter.publish(at(1))
    path = tmp_path / "run" / "status.yaml"
    body = yaml.safe_load(path.read_text())
    body["startTime"] = "2026-01-01T00:00:00Z"
    body["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:01Z"
    path.write_text(yaml.safe_dump(body))
    with Reporter(config(tmp_path)) as reporter:
        reporter.publish(at(2))
    assert written(tmp_path).start_time == "2026-01-01T00:00:00Z"
    assert written(tmp_path).conditions[0].last_transition_time == "2026-01-01T00:00:01Z"


def test_the_local_file_is_written_at_most_once_a_second_unless_forced(tmp_path: Path) -> None:
    with Reporter(config(tmp_path)) as reporter:
        reporter.publish(at(1))
        reporter.publish(at(2))
        assert written(tmp_path).message == "Step 1"
        reporter.publish(at(3), force=True)
        assert written(tmp_path).message == "Step 3"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["status.yaml"]


def test_a_run_with_an_operator_writes_no_local_status(tmp_path: Path, server: Server) -> None:
    with Reporter(config(tmp_path, server), interval=0.01) as reporter:
        reporter.publish(at(1))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_does_not_fail_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").write_text("a file in the way")
    with Reporter(config(tmp_path)) as reporter:
        reporter.publish(at(1), force=True)
        reporter.publish(at(2), force=True)
    assert caplog.text.count("status.yaml cannot be written") == 1


def test_what_the_operator_says_of_stop_is_heard(tmp_path: Path, server: Server) -> None:
    with Reporter(config(tmp_path, server), interval=0.01) as reporter:
        reporter.publish(at(1))
        until(lambda: len(server.bodies) == 1)
        server.says = b'{"stop": {"maxSteps": 7}}'
        reporter.publish(at(2))
        until(lambda: reporter.stop is not None)
        assert reporter.stop == Stop(max_steps=7)
        for step, said in enumerate(
            (b"{}", b"not JSON", b'{"stop": {"maxSteps": "many"}}', b'{"new": 1}'), 3
        ):
            server.says = said
            reporter.publish(at(step))
            until(lambda step=step: server.steps[-1] == step)  # type: ignore[misc]
            assert reporter.stop == Stop(max_steps=7)
        server.says = b'{"stop": {}}'
        reporter.publish(at(9))
        until(lambda: reporter.stop == Stop())
