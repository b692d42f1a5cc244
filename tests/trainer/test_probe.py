"""A run ends if the sampler's log-probs are not those of the policy. The error names the likely cause."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rft_api.conditions import Reason
from rft_api.parameters import Dtype
from rft_cli.render.endings import explain
from rft_planner.precision import WIDTHS
from rft_run.errors import SamplerMismatch
from rft_run.exit_codes import ExitCode
from rft_run.folder import RunFolder
from rft_run.mismatch import Mismatch
from rft_trainer.attempt import attempt
from rft_trainer.probe import Answers, SamplerProbe, mismatch_of
from rft_trainer.rollout import transformers_engine
from rft_trainer.rollout.transformers_engine import TransformersEngine, end_tokens
from rft_trainer.runtime import machine
from tests.trainer.loop_support import config, run


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)


def ignores_adapters(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TransformersEngine, "use_adapter", lambda _self, _adapter, *_: None)


def keeps_its_first_adapter(patch: pytest.MonkeyPatch) -> None:
    use = TransformersEngine.use_adapter

    def first_only(self: TransformersEngine, adapter: Any, *_: Any) -> None:
        if self._adapter is None:
            use(self, adapter)

    patch.setattr(TransformersEngine, "use_adapter", first_only)


def samples_warmer(patch: pytest.MonkeyPatch) -> None:
    draw = transformers_engine.draw
    patch.setattr(
        transformers_engine,
        "draw",
        lambda logits, told, own: draw(logits, replace(told, temperature=told.temperature + 0.3), own),
    )


NOT_TAKEN = (ignores_adapters, "probe adapter 1 is published.*nearer to those of the base")
NOT_RENEWED = (keeps_its_first_adapter, "probe adapter 2 is published.*nearer to those of probe adapter 1")
WARMER = (samples_warmer, "apply temperature, top-k or top-p differently")


# The tiny model is nearly uniform, so a temperature changes its log-probs by less than bfloat16 rounds them.
@pytest.mark.parametrize(
    ("fault", "said", "dtype"),
    [
        *((*fault, dtype) for fault in (NOT_TAKEN, NOT_RENEWED) for dtype in WIDTHS),
        (*WARMER, "float32"),
    ],
)
def test_a_faulty_sampler_ends_the_run_before_a_step_with_its_reason(
    character_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
    said: str,
    dtype: Dtype,
) -> None:
    monkeypatch.setenv("RFT_CPU_DTYPE", dtype)
    fault(monkeypatch)
    with pytest.raises(SamplerMismatch, match=said):
        run(config(character_model, tmp_path))
    assert not (tmp_path / "checkpoints").exists() or not any((tmp_path / "checkpoints").iterdir())
    code = attempt(config(character_model, tmp_path / "again"), lambda: False)
    assert code == ExitCode.SAMPLER_MISMATCH
    assert Reason.SAMPLER_MISMATCH in (tmp_path / "again" / "status.yaml").read_text()
    assert "does not sample from the policy" in explain(code, RunFolder(tmp_path / "again")).what


def test_a_sampler_that_misses_a_later_version_ends_the_run_at_the_publish(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_CPU_DTYPE", "float32")
    use = TransformersEngine.use_adapter

    def until_version_one(self: TransformersEngine, adapter: Any, *_: Any) -> None:
        if adapter is None or adapter.name <= "v000001" or adapter.name.startswith("probe"):
            use(self, adapter)

    monkeypatch.setattr(TransformersEngine, "use_adapter", until_version_one)
    with pytest.raises(SamplerMismatch, match="exactly the same as before"):
        run(config(character_model, tmp_path, learningRate=5e-4))


class Asked:
    """An engine that answers with the log-probs in ``said``."""

    def __init__(self, said: list[float]) -> None:
        self.said = said

    def logprobs(self, _token_ids: Any) -> list[float]:
        return self.said


@pytest.mark.parametrize(
    ("said", "alone", "found"),
    [
        ([-1.0, -2.0], True, "exactly the same as before"),
        ([-1.0, -2.0], False, "exactly the same as before"),
        ([-1.02, -2.0], True, None),
        ([-1.02, -2.0], False, "the same as before to 0.01 nats"),
        ([-1.5, -2.5], False, None),
    ],
)
def test_while_batches_are_sampled_a_change_by_rounding_does_not_count(
    said: list[float], alone: bool, found: str | None
) -> None:
    probe = object.__new__(SamplerProbe)
    probe._dtype, probe._text, probe._engine = "bfloat16", (1, 2, 3), Asked(said)  # type: ignore[assignment]
    probe._last = Answers([-1.0, -2.0], [-1.0, -2.0])
    with pytest.raises(SamplerMismatch, match=found) if found is not None else nullcontext():
        probe.after_load(2, [-1.5, -2.5], alone=alone)


@pytest.mark.parametrize("alone", [(False, True), (True, False), (False, False)])
def test_a_sampler_with_an_old_version_is_found_after_several_small_updates_while_batches_are_sampled(
    alone: tuple[bool, bool],
) -> None:
    probe = object.__new__(SamplerProbe)
    asked = Asked([-1.0, -2.0])
    probe._dtype, probe._text, probe._engine = "float32", (1, 2, 3), asked  # type: ignore[assignment]
    probe._last = Answers([-1.0, -2.0], [-1.0, -2.0])

    def load(version: int) -> None:
        idle = alone[version % 2]
        asked.said = [-1.0 - (0.0 if idle else 1e-6 * version), -2.0]  # only rounding changes
        probe.after_load(version, [-1.0 - 6e-4 * version, -2.0 - 6e-4 * version], alone=idle)

    load(1)
    with pytest.raises(SamplerMismatch, match="the same as before"):
        load(2)


def test_a_sampler_that_follows_small_updates_while_batches_are_sampled_is_not_refused() -> None:
    probe = object.__new__(SamplerProbe)
    asked = Asked([-1.0, -2.0])
    probe._dtype, probe._text, probe._engine = "float32", (1, 2, 3), asked  # type: ignore[assignment]
    probe._last = Answers([-1.0, -2.0], [-1.0, -2.0])
    for version in range(1, 9):
        own = [-1.0 - 6e-4 * version, -2.0 - 6e-4 * version]
        asked.said = [own[0] + 1e-6 * version, own[1]]
        probe.after_load(version, own, alone=version % 3 == 0)


def test_the_probe_leaves_adapter_random_state_and_folder_as_they_were(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_training = SamplerProbe.before_training
    seen: list[bool] = []

    def compared(self: SamplerProbe, *arguments: Any) -> None:
        weights = [factor.detach().clone() for factor in self._policy.trainable()]
        state = torch.get_rng_state()
        before_training(self, *arguments)
        seen.append(torch.equal(state, torch.get_rng_state()))
        seen.extend(map(torch.equal, weights, self._policy.trainable()))

    monkeypatch.setattr(SamplerProbe, "before_training", compared)
    run(config(character_model, tmp_path))
    assert seen
    assert all(seen)
    assert not list((tmp_path / "adapters").glob("probe*"))


def test_the_sampler_is_asked_for_what_the_trainer_computes(character_model: Path) -> None:
    engine = TransformersEngine(character_model, "cpu", "float32")
    assert len(engine.logprobs((3, 4, 5))) == 2
    assert engine.logprobs((3, 4, 5)) == engine.logprobs((3, 4, 5))


def test_one_token_that_both_see_differently_and_few_tokens_stop_no_run() -> None:
    outlier = mismatch_of([(-1.0, -1.0)] * 999 + [(-1.0, -12.0)])
    assert outlier.kl > 1
    assert not outlier.too_large
    assert not Mismatch(5.0, 5.0, 8).too_large
    assert Mismatch(0.2, 0.3, 1000).too_large


def test_tokenizer_and_generation_config_both_end_a_completion() -> None:
    assert end_tokens(2, [0, 5]) == {0, 2, 5}
    assert end_tokens(None, 0) == {0}
    assert end_tokens(None, None) == set()
