"""The Python client builds, checks, plans, submits and follows jobs, with typed objects."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rft import Client, Metadata, RFTError, RFTJob, RFTJobSpec, load, local, plan, run_locally, validate
from rft_api.dumper import dump
from rft_cli.local import reported
from rft_run.steps import StepRecord
from tests.api_server import Server, job, pod, served
from tests.manifests import manifest
from tests.unit.apply_support import record_applied
from tests.unit.trainer_support import fake_trainer

OPERATOR = Path(__file__).parents[2] / "operator"


def built(**spec: Any) -> RFTJob:
    return RFTJob(metadata=Metadata(name="job"), spec=RFTJobSpec.model_validate(manifest(**spec)["spec"]))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with served(tmp_path, monkeypatch) as server:
        found = job("arithmetic")
        found["spec"] = manifest()["spec"]
        server.jobs = [found]
        yield server


def test_a_job_is_built_checked_and_read_back(tmp_path: Path) -> None:
    made = built(training={"loraRank": 16})
    assert validate(made) == []
    (tmp_path / "job.yaml").write_text(dump(made.dump()))
    assert load(tmp_path / "job.yaml").spec == made.spec


def test_a_file_is_read_as_a_cluster_takes_it(tmp_path: Path) -> None:
    body = manifest()
    del body["spec"]["storage"]
    (tmp_path / "job.yaml").write_text(dump(body))
    with pytest.raises(RFTError, match=r"spec\.storage"):
        load(tmp_path / "job.yaml")


def test_a_field_out_of_range_and_a_broken_rule_are_refused() -> None:
    with pytest.raises(ValidationError, match="loraRank"):
        built(training={"loraRank": 5})
    broken = validate(built(graders=[{"name": "right", "weight": 0, "numeric": {}}]))
    assert len(broken) == 1
    assert "spec.graders" in broken[0]


def test_a_plan_says_what_a_job_requests() -> None:
    made = plan(built(model={"name": "Qwen/Qwen2.5-0.5B-Instruct"}))
    assert made.gpus >= 1
    assert made.memory is not None


def test_what_cannot_be_planned_is_an_error_that_says_why() -> None:
    with pytest.raises(RFTError, match=r"spec\.resources\.accelerator"):
        plan(built(model={"name": "Qwen/Qwen3-8B"}, resources={"accelerator": {"name": "tpu"}}))


def test_a_job_is_submitted_into_the_clients_namespace(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied = record_applied(monkeypatch)
    assert Client().submit(built()) == "created"
    assert applied[0]["metadata"] == {"name": "job", "namespace": "team", "labels": {}, "annotations": {}}
    assert applied[0]["spec"]["model"] == {"name": "org/model"}
    with pytest.raises(RFTError, match=r"job: .*spec\.graders"):
        Client().submit(built(graders=[{"name": "right", "weight": 0, "numeric": {}}]))
    assert len(applied) == 1


def test_jobs_are_listed_and_read_with_types(server: Server) -> None:
    client = Client()
    assert [each.name for each in client.list_jobs()] == ["arithmetic"]
    found = client.get_job("arithmetic")
    assert (found.phase, found.namespace) == ("Running", "team")
    assert found.status.progress is not None
    assert found.status.progress.step == 2
    with pytest.raises(RFTError, match="does not exist"):
        client.get_job("none")


def test_a_job_of_a_newer_operator_names_the_field(server: Server) -> None:
    server.jobs[0]["spec"]["novelty"] = 1
    with pytest.raises(RFTError, match=r"arithmetic: spec\.novelty is not known to this client"):
        Client().get_job("arithmetic")


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("spec", {"training": {"loraRank": 4096}}, r"spec\.training\.loraRank: this client cannot read"),
        ("spec", None, r"spec\.\w+: this client cannot read"),
        ("status", {"progress": {"step": "two"}}, r"status\.progress\.step: this client cannot read"),
    ],
)
def test_a_job_that_this_client_cannot_read_names_the_field_and_hides_no_other_job(
    server: Server, part: str, value: Any, said: str
) -> None:
    other = copy.deepcopy(server.jobs[0])
    other["metadata"]["name"] = "other"
    other[part] = value if value is None else {**other[part], **value}
    server.jobs.append(other)
    with pytest.raises(RFTError, match=f"other: {said}"):
        Client().get_job("other")
    with pytest.warns(UserWarning, match=f"left out of the list: other: {said}"):
        assert [each.name for each in Client().list_jobs()] == ["arithmetic"]


def test_a_job_is_followed_to_its_end(server: Server) -> None:
    later, ended = job(step=3), job(phase="Succeeded", step=4)
    for each in (later, ended):
        each["spec"] = manifest()["spec"]
    server.watches = [[{"type": "MODIFIED", "object": each} for each in (later, ended)]]
    seen = [
        (each.phase, each.status.progress and each.status.progress.step)
        for each in Client().watch_job("arithmetic")
    ]
    assert seen == [("Running", 2), ("Running", 3), ("Succeeded", 4)]


def test_waiting_ends_with_the_phase_the_time_or_another_end(server: Server) -> None:
    client = Client()
    assert client.wait_for_job_status("arithmetic", {"Running"}).phase == "Running"
    with pytest.raises(TimeoutError, match=r"is Running after 0\.1 s, and not Succeeded"):
        client.wait_for_job_status("arithmetic", timeout=0.1, polling_interval=0.02)
    server.jobs[0]["status"] |= {"phase": "Failed", "message": "out of memory"}
    with pytest.raises(RFTError, match="ended as Failed: out of memory"):
        client.wait_for_job_status("arithmetic")


def test_the_log_is_that_of_the_newest_pod(server: Server) -> None:
    server.pods = [pod("old", "2026-01-01T00:00:00Z"), pod("new", "2026-01-02T00:00:00Z")]
    assert list(Client().get_job_logs("arithmetic")) == ["log of new, trainer", "last line"]


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("suspend_job", {"suspend": True}),
        ("resume_job", {"suspend": False}),
        ("cancel_job", {"cancel": True}),
    ],
)
def test_a_job_is_suspended_resumed_and_cancelled(
    server: Server, method: str, change: dict[str, bool]
) -> None:
    getattr(Client(), method)("arithmetic")
    assert server.patches[0][1] == {"spec": change}


def test_a_run_here_that_cannot_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RFTError, match="exit code"):
        run_locally(built(), tmp_path / "run")
    assert "rows.jsonl" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []  # the temporary manifest is deleted


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder. It has rows, and ``run_locally`` starts a fake trainer in it."""
    fake_trainer(tmp_path, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}:{OPERATOR}")
    (tmp_path / "rows.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "1 + 1"}], "answer": 2}\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_here_returns_what_its_report_is_made_of(here: Path) -> None:
    run = run_locally(built(training={"loraRank": 16}), "run")
    assert (run.name, run.spec.training.lora_rank) == ("job", 16)
    assert (here / "run" / "run.json").is_file()


PUBLISHED = {"hub": {"repository": "team/sums", "private": False}}


def test_a_run_here_publishes_its_result_only_if_the_caller_allows_it(here: Path) -> None:
    with pytest.raises(RFTError, match="exit code 1"):
        run_locally(built(output=PUBLISHED), "run", push_to=["hf://team/sums"])
    assert not (here / "run").exists()


def test_a_run_here_starts_if_the_caller_allows_its_destination(here: Path) -> None:
    run_locally(built(output=PUBLISHED), "run", push_to=["s3://bucket/sums", "hf://team/sums"], public=True)
    assert (here / "run" / "run.json").is_file()


RFT = """
import json, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
folder.mkdir()
def stop(number, frame):
    (folder / "checkpointed").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
with (folder / "metrics.jsonl").open("w") as file:
    for step in (1, 2, 3):
        print(json.dumps({"step": step, "reward": step / 10}), file=file, flush=True)
        while step == 2 and not (folder / "seen").exists():
            time.sleep(0.01)
"""


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RFTJob:
    """Return a job. A fake program replaces ``rft run``, and makes three steps.

    After step 2 the program waits until the file ``seen`` exists.
    """
    package = tmp_path / "path" / "rft_cli"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(RFT)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(reported, "of_folder", lambda folder: folder)
    return built()


def test_each_step_of_a_run_here_is_seen_while_it_goes_on(training: RFTJob) -> None:
    seen: list[tuple[int, float | None]] = []

    def on_step(record: StepRecord) -> None:
        seen.append((record.step, record.reward))
        if record.step == 2:
            Path("run/seen").touch()

    run_locally(training, "run", on_step)
    assert seen == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_run_here_stops_with_a_checkpoint_where_the_program_is_interrupted(
    training: RFTJob, error: type[BaseException]
) -> None:
    def on_step(_record: StepRecord) -> None:
        raise error

    with pytest.raises(error):
        run_locally(training, "run", on_step)
    assert Path("run/checkpointed").exists()
    assert not list(Path().glob(".rft-*.yaml"))


def test_building_a_job_imports_no_heavy_library() -> None:
    code = "import rft, sys; print([m for m in ('torch', 'kubernetes', 'rich', 'typer') if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=OPERATOR, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
