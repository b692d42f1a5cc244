"""The policy: a frozen base model with a LoRA adapter. Only the adapter is trained."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from rft_api.parameters import Training
from rft_planner.modelconfig import adapts_attention_only
from rft_run.errors import ModelError
from rft_trainer import files
from rft_trainer.learn import arithmetic, attention, masks, sharding
from rft_trainer.learn.forward_check import WINDOW, checked_texts, hides, is_rounding, logit_difference
from rft_trainer.learn.packing import MicroBatch, PackedRow, build
from rft_trainer.learn.ranks import ALONE, Team
from rft_trainer.rollout.engine import AdapterVersion
from rft_trainer.runtime.loading import check_adapter, load_adapter, load_base, load_tokenizer

log = logging.getLogger(__name__)
ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
"""Names of the projection layers of attention in the supported architectures."""
_TOWERS = r".*(vision|audio|multi_modal)_.*"
_REFERENCE = "reference"
_WINDOWS = ("sliding_window", "attention_chunk_size")
"""Fields of a model's configuration with the size of an attention window, in tokens."""


@dataclass(frozen=True)
class PolicyOptions:
    """Options for making a ``Policy``. They are equal in all processes of distributed training.

    - ``folder``: the folder of the base model.
    - ``device``: "cpu" or "cuda".
    - ``dtype``: the name of a torch dtype for the base model, such as "bfloat16".
    - ``seed``: the seed for the initial weights of a new adapter.
    - ``warm_start``: the folder of the adapter from which training starts. None: a new adapter.
    - ``context``: length of the run's longest sequence, in tokens. None: the model's context length.
    - ``divided``: whether several processes shard the base model. If not, each process has the whole base.
    """

    folder: Path
    training: Training
    device: str
    dtype: str
    seed: int
    warm_start: Path | None = None
    context: int | None = None
    divided: bool = True


