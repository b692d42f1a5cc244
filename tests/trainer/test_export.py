"""rft export --merge: the merged model has the same results as the base model with the adapter."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from rft_cli.main import app
from rft_run.errors import ModelError
from rft_trainer.export import merge

PROMPT = torch.tensor([[2, 3, 12, 4, 5]])


@pytest.fixture(scope="module")
def adapter(character_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of an adapter that changes the model's output: its matrices A and B are random."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    lora = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(character_model), lora).save_pretrained(str(folder))
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(PROMPT).logits
    return found


def test_the_merged_model_has_the_logits_of_base_plus_adapter(
    character_model: Path, adapter: Path, tmp_path: Path
) -> None:
    output = tmp_path / "merged"
    arguments = ["export", str(adapter), "--merge", "--base", str(character_model), "--output", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    base = AutoModelForCausalLM.from_pretrained(character_model)
    before = logits(base)
    expected = logits(PeftModel.from_pretrained(base, str(adapter)))
    merged = logits(AutoModelForCausalLM.from_pretrained(output))
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(merged, before, atol=1e-2)


def test_a_merged_model_is_complete_without_peft(
    character_model: Path, adapter: Path, tmp_path: Path
) -> None:
    merge(character_model, adapter, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert not list(tmp_path.glob("adapter_*"))
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    ours = AutoTokenizer.from_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(character_model)
    assert ours("1+2").input_ids == theirs("1+2").input_ids
    assert ours.chat_template == theirs.chat_template


def test_the_dtype_of_the_base_is_kept(character_model: Path, adapter: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(character_model, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(character_model).save_pretrained(half)
    merge(half, adapter, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert merged.dtype == torch.bfloat16


def test_a_float32_export_is_not_rounded_even_for_a_bfloat16_base(
    character_model: Path, adapter: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(character_model, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(character_model).save_pretrained(half)
    merge(half, adapter, tmp_path / "merged", "float32")
    base = AutoModelForCausalLM.from_pretrained(half, dtype=torch.float32)
    expected = logits(PeftModel.from_pretrained(base, str(adapter)))
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto"))
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=1e-5)


def test_an_adapter_of_another_model_is_refused(character_model: Path, adapter: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    config = AutoModelForCausalLM.from_pretrained(character_model).config
    config.hidden_size = 32
    AutoModelForCausalLM.from_config(config).save_pretrained(other)
    with pytest.raises(ModelError, match="does not fit"):
        merge(other, adapter, tmp_path / "merged")
