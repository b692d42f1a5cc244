"""For each type of model, the trainer's log-probs equal those of transformers, also with shared prompts."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bench.architectures import BEYOND, measure, own_logprobs, policy_logprobs
from bench.tiny_models import CONFIGS, config_of, write_model
from rft_api.parameters import Training
from rft_planner.architectures import TRAINABLE
from rft_planner.layouts import LAYOUTS
from rft_run.errors import ModelError
from rft_trainer.learn.policy import Policy, PolicyOptions
from tests.trainer.loop_support import config, run

TYPES = ("mistral", "gemma2", "gemma3_text", "gemma3", "phi3", "olmo3", "qwen2", "gpt_oss")


def policy(folder: Path, context: int | None = None) -> Policy:
    training = Training(lora_rank=4, lora_alpha=8)
    return Policy(PolicyOptions(folder, training, "cpu", "float32", 0, context=context))


@pytest.mark.parametrize("model_type", TYPES)
def test_log_probs_are_the_models_own_below_and_beyond_its_window(model_type: str, tmp_path: Path) -> None:
    result = measure(model_type, tmp_path)
    assert result.faults == []
    assert result.beyond_shared is not None


def test_every_type_that_can_be_trained_has_a_layout_and_is_measured() -> None:
    assert set(CONFIGS) == set(TRAINABLE)
    assert set(TRAINABLE) - {"gemma3"} == set(LAYOUTS)


def test_vllm_has_a_class_for_every_type_that_can_be_trained() -> None:
    found = find_spec("vllm")  # find_spec does not import vLLM, which would take seconds
    assert found is not None
    assert found.origin is not None
    registry = (Path(found.origin).parent / "model_executor" / "models" / "registry.py").read_text()
    assert [kind for kind, name in TRAINABLE.items() if f'"{name}":' not in registry] == []


@pytest.mark.parametrize("kind", ["gpt2", "ministral"])
def test_a_run_ends_before_its_sampler_starts_where_the_model_cannot_be_trained(
    kind: str, character_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(character_model, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": kind}))
    with pytest.raises(ModelError, match=f"the model_type in its config.json is '{kind}'; allowed: ernie4_5"):
        run(config(folder, tmp_path / "run"))


def test_dropout_of_the_checkpoint_is_off_while_training(tmp_path: Path) -> None:
    write_model(config_of("granite", attention_dropout=0.5), tmp_path)
    trained = policy(tmp_path)
    own = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    torch.testing.assert_close(
        policy_logprobs(trained, BEYOND.alone), own_logprobs(own, BEYOND), atol=1e-3, rtol=0
    )


def test_longrope_follows_the_context_of_the_run_and_not_the_longest_row_of_a_batch(tmp_path: Path) -> None:
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 48,
        "short_factor": [1.0] * 16, "long_factor": [4.0] * 16,
    }  # fmt: skip
    write_model(
        config_of("phi3", rope_parameters=rope, original_max_position_embeddings=48, sliding_window=None),
        tmp_path,
    )
    own = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    # The texts have 59, 44 and 51 tokens. transformers uses the long factors for a text of more than 48.
    wanted = own_logprobs(own, BEYOND)
    lengths = list(map(len, BEYOND.completions))
    long, short = policy(tmp_path, 128), policy(tmp_path, 48)
    for rows in (BEYOND.alone, BEYOND.shared):
        by_long = policy_logprobs(long, rows).split(lengths)
        torch.testing.assert_close(by_long[0], wanted.split(lengths)[0], atol=1e-3, rtol=0)
        torch.testing.assert_close(by_long[2], wanted.split(lengths)[2], atol=1e-3, rtol=0)
        by_short = policy_logprobs(short, rows).split(lengths)
        torch.testing.assert_close(by_short[1], wanted.split(lengths)[1], atol=1e-3, rtol=0)