class Policy:
    """The policy of a run: a frozen base model, the LoRA adapter that is trained, and the tokenizer.

    In distributed training each process has the whole base model, or the processes shard it. Each process has
    the whole adapter.
    """

    def __init__(self, options: PolicyOptions, team: Team = ALONE) -> None:
        """Load the base model and add an adapter. Raises ModelError if base model or adapter cannot be used.

        ``team``: the rank of this process, and the number of processes of distributed training.
        """
        self.folder = options.folder
        self.dress: Callable[[Path], None] = lambda _: None
        """Function that adds the base model's name and a model card to a saved adapter, given its folder.

        The class ``Run`` sets it.
        """
        self.device = torch.device(f"cuda:{team.rank}" if options.device == "cuda" else options.device)
        self._warm = options.warm_start is not None
        try:
            self.tokenizer: Any = load_tokenizer(options.folder)
            base = _base(options, leads=team.rank == 0)
        except (OSError, ValueError) as error:
            raise ModelError(f"{options.folder}: {error}") from error
        base.requires_grad_(False)
        if team.size == 1:
            base.to(self.device)
        self.config: Any = base.config.get_text_config()
        self._model: Any = _with_adapter(base, options, leads=team.rank == 0)
        self._inner: Any = self._model.get_base_model()
        if team.size > 1 and options.divided:
            layers = self.config.num_hidden_layers
            sharding.divide(self._model, self._inner.base_model, layers, self.device, team)
        elif team.size > 1:
            sharding.replicate(self._model, self.device, team)
        self._model.train()
        if options.device == "cuda":
            self._model.gradient_checkpointing_enable({"use_reentrant": False})
            self._model.enable_input_require_grads()
        self._head_scale = _head_scale(self.config)
        self._rounds = options.device == "cuda" and self._inner.dtype == torch.bfloat16
        if self._rounds:
            arithmetic.keep_input_dtype(self._model)
        self.forms = attention.DENSE
        self._texts = checked_texts(self.tokenizer)
        self.shares_prompts = self._check_forward()
        self._use(attention.choose(self._inner, self.device, self._inner.dtype))

    @property
    def context_length(self) -> int | None:
        """The model's own context length in tokens. None: the model's configuration has no such value."""
        limit = getattr(self.config, "max_position_embeddings", None)
        return int(limit) if limit else None

    @property
    def hidden_size_for_packing(self) -> int | None:
        """Hidden size of the model. None: rollouts of the same prompt cannot be computed in one row."""
        return int(self.config.hidden_size) if self.shares_prompts else None

    def trainable(self) -> list[torch.nn.Parameter]:
        """Return the parameters that the optimizer updates: the adapter's weights, in float32."""
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def output_factors(self) -> list[torch.nn.Parameter]:
        """Return the adapter's LoRA B matrices. LoRA adds scale · B · A to the weights of a layer."""
        named = self._model.named_parameters()
        return [value for name, value in named if value.requires_grad and "lora_B" in name]

    def batch(self, rows: Sequence[PackedRow]) -> MicroBatch:
        """Build the tensors of a micro-batch with these rows, on the policy's device.

        The rows are padded or concatenated, as the policy's attention implementation needs them.
        """
        return build(rows, flat=self.forms.flat).to(self.device)

    def hidden(self, batch: MicroBatch) -> Tensor:
        """Compute the policy's last hidden states (N, H) at the positions that predict the N trained tokens.

        H is the hidden size.
        """
        with self._masks(batch) as attention_mask_B_T, self._arithmetic():
            output = self._inner.base_model(
                input_ids=batch.tokens_B_T,
                position_ids=batch.positions_B_T,
                attention_mask=attention_mask_B_T,
                use_cache=False,
            )
        hidden_N_H: Tensor = output.last_hidden_state.flatten(0, 1)[batch.source_N]
        return hidden_N_H

    def _arithmetic(self) -> AbstractContextManager[None]:
        """Return a context manager that sets the dtype in which the adapter computes in a forward pass.

        If the base model is in bfloat16 on a GPU, the adapter computes in bfloat16 too. Else nothing changes.
        """
        return arithmetic.rounded(self.device.type) if self._rounds else nullcontext()

    @contextmanager
    def _masks(self, batch: MicroBatch) -> Iterator[Tensor | None]:
        """In the ``with`` block, the model computes attention with the mask of ``batch``.

        Yields the value that the caller must pass to the model as ``attention_mask``.
        """
        if batch.flat is None:
            with masks.sharing(batch.attention_B_1_T_T, batch.positions_B_T) as attention_mask_B_T:
                yield attention_mask_B_T
            return
        with attention.using(batch.flat, self.forms):
            yield torch.ones_like(batch.positions_B_T)

    def head(self, hidden_n_H: Tensor) -> Tensor:
        """Return the logits (n, V) of n hidden states, over the V tokens of the vocabulary.

        They are not yet divided by the temperature. Their dtype is float32 or wider.
        """
        logits_n_V: Tensor = self._inner.get_output_embeddings()(hidden_n_H)
        logits_n_V = logits_n_V.to(torch.promote_types(logits_n_V.dtype, torch.float32))
        if self._head_scale != 1:  # nearly always 1, and a product costs time in both passes
            logits_n_V = logits_n_V * self._head_scale
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits_n_V if not cap else torch.tanh(logits_n_V / cap) * cap

    @contextmanager
    def reference(self) -> Iterator[None]:
        """In the ``with`` block, compute with the reference policy of the KL term, without gradients.

        The reference is the base model alone. After a warm start, it is the base model with a frozen copy of
        the adapter from which training started.
        """
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
        """Write the adapter with version ``number`` into a new folder of ``adapters``, such as ``v000042``.

        ``PeftModel.from_pretrained`` can read this folder. It has a temporary name until it is complete. Then
        ``check`` is called. If ``check`` raises an error, the folder does not get its final name. Raises
        VolumeError if the folder cannot be written.
        """
        return self.save_named(adapters, version_name(number), check)

    def save_named(self, adapters: Path, name: str, check: Callable[[], None]) -> AdapterVersion:
        """Write the adapter into a folder ``name`` in ``adapters``. Replace an older folder of this name.

        The folder has a temporary name until it is complete. Then ``check`` is called. If ``check`` raises an
        error, the folder does not get its final name. Raises VolumeError if the folder cannot be written.
        """
        target = adapters / name
        if target.exists():  # left by an unfinished step of an earlier attempt; never used in training
            with files.volume_errors(target):
                shutil.rmtree(target)
        with files.new_folder(target, check) as unfinished:
            self.save_adapter(unfinished)
        return AdapterVersion(name, target)

    def save_adapter(self, folder: Path) -> None:
        """Write adapter weights, configuration and model card into an existing folder."""
        self._model.save_pretrained(folder, selected_adapters=["default"])
        self.dress(folder)

    def save_start(self, adapters: Path, check: Callable[[], None]) -> AdapterVersion | None:
        """Write the adapter from which training started into the folder ``start`` of ``adapters``.

        Return None, and write nothing, if training started from the base model alone. ``check`` is called
        before the folder gets its name, and may raise an error. Raises VolumeError if the folder cannot be
        written.
        """
        if not self._warm:
            return None
        target = adapters / "start"
        shutil.rmtree(target, ignore_errors=True)  # of an earlier attempt
        with files.new_folder(target, check) as unfinished:
            self._model.save_pretrained(unfinished, selected_adapters=[_REFERENCE])
        return AdapterVersion(target.name, target / _REFERENCE)

    def adapter_state(self) -> dict[str, Tensor]:
        """Return the weights of the trained adapter, by name, for a checkpoint."""
        return dict(get_peft_model_state_dict(self._model, adapter_name="default"))

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Set the weights of the trained adapter to those of a checkpoint, by name.

        Raises ModelError if their names or shapes do not fit the model.
        """
        try:
            result: Any = set_peft_model_state_dict(self._model, state, adapter_name="default")
        except RuntimeError as error:
            raise ModelError(
                f"the checkpoint's adapter does not fit the model: {error}; set spec.model, loraRank and"
                " loraTargets to the values with which the checkpoint was made, or start a new run"
            ) from error
        if result.unexpected_keys:
            names = result.unexpected_keys[:3]
            raise ModelError(
                f"the checkpoint's adapter does not fit the model, which has no weights {names}; set"
                " spec.model and loraTargets to the values with which the checkpoint was made, or start a new"
                " run"
            )

    def _use(self, forms: attention.Forms) -> None:
        """Make the model compute attention with ``forms``, if two checks with short texts succeed.

        First, the logits must be those of the model's own forward pass, apart from rounding. Second, the
        backward pass must work. If a check fails, keep dense masks and log a warning.
        """
        if forms == attention.DENSE:
            return
        usual = self._inner.config._attn_implementation
        self.forms = forms
        self._inner.set_attn_implementation(attention.NAME)
        try:
            if self._check_forward(usual):
                self._try_backward()
                self.shares_prompts = True
                return
            problem: object = "logits of rows with a shared prompt differ"
        except (ModelError, RuntimeError, ValueError, TypeError, LookupError, ImportError) as error:
            problem = error
        said = (
            "%s: attention is computed with dense masks, which is slow for long rows, because %s failed: %s"
        )
        log.warning(said, self.folder, forms, problem)
        self.forms = attention.DENSE
        self._inner.set_attn_implementation(usual)

    def _try_backward(self) -> None:
        """Compute gradients of short rows, and discard them.

        So an attention kernel without a backward pass fails here, and not during training.
        """
        for row in (self._texts.row(0), self._texts.row()):
            self._logits(row).sum().backward()  # type: ignore[no-untyped-call]
        for parameter in self.trainable():
            parameter.grad = None

    @torch.no_grad()
    def _check_forward(self, usual: str | None = None) -> bool:
        """Return whether several rollouts of a prompt may share a row.

        Compares the logits of this class with those of the model's own forward pass, on short texts.
        Raises ModelError if they differ even without shared rows. Then this class does not support the
        architecture, and training would be wrong without an error. ``usual``: the attention implementation
        for the model's own forward pass. None: all forward passes use the one that is set in the model.
        """
        texts, dtype = self._texts, self._inner.dtype
        with short_windows(self.config):
            with attention.implementation(self._inner, usual) if usual else nullcontext():
                own = [self._own_logits((*texts.prompt, *ids[:-1])) for ids in texts.completions]
                expected_N_V = torch.cat([logits[len(texts.prompt) - 1 :] for logits in own])
                tokens, places = texts.joined()
                visible = logit_difference(self._own_logits(tokens)[places], expected_N_V)
            apart_N_V = torch.cat([self._logits(texts.row(i)) for i in range(len(texts.completions))])
            alone = logit_difference(apart_N_V, expected_N_V)
            # Without another implementation both forward passes run the same kernels, and round equally.
            if not is_rounding(alone, dtype if usual else torch.float32):
                raise ModelError(
                    f"{self.folder}: this architecture is not supported: the trainer's logits differ from the"
                    f" model's own by {alone.largest:.3g}"
                )
            try:
                shared = logit_difference(self._logits(texts.row()), expected_N_V)
            except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
                log.warning("%s: rollouts cannot share the computation of a prompt: %s", self.folder, error)
                return False
        if not hides(shared, visible, dtype):
            log.warning(
                "%s: each rollout computes its prompt again: in shared rows, logits would change by %.3g on"
                " average, and by %.3g without a mask",
                self.folder, shared.mean, visible.mean,
            )  # fmt: skip
            return False
        return True

    def _own_logits(self, tokens: tuple[int, ...]) -> Tensor:
        """Return the logits (T, V) at all positions of a text, by the model's own forward pass."""
        with self._arithmetic():
            logits_T_V: Tensor = self._model(
                torch.tensor([tokens], device=self.device), use_cache=False
            ).logits[0]
        return logits_T_V.to(torch.promote_types(logits_T_V.dtype, torch.float32))

    def _logits(self, row: PackedRow) -> Tensor:
        return self.head(self.hidden(self.batch([row])))


