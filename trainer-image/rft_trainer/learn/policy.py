"""The policy: a frozen base model with a LoRA adapter. Only the adapter is trained."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rft_api.parameters import Training
from rft_planner.modelconfig import EXPERTS
from rft_run.errors import ModelError
from rft_trainer import files
from rft_trainer.learn import sharding
from rft_trainer.learn.packing import Completion, MicroBatch, PackedRow, build
from rft_trainer.learn.ranks import ALONE, Team
from rft_trainer.rollout.engine import AdapterVersion

ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
"""Names of the projection layers of attention in the supported architectures."""
_TOWERS = r".*(vision|audio|multi_modal)_.*"
_REFERENCE = "reference"
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class PolicyOptions:
    """Arguments of a policy; equal in all processes of distributed training."""

    folder: Path
    training: Training
    device: str
    dtype: str
    seed: int
    warm_start: Path | None = None


class Policy:
    """Model, adapter and tokenizer of a run; with several processes the model is sharded over them."""

    def __init__(self, options: PolicyOptions, team: Team = ALONE) -> None:
        """Load the base model and add an adapter. Raises ModelError when either cannot be used."""
        self.folder = options.folder
        self.dress: Callable[[Path], None] = lambda _: None
        """Names the base in a saved adapter, and writes its card; the loop, which has the facts, sets it."""
        self.device = torch.device(f"cuda:{team.rank}" if options.device == "cuda" else options.device)
        self._warm = options.warm_start is not None
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(options.folder)
            base = _base(options, leads=team.rank == 0)
        except (OSError, ValueError) as error:
            raise ModelError(f"{options.folder}: {error}") from error
        base.requires_grad_(False)
        if team.size == 1:
            base.to(self.device)
        self.config: Any = base.config.get_text_config()
        self._model: Any = _with_adapter(base, options, leads=team.rank == 0)
        self._inner: Any = self._model.get_base_model()
        if team.size > 1:
            sharding.divide(
                self._model, self._inner.base_model, self.config.num_hidden_layers, self.device, team
            )
        self._model.train()
        if options.device == "cuda":
            self._model.gradient_checkpointing_enable({"use_reentrant": False})
            self._model.enable_input_require_grads()
        self._head_scale = _head_scale(self.config)
        self.shares_prompts = self._check_forward()

    @property
    def context_length(self) -> int | None:
        """The model's own context length in tokens; None where its configuration has none."""
        limit = getattr(self.config, "max_position_embeddings", None)
        return int(limit) if limit else None

    @property
    def hidden_size_for_packing(self) -> int | None:
        """Hidden size, where rollouts of a prompt can be packed into one row; else None."""
        return int(self.config.hidden_size) if self.shares_prompts else None

    def trainable(self) -> list[torch.nn.Parameter]:
        """Return the parameters that the optimizer updates: the adapter's weights, in float32."""
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def output_factors(self) -> list[torch.nn.Parameter]:
        """Return the trained adapter's B matrices: a layer's change is B times A, scaled."""
        named = self._model.named_parameters()
        return [value for name, value in named if value.requires_grad and "lora_B" in name]

    def hidden(self, batch: MicroBatch) -> Tensor:
        """Return the hidden states (N, H) at the positions that predict the completion tokens."""
        output = self._inner.base_model(
            input_ids=batch.tokens_B_T,
            position_ids=batch.positions_B_T,
            attention_mask=self._mask(batch.attention_B_1_T_T),
            use_cache=False,
        )
        hidden_N_H: Tensor = output.last_hidden_state.flatten(0, 1)[batch.source_N]
        return hidden_N_H

    def _mask(self, allowed_B_1_T_T: Tensor | None) -> Tensor | None:
        """Return the mask for attention, on the CPU as floats: else every layer makes its own float copy."""
        if allowed_B_1_T_T is None or self.device.type != "cpu":
            return allowed_B_1_T_T
        mask_B_1_T_T = torch.zeros(allowed_B_1_T_T.shape, dtype=self._inner.dtype)
        return mask_B_1_T_T.masked_fill_(~allowed_B_1_T_T, -torch.inf)

    def head(self, hidden_n_H: Tensor) -> Tensor:
        """Return logits (n, V), not divided by the temperature, in float32 or the model's wider dtype."""
        logits_n_V: Tensor = self._inner.get_output_embeddings()(hidden_n_H)
        logits_n_V = logits_n_V.to(torch.promote_types(logits_n_V.dtype, torch.float32))
        if self._head_scale != 1:  # nearly always 1; skipped, because it costs time forward and backward
            logits_n_V = logits_n_V * self._head_scale
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits_n_V if not cap else torch.tanh(logits_n_V / cap) * cap

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Use the reference policy in the block: adapter disabled, or a frozen copy of the warm start."""
        with torch.no_grad():
            if self._warm:
                self._model.set_adapter(_REFERENCE)
                try:
                    yield
                finally:
                    self._model.set_adapter("default")
                    _freeze(self._model, _REFERENCE)
            else:
                with self._model.disable_adapter():
                    yield

    def save_version(
        self, adapters: Path, number: int, check: Callable[[], None] = lambda: None
    ) -> AdapterVersion:
        """Write the adapter as immutable folder ``v000042``, which ``PeftModel.from_pretrained`` loads.

        ``check`` is called just before the folder is renamed to that, and prevents it by raising.
        """
        return self.save_named(adapters, f"v{number:06d}", check)

    def save_named(self, adapters: Path, name: str, check: Callable[[], None]) -> AdapterVersion:
        """Write the adapter as an immutable folder of this name, as ``save_version`` does."""
        target = adapters / name
        if target.exists():  # left by an unfinished step of an earlier attempt; never used in training
            shutil.rmtree(target)
        with files.new_folder(target, check) as unfinished:
            self.save_adapter(unfinished)
        return AdapterVersion(name, target)

    def save_adapter(self, folder: Path) -> None:
        """Write adapter weights, configuration and model card into an existing folder."""
        self._model.save_pretrained(folder, selected_adapters=["default"])
        self.dress(folder)

    def adapter_state(self) -> dict[str, Tensor]:
        """Return the adapter's weights by name."""
        return dict(get_peft_model_state_dict(self._model, adapter_name="default"))

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Load saved adapter weights. Raises ModelError when their names or shapes do not fit."""
        try:
            result: Any = set_peft_model_state_dict(self._model, state, adapter_name="default")
        except RuntimeError as error:
            raise ModelError(f"the checkpoint's adapter does not fit: {error}") from error
        if result.unexpected_keys:
            raise ModelError(f"the checkpoint's adapter does not fit: {result.unexpected_keys[:3]}")

    @torch.no_grad()
    def _check_forward(self) -> bool:
        """Compare ``hidden`` and ``head`` with the model's own forward pass on short fixed sequences.

        Returns whether rollouts of a prompt may share a row. Raises ModelError where ``head`` of ``hidden``
        is not the model's logits: the architecture then has a computation that this class does not know, and
        training it would silently be wrong.
        """
        prompt, first, second = (5, 6, 7, 8), (9, 10, 11), (12, 13, 14, 15)
        both = tuple(Completion(ids, (0.0,) * len(ids), 0.0) for ids in (first, second))
        expected_N_V = torch.cat(
            [
                self._model(torch.tensor([[*prompt, *ids[:-1]]], device=self.device)).logits[0, 3:]
                for ids in (first, second)
            ]
        )
        expected_N_V = expected_N_V.to(torch.promote_types(expected_N_V.dtype, torch.float32))
        separate = [build([PackedRow(prompt, (completion,))]).to(self.device) for completion in both]
        alone_N_V = torch.cat([self.head(self.hidden(batch)) for batch in separate])
        if not torch.allclose(alone_N_V, expected_N_V, atol=_TOLERANCE, rtol=_TOLERANCE):
            raise ModelError(f"{self.folder}: this architecture computes its logits in an unsupported way")
        try:
            shared_N_V = self.head(self.hidden(build([PackedRow(prompt, both)]).to(self.device)))
        except (RuntimeError, ValueError, TypeError):
            return False
        # In bfloat16 rounding alone exceeds the tolerance of float32. An ignored mask changes logits by 1 or
        # more.
        tolerance = _TOLERANCE if self._inner.dtype == torch.float32 else 0.5
        return torch.allclose(shared_N_V, expected_N_V, atol=tolerance, rtol=tolerance)


def _base(options: PolicyOptions, *, leads: bool) -> Any:
    """Return the base model: in host memory, or on the meta device where the leader sends its weights."""
    kind: Any = AutoModelForCausalLM
    chosen = {"dtype": getattr(torch, options.dtype), "attn_implementation": "sdpa"}
    if leads:
        return kind.from_pretrained(options.folder, **chosen)
    with torch.device("meta"):
        return kind.from_config(AutoConfig.from_pretrained(options.folder), **chosen)


def _with_adapter(base: Any, options: PolicyOptions, *, leads: bool) -> Any:
    """Add a new adapter to the base, or the warm start's adapter and a frozen copy of it as reference."""
    if options.warm_start is None:
        return _fresh(base, options)
    warm_start = str(options.warm_start)
    try:
        if leads:
            model = PeftModel.from_pretrained(base, warm_start, is_trainable=True)
            model.load_adapter(warm_start, adapter_name=_REFERENCE, is_trainable=False)
        else:
            lora = LoraConfig.from_pretrained(warm_start)
            lora.inference_mode = False  # a saved adapter is loaded frozen
            model = get_peft_model(base, lora)
            model.add_adapter(_REFERENCE, lora)
    except (OSError, ValueError) as error:
        raise ModelError(f"{warm_start}: {error}") from error
    found: Any = model.peft_config["default"]
    training = options.training
    if (found.r, found.lora_alpha) != (training.lora_rank, training.lora_alpha):
        raise ModelError(
            f"{warm_start}: rank {found.r} and alpha {found.lora_alpha}, but the job says"
            f" rank {training.lora_rank} and alpha {training.lora_alpha}"
        )
    _freeze(model, _REFERENCE)
    return model


