"""spec.output: the adapter is copied at the end of a run, and a failed copy does not fail the run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rft_run.config import RunConfig
from rft_run.destination import Destination, HubDestination, S3Destination
from rft_run.exit_codes import ExitCode
from rft_trainer import result
from rft_trainer.attempt import attempt
from rft_trainer.remote.sending import Pushed, PushError
from rft_trainer.result import deliver
from tests.trainer.loop_support import config, with_spec

HUB = {"hub": {"repository": "team/sums"}}


class Sender:
    """Replaces the network: fails once with each of the given errors, in order, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[Path, Destination]] = []

    def __call__(self, folder: Path, to: Destination) -> Pushed:
        self.calls.append((folder, to))
        if self.errors:
            raise self.errors.pop(0)
        return Pushed(f"address of {to}", ["adapter_config.json"], [], [])


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "WAITS", (0.0, 0.0))


def of_run(folder: Path, output: dict[str, Any]) -> RunConfig:
    return with_spec(config(Path("/models/m"), folder), output=output)


def never() -> bool:
    return False


def test_a_job_without_output_pushes_nothing(tmp_path: Path) -> None:
    send = Sender()
    assert deliver(config(Path("/models/m"), tmp_path), 0, never, send) is None
    assert send.calls == []


@pytest.mark.parametrize(
    ("output", "best_step", "adapter", "to"),
    [
        (HUB, 2, "adapter", HubDestination("team/sums")),
        ({**HUB, "adapter": "best"}, 2, "checkpoints/step-000002/adapter", HubDestination("team/sums")),
        ({**HUB, "adapter": "best"}, 0, "adapter", HubDestination("team/sums")),
        ({"s3": {"uri": "s3://bucket/sums"}}, 2, "adapter", S3Destination("s3://bucket/sums")),
        (
            {"hub": {"repository": "team/sums", "revision": "v2", "private": False}},
            0,
            "adapter",
            HubDestination("team/sums", "v2", private=False),
        ),
    ],
)
def test_the_adapter_that_the_job_names_goes_where_it_says(
    tmp_path: Path, output: dict[str, Any], best_step: int, adapter: str, to: Destination
) -> None:
    send = Sender()
    done = deliver(of_run(tmp_path, output), best_step, never, send)
    assert done is not None
    assert done.address == f"address of {to}"
    assert send.calls == [(tmp_path / adapter, to)]


@pytest.mark.usefixtures("no_waits")
def test_a_temporary_failure_is_repeated_and_another_one_is_not(tmp_path: Path) -> None:
    send = Sender(PushError("busy", temporary=True), PushError("busy", temporary=True))
    done = deliver(of_run(tmp_path, HUB), 0, never, send)
    assert (len(send.calls), done and done.address) == (3, "address of hf://team/sums")
    send = Sender(PushError("refused"))
    done = deliver(of_run(tmp_path, HUB), 0, never, send)
    assert (len(send.calls), done and done.address) == (1, None)


def test_a_run_that_is_asked_to_stop_waits_for_no_further_attempt(tmp_path: Path) -> None:
    send = Sender(PushError("busy", temporary=True))
    done = deliver(of_run(tmp_path, HUB), 0, lambda: True, send)
    assert (len(send.calls), done and done.address) == (1, None)


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(
    ("pod", "where", "source"),
    [(True, "on the volume", "tiny -n default"), (False, "in the run's folder", "FOLDER")],
)
@pytest.mark.parametrize("error", [PushError("busy", temporary=True), RuntimeError("hidden")])
def test_the_message_of_a_failed_push_has_the_command_that_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pod: bool, where: str, source: str, error: Exception
) -> None:
    if pod:
        monkeypatch.setenv("RFT_POD_NAME", "tiny-0")
    output = {"hub": {"repository": "team/sums", "private": False}, "adapter": "best"}
    done = deliver(of_run(tmp_path, output), 2, never, Sender(error, error, error))
    assert done is not None
    command = f"rft push {source} hf://team/sums --best --public".replace("FOLDER", str(tmp_path))
    assert done.message.startswith(f"The adapter of step 2, the best one, was not pushed, and is {where}: ")
    assert done.message.endswith(f"To push it: {command}")
    assert "hidden" not in done.message


@pytest.mark.parametrize("name", ["results", "nosuch"])
def test_a_run_succeeds_with_its_adapter_in_the_bucket_and_also_without(
    bucket: Any, character_model: Path, tmp_path: Path, name: str
) -> None:
    output = {"s3": {"uri": f"s3://{name}/sums"}}
    small = {"stop": {"maxSteps": 1}, "evaluation": {"fraction": 0}}
    run = with_spec(config(character_model, tmp_path), output=output, **small)
    assert attempt(run, never) == ExitCode.OK
    status = yaml.safe_load((tmp_path / "status.yaml").read_text())
    assert status["phase"] == "Succeeded"
    adapter = {file.name: file.read_bytes() for file in (tmp_path / "adapter").iterdir()}
    assert json.loads(adapter["adapter_config.json"])["base_model_name_or_path"] == str(character_model)
    if name == "nosuch":
        assert "there is no bucket nosuch" in status["message"]
        assert f"To push it: rft push {tmp_path} s3://nosuch/sums" in status["message"]
        assert "pushed" not in status["output"]
        return
    assert "spec.stop.maxSteps is reached. The adapter is pushed to s3://results/sums" in status["message"]
    assert status["output"]["pushed"] == "s3://results/sums"
    found = bucket.list_objects_v2(Bucket="results")["Contents"]
    assert {each["Key"].removeprefix("sums/"): each["Size"] for each in found} == {
        name: len(content) for name, content in adapter.items()
    }
