"""Models and adapters are loaded only from safetensors files. Code in their folders is never executed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2.exceptions import SecurityError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from rft_api.parameters import Training
from rft_run.errors import ModelError
from rft_trainer.export import merge
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.rollout.engine import AdapterVersion
from rft_trainer.rollout.transformers_engine import TransformersEngine
from rft_trainer.runtime.loading import check_adapter, load_adapter, load_base, load_tokenizer

TRAINING = Training(lora_rank=4, lora_alpha=8)


class Runs:
    """An object that runs code when it is unpickled: the code creates ``file``."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._file}",)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return the path of the file that the hostile code creates when it runs."""
    return tmp_path / "ran"


@pytest.fixture
def model(character_model: Path, tmp_path: Path) -> Path:
    """Return the path of a copy of the model. A test may change this copy."""
    return Path(shutil.copytree(character_model, tmp_path / "model"))


@pytest.fixture
def adapter(character_model: Path, tmp_path: Path) -> Path:
    """Return the path of an adapter that the trainer wrote."""
    policy = Policy(PolicyOptions(character_model, TRAINING, "cpu", "float32", 1))
    return policy.save_version(tmp_path, 1).path


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def names_a_module(adapter: Path, ran: Path) -> None:
    """Write an adapter's configuration, by which PEFT would import layers from a hostile module."""
    (adapter.parent / "evil_layers.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    megatron = {"model_parallel_size": 1}
    change(adapter / "adapter_config.json", megatron_core="evil_layers", megatron_config=megatron)


def has_a_tokenizer_with_code(adapter: Path, _ran: Path) -> None:
    other = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 1, "tokenizer_name_or_path": "evil/model"}
    change(adapter / "adapter_config.json", **other, tokenizer_kwargs={"trust_remote_code": True})


def maps_to_a_module(adapter: Path, _ran: Path) -> None:
    mapping = {"base_model_class": "Model", "parent_library": "evil_layers"}
    change(adapter / "adapter_config.json", auto_mapping=mapping)


def has_a_class_of_its_own(adapter: Path, _ran: Path) -> None:
    change(adapter / "adapter_config.json", auto_map={"AutoModel": "modeling.Model"})


def is_a_pickle(adapter: Path, ran: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    torch.save({**weights, "x": Runs(ran)}, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()


ADAPTERS = [
    (names_a_module, 'megatron_config is {"model_parallel_size": 1}'),
    (has_a_tokenizer_with_code, 'peft_type is "PROMPT_TUNING", and only'),
    (maps_to_a_module, "auto_mapping is"),
    (has_a_class_of_its_own, "auto_map is"),
    (is_a_pickle, "has no adapter_model.safetensors"),
]


@pytest.mark.parametrize(("spoil", "said"), ADAPTERS)
def test_an_adapter_that_could_run_code_is_refused_wherever_one_is_loaded(
    character_model: Path,
    adapter: Path,
    ran: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, Path], None],
    said: str,
) -> None:
    monkeypatch.syspath_prepend(str(adapter.parent))
    spoil(adapter, ran)
    options = PolicyOptions(character_model, TRAINING, "cpu", "float32", 1, warm_start=adapter)
    engine = TransformersEngine(character_model, "cpu", "float32")
    uses: tuple[Callable[[], Any], ...] = (
        lambda: Policy(options),
        lambda: engine.use_adapter(AdapterVersion("v1", adapter)),
        lambda: merge(character_model, adapter, adapter.parent / "merged"),
    )
    for use in uses:
        with pytest.raises((ModelError, ValueError)) as error:
            use()
        assert said in str(error.value)
    assert not ran.exists()


def test_the_adapters_of_the_trainer_and_of_peft_are_loaded(character_model: Path, adapter: Path) -> None:
    loaded = load_adapter(load_base(character_model, torch.float32), adapter)
    assert loaded.peft_config["default"].r == 4
    library = "transformers.models.llama.modeling_llama"
    mapping = {"base_model_class": "LlamaForCausalLM", "parent_library": library}
    change(adapter / "adapter_config.json", auto_mapping=mapping, of_a_newer_release=False, another=3)
    check_adapter(adapter)
    check_adapter(Path(__file__).parents[1] / "stored" / "c5ea54e" / "whole" / "adapter")


def code_of_a_class(model: Path, ran: Path) -> None:
    """Change the model's config.json, so that it names a class in a Python file of the model's folder."""
    (model / "modeling_mine.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Config: ...\n")
    kinds = {"AutoConfig": "modeling_mine.Config", "AutoModelForCausalLM": "modeling_mine.Model"}
    change(model / "config.json", model_type="mine", architectures=["Mine"], auto_map=kinds)


def code_of_a_tokenizer(model: Path, ran: Path) -> None:
    (model / "tokenization_mine.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Tokenizer: ...\n")
    kinds = {"AutoTokenizer": ["tokenization_mine.Tokenizer", None]}
    change(model / "tokenizer_config.json", tokenizer_class="Mine", auto_map=kinds)


def weights_in_a_pickle(model: Path, ran: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({"x": Runs(ran)}, model / "pytorch_model.bin")


@pytest.mark.parametrize("spoil", [code_of_a_class, code_of_a_tokenizer, weights_in_a_pickle])
def test_code_of_a_model_does_not_run(model: Path, ran: Path, spoil: Callable[[Path, Path], None]) -> None:
    spoil(model, ran)
    said = str(model)
    try:
        Policy(PolicyOptions(model, TRAINING, "cpu", "float32", 1))
    except ModelError as error:
        said = str(error)
    assert str(model) in said
    assert not ran.exists()


def test_a_model_with_a_pickle_alone_is_refused_with_what_to_do(model: Path, ran: Path) -> None:
    weights_in_a_pickle(model, ran)
    with pytest.raises(ModelError, match=r"the pickle pytorch_model.bin\. .*save_pretrained"):
        Policy(PolicyOptions(model, TRAINING, "cpu", "float32", 1))


@pytest.mark.timeout(60)
def test_nobody_is_asked_whether_code_of_a_model_may_run(model: Path, ran: Path) -> None:
    code_of_a_class(model, ran)
    program = (
        "import sys; from pathlib import Path; import torch;"
        " from rft_trainer.runtime.loading import load_base; load_base(Path(sys.argv[1]), torch.float32)"
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (root / "operator", root / "trainer-image")))
    done = subprocess.run(
        [sys.executable, "-c", program, str(model)],
        input="y\n" * 10,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "[y/N]" not in done.stdout + done.stderr
    assert not ran.exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ messages.append(1) }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
    ],
)
def test_a_chat_template_reaches_nothing_but_the_conversation(character_model: Path, template: str) -> None:
    tokenizer = load_tokenizer(character_model)
    tokenizer.chat_template = template
    with pytest.raises(SecurityError):
        tokenizer.apply_chat_template([{"role": "user", "content": "1"}], tokenize=False)


def test_models_that_threads_load_at_the_same_time_keep_their_tied_weights(tmp_path: Path) -> None:
    sizes: Any = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    kind: Any = AutoModelForCausalLM
    kind.from_config(config).save_pretrained(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(lambda _: load_base(tmp_path, torch.float32), range(40)))
    for model in (*loaded, load_base(tmp_path, torch.bfloat16)):
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert not model.lm_head.weight.is_meta