@contextmanager
def short_windows(config: Any, window: int = WINDOW) -> Iterator[None]:
    """In the ``with`` block, limit the attention windows in a model's ``config`` to ``window`` tokens.

    So a check with short texts also finds errors of attention windows.
    """
    longer = {name: value for name in _WINDOWS if (value := getattr(config, name, None)) and value > window}
    try:
        for name in longer:
            setattr(config, name, window)
        yield
    finally:
        for name, value in longer.items():
            setattr(config, name, value)


def _base(options: PolicyOptions, *, leads: bool) -> Any:
    """Return the base model. ``leads``: whether this process is the leader (rank 0).

    The leader gets the model in host memory. The other processes get a model without weights, on torch's meta
    device.
    """
    return load_base(options.folder, getattr(torch, options.dtype), options.context, weights=leads)


def _with_adapter(base: Any, options: PolicyOptions, *, leads: bool) -> Any:
    """Return the base model with a new adapter, or with the adapter from which training starts (warm start).

    The adapter of a warm start is added twice. The second copy is frozen, for the reference policy of the KL
    term. ``leads``: whether this process is the leader (rank 0), which loads the weights. Raises ModelError
    if the adapter cannot be loaded, or has another rank or alpha than the job.
    """
    if options.warm_start is None:
        return _fresh(base, options)
    warm_start = str(options.warm_start)
    try:
        if leads:
            model = load_adapter(base, options.warm_start, trainable=True)
            model.load_adapter(warm_start, adapter_name=_REFERENCE, is_trainable=False)
        else:
            check_adapter(options.warm_start)
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
            f"{warm_start}: the adapter has rank {found.r} and alpha {found.lora_alpha}, but the job has"
            f" loraRank {training.lora_rank} and loraAlpha {training.lora_alpha}: set"
            " spec.training.loraRank and spec.training.loraAlpha to the adapter's values"
        )
    _freeze(model, _REFERENCE)
    return model


