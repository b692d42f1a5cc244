"""When a run that sends no reports counts as stalled, and which lines of its log are shown."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rft_api.status import RunStatus
from rft_operator.clock import rfc3339
from rft_operator.logs import LINES, MAX_LINE, MAX_TOTAL, last_lines
from rft_operator.observe import Pod
from rft_operator.stall import LEAST_SECONDS, last_word, silence
from rft_run.report import ProgressReport

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
POD = Pod("sums-x-1", "pod-1", "2026-11-22T17:00:00Z", controller="job-1", phase="Running", scheduled=True)
UNKNOWN = 1800.0


def run(
    step_seconds: float | None = None, stage: str = "training", silent: float = 0.0, **progress: Any
) -> RunStatus:
    said = rfc3339(NOW - timedelta(seconds=silent))
    document: dict[str, Any] = {"progress": {"step": 4, "stage": stage, "updatedAt": said, **progress}}
    if step_seconds is not None:
        document["metrics"] = {"stepSeconds": step_seconds}
    return RunStatus.model_validate(document)


def allowed(of: RunStatus) -> float:
    return silence(of, NOW, UNKNOWN).allowed


def test_the_limit_is_ten_times_the_runs_own_step_time() -> None:
    assert allowed(run(60.0)) == 600.0
    assert allowed(run(900.0)) == 9000.0, "with long steps the limit is higher than the operator's setting"


def test_with_short_steps_the_limit_still_allows_a_restart_of_the_sampler() -> None:
    assert allowed(run(0.5)) == LEAST_SECONDS


def test_after_one_quick_step_the_mean_step_time_counts() -> None:
    assert allowed(run(10.0, totalSteps=14, etaSeconds=1000.0)) == 1000.0


def test_before_the_first_step_the_limit_is_the_operators_setting() -> None:
    assert allowed(run()) == UNKNOWN
    assert allowed(run(stage="evaluatingBase")) == UNKNOWN


def test_the_operators_setting_is_the_limit_for_the_last_evaluation_too() -> None:
    assert allowed(run(60.0, stage="evaluatingTuned")) == UNKNOWN
    assert allowed(run(900.0, stage="evaluatingTuned")) == 9000.0


def test_a_run_stalls_exactly_when_the_limit_has_passed() -> None:
    assert silence(run(60.0, silent=599), NOW, UNKNOWN).left(NOW) == 1.0
    assert silence(run(60.0, silent=600), NOW, UNKNOWN).left(NOW) == 0.0


def test_the_message_has_the_time_of_the_last_report_and_the_limit() -> None:
    said = str(silence(run(60.0, silent=3600), NOW, UNKNOWN))
    assert (
        said
        == "No progress since 2026-11-22T17:00:00Z, longer than the allowed 600 s. A step takes about 60 s."
    )
    said = str(silence(run(silent=3600), NOW, UNKNOWN))
    assert said == "No progress since 2026-11-22T17:00:00Z, longer than the allowed 1800 s."


def report(pod: str) -> ProgressReport:
    return ProgressReport(attempt=pod, sequence=1, run=run(60.0))


def test_a_report_of_another_pod_does_not_count() -> None:
    status = run(60.0).dump()
    assert last_word(report("pod-1"), POD, {}) is not None
    assert last_word(report("pod-0"), POD, status) is None


def test_after_a_restart_the_status_stands_in_for_the_last_report() -> None:
    known = last_word(None, POD, run(60.0).dump())
    assert known is not None
    assert allowed(known) == 600.0
    newer = replace(POD, created="2026-11-22T18:00:01Z")
    assert last_word(None, newer, run(60.0).dump()) is None, (
        "the status must be ignored, because an earlier pod reported it"
    )
    assert last_word(None, POD, {}) is None
    assert last_word(None, POD, {"progress": {"step": "many"}}) is None


def test_the_newest_log_lines_are_kept_and_fit_into_an_event() -> None:
    lines = last_lines("\n".join(f"line {i}" for i in range(100)) + "\n\n")
    assert lines == tuple(f"line {i}" for i in range(100 - LINES, 100))
    assert last_lines("") == ()
    long = last_lines("\n".join(f"{i} {'x' * 500}" for i in range(20)))
    assert long[-1].startswith("19 x")
    assert all(len(line) <= MAX_LINE for line in long)
    assert sum(len(line) + 1 for line in long) <= MAX_TOTAL


def test_a_secret_is_redacted_before_its_line_is_cut() -> None:
    token = "eyJ" + "a" * 300 + ".b.c"
    assert "eyJ" not in last_lines("x" * (MAX_LINE - 20) + " " + token)[0]


def test_control_characters_are_removed() -> None:
    assert last_lines("\x1b[31mred\x1b[0m\r 50%\r100%") == ("red", " 50%", "100%")