def _fresh(base: Any, options: PolicyOptions) -> Any:
    torch.manual_seed(options.seed)
    try:
        return get_peft_model(base, lora_config(options.training, base.config))
    except ValueError as error:
        raise ModelError(f"no adapter fits this model: {error}") from error


def lora_config(training: Training, config: Any) -> LoraConfig:
    """Return the LoRA configuration of a job for a model with this ``config``.

    For a mixture of experts only the attention is adapted: adapters for all experts would be a hundred times
    as large, and vLLM loads none for the router. Vision towers are left out, because the rows are text only.
    """
    text = config.get_text_config()
    attention = training.lora_targets == "attention" or any(getattr(text, name, 0) for name in EXPERTS)
    return LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        target_modules=list(ATTENTION_LAYERS) if attention else "all-linear",
        exclude_modules=_TOWERS if text is not config else None,
        task_type="CAUSAL_LM",
    )


def _freeze(model: Any, adapter: str) -> None:
    """Freeze an adapter's weights again, because ``set_adapter`` makes the active adapter trainable."""
    for name, parameter in model.named_parameters():
        if f".{adapter}." in name:
            parameter.requires_grad_(False)


def _head_scale(config: Any) -> float:
    """Return the model's own factor of its logits (Cohere's logit_scale, Granite's logits_scaling)."""
    scale = getattr(config, "logit_scale", None) or 1.0
    return float(scale) / float(getattr(config, "logits_scaling", None) or 1.0)