def _fresh(base: Any, options: PolicyOptions) -> Any:
    torch.manual_seed(options.seed)
    try:
        return get_peft_model(base, lora_config(options.training, base.config))
    except ValueError as error:
        raise ModelError(f"LoRA cannot be applied to this model: {error}") from error


def lora_config(training: Training, config: Any) -> LoraConfig:
    """Return the LoRA configuration of a job for a model with this ``config``.

    In two kinds of models only the attention layers get an adapter:

    - Mixtures of experts: adapters for all experts would be a hundred times as large. vLLM loads no adapter
      for the router.
    - GLM-4: the gate and up projections are one matrix, for which vLLM loads no adapter.

    Layers for images and audio get no adapter, because the training data has only text.
    """
    text = config.get_text_config()
    attention = training.lora_targets == "attention" or adapts_attention_only(text.to_dict())
    return LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        target_modules=list(ATTENTION_LAYERS) if attention else "all-linear",
        exclude_modules=_TOWERS if text is not config else None,
        task_type="CAUSAL_LM",
    )


def _freeze(model: Any, adapter: str) -> None:
    """Freeze the weights of an adapter of the model, because PEFT's ``set_adapter`` makes them trainable."""
    for name, parameter in model.named_parameters():
        if f".{adapter}." in name:
            parameter.requires_grad_(False)


def _head_scale(config: Any) -> float:
    """Return the factor by which the output layer's result is multiplied to get the model's logits.

    It is ``logit_scale`` in Cohere's models, and 1 / ``logits_scaling`` in Granite. Else it is 1.
    """
    scale = getattr(config, "logit_scale", None) or 1.0
    return float(scale) / float(getattr(config, "logits_scaling", None) or 1.0)


def version_name(number: int) -> str:
    """Return the name of an adapter version and of its folder, such as ``v000042``."""
    return f"v{number:06d}"
