"""What the processes of a run hold, against what the planner says; and the least of it as a real limit."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bench.memory import Case, measure, model_named, planned, run_config, shape_of

from rft_api.exitcodes import ExitCode
from rft_api.parameters import Training
from rft_planner import host
from rft_planner.memory import Workload
from rft_planner.sizes import quantity
from rft_trainer import machine
from rft_trainer.layout import Row, Sample, build
from rft_trainer.policy import Policy, PolicyOptions

LOWEST, HIGHEST = 1.00, 1.20
SHORT = Case("SmolLM2-135M", 128, 64, least=True, engine="transformers")
KILLED = -9


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case("SmolLM2-135M", 128, 64, least=True), marks=pytest.mark.vllm),
        Case("random-58M", 512, 448, least=False, engine="transformers"),
    ],
    ids=lambda case: f"{case.name} with {case.engine}",
)
def test_the_processes_hold_what_the_plan_says(case: Case, models: Path, tmp_path: Path) -> None:
    found = measure(case, model_named(case.name, models), tmp_path / "run")
    assert LOWEST <= found.ratio <= HIGHEST, found


@pytest.mark.parametrize("samples", [1, 3])
def test_autograd_keeps_what_the_formula_says(character_model: Path, samples: int) -> None:
    training = Training(lora_rank=4)
    policy = Policy(PolicyOptions(character_model, training, "cpu", "float32", 0))
    completion = Sample((3,) * 200, (0.0,) * 200, 1.0)
    batch = build([Row((4, 5, 6), (completion,) * samples)])
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy._model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = policy.hidden(batch)
    assert hidden.requires_grad
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    shape, tokens = shape_of(character_model), batch.tokens_B_T.numel()
    run = host.HostRun(
        Workload(4, tokens, samples), 200, tokens, reference=True, sorts=False, in_process=True
    )
    mask = host.attention_mask(tokens) if samples > 1 else 0
    predicted = host.saved_activations(shape, run, tokens) + mask
    assert 1.0 <= predicted / measured <= 1.15


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A memory group of our own."""
    top = machine.CGROUPS / "memory"
    folder = (top if top.is_dir() else machine.CGROUPS) / f"rft-run-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory group can be made here: {error}")
    yield folder
    folder.rmdir()


def run_within(group: Path, limit: float, case: Case, model: Path, folder: Path, *, forced: bool) -> int:
    """Run the trainer with the plan's least in a group of ``limit`` bytes; returns its exit status."""
    name = next(n for n in ("memory.max", "memory.limit_in_bytes") if (group / n).exists())
    (group / name).write_text(str(int(limit)))
    config = run_config(case, model, folder)
    assert config.plan is not None
    plan = config.plan.model_copy(update={"forced": forced})
    path = folder / "run.json"
    path.write_text(json.dumps(config.model_copy(update={"plan": plan}).dump()))
    program = (
        "import os, sys; from pathlib import Path; Path(sys.argv[1]).write_text(str(os.getpid()));"
        "os.execv(sys.executable, [sys.executable, '-m', 'rft_trainer', '--config', sys.argv[2]])"
    )
    source = Path(machine.__file__).parents[1]
    with (folder / "events").open("w") as events:
        done = subprocess.run(
            [sys.executable, "-c", program, str(group / "cgroup.procs"), str(path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(source), str(source.parent / "operator")])},
            stdout=events, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    return done.returncode


@pytest.mark.timeout(600)
def test_the_least_is_enough_as_a_limit_and_three_quarters_are_refused_or_run_out(
    memory_group: Path, models: Path, tmp_path: Path
) -> None:
    model = model_named(SHORT.name, models)
    least = quantity(planned(SHORT, model).least_memory or "")

    def run(share: float, *, forced: bool) -> int:
        folder = tmp_path / f"{share}-{forced}"
        return run_within(memory_group, share * least, SHORT, model, folder, forced=forced)

    assert run(0.75, forced=False) == ExitCode.CONFIGURATION
    assert run(0.75, forced=True) == KILLED
    assert run(1.0, forced=False) == ExitCode.OK
