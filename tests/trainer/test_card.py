"""Every adapter in a run's folder has a model card, and names the base model as the job does."""

import json
from pathlib import Path

import pytest
from peft import AutoPeftModelForCausalLM

from rft_trainer.runtime import machine
from tests.trainer.loop_support import config, run


def test_every_adapter_in_a_runs_folder_names_the_base_by_the_jobs_name_and_has_a_card(
    character_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    monkeypatch.chdir(character_model.parent)
    asked = config(character_model, tmp_path / "run")
    name = f"./{character_model.name}"  # the trainer loads the model by its absolute path
    model = asked.spec.model.model_copy(update={"name": name})
    run(asked.model_copy(update={"spec": asked.spec.model_copy(update={"model": model})}))
    adapters = [file.parent for file in (tmp_path / "run").rglob("adapter_config.json")]
    assert {"adapter", "v000003"} <= {adapter.name for adapter in adapters}
    for adapter in adapters:
        assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == name
        card = (adapter / "README.md").read_text()
        assert f"`{name}`" in card
        assert str(character_model) not in card
        assert "## How to load it" in card
    final = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "# tiny, step 3" in final
    assert "## Held-out evaluation" in final
    assert "| 3 | " in final
    assert "1+2" not in final  # the card shows no rows of the dataset
    loaded = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "run" / "adapter"))
    assert loaded.peft_config["default"].base_model_name_or_path == name
