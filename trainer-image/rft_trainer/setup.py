"""Loads and starts the parts of a run before its first step: rows, graders, sampler, policy, optimizer.

vLLM takes the longest to start, so it starts before the policy is loaded.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rft_api.job import RFTJobSpec
from rft_api.parameters import Sampling
from rft_api.sizes import parameter_count
from rft_api.sources import ModelSource
from rft_graders.scorer import Scorer
from rft_planner.architectures import Untrainable, check_trainable
from rft_planner.memory import USABLE
from rft_planner.modelconfig import UnreadableConfig, from_config
from rft_planner.overlap import overlaps
from rft_planner.shapes import Shape, estimated
from rft_run.config import RunConfig
from rft_run.errors import ConfigurationError, InputsChanged, ModelError
from rft_run.folder import RunFolder
from rft_run.rows.tool_calls import ToolStyle, style_of
from rft_trainer.checkpoint import Checkpoints, Fence
from rft_trainer.data import Prompt
from rft_trainer.data.opening import open_heldout, open_rows
from rft_trainer.data.run_rendering import Rendering
from rft_trainer.data.source import discard
from rft_trainer.data.training import TrainingPrompts
from rft_trainer.engines import base_divided, model_dtype, roles_apart, sampler_share, start_engine, trainers
from rft_trainer.inputs import MODEL, WARM_START, begun_with_commit, refuse_other_inputs
from rft_trainer.learn.gradients import MICRO_BATCH_TOKENS, UpdateSettings
from rft_trainer.learn.objective import MismatchBounds, settings_for
from rft_trainer.learn.optimizer import Schedule, make_optimizer
from rft_trainer.learn.policy import Policy, PolicyOptions
from rft_trainer.learn.ranks import Followers
from rft_trainer.publish import Publisher
from rft_trainer.rollout.advantages import Overlong
from rft_trainer.rollout.engine import (
    Generated,
    Request,
    RolloutEngine,
    SamplingParameters,
    unnoticed,
)
from rft_trainer.rollout.episodes import Episodes
from rft_trainer.rollout.filter import Filter
from rft_trainer.rollout.gateway.dialogue import Dialogue
from rft_trainer.rollout.stops import split_stops
from rft_trainer.rollout.transformers_engine import end_tokens
from rft_trainer.runtime import allocator, machine, models
from rft_trainer.runtime.device import on_this_machine, set_deterministic
from rft_trainer.runtime.loading import load_tokenizer

log = logging.getLogger(__name__)
_USUAL_PARAMETERS = 1e9


class BaseFiles(NamedTuple):
    """The base model on this machine: its folder, its shape, and the longest sequence of the run.

    - ``shape``: the numbers of the model that decide its memory, such as layers and widths.
    - ``context``: the length of the run's longest sequence, in tokens. It is at most the model's context.
    """

    folder: Path
    shape: Shape
    context: int


@dataclass(frozen=True, kw_only=True)
class SamplingParts:
    """The objects that an evaluation uses to sample and grade completions of the held-out prompts."""

    engine: RolloutEngine
    scorer: Scorer
    heldout: list[Prompt]
    sampling: SamplingParameters
    episodes: Episodes | None = None
    """Plays rollouts of several turns. None for a job without an environment."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        requests: Sequence[Request],
        should_stop: Callable[[], bool],
        answered: Callable[[], None] = unnoticed,
    ) -> list[Generated]:
        """Return a completion for each request, in order: a single answer, or a rollout of several turns.

        ``answered`` is called once for each single answer when it arrives, and not for rollouts of several
        turns.
        """
        if self.episodes is None:
            return self.engine.generate(requests, should_stop, answered)
        return self.episodes.generate(prompts, requests, should_stop)


@dataclass(frozen=True, kw_only=True)
class Parts(SamplingParts):
    """The objects that the training loop uses.

    - ``followers``: the other processes of distributed training. There are none with one training process.
    - ``train``: the prompts for training.
    - ``dropped_prompts``: number of prompts that were too long, as far as they are read.
    - ``overlong``: the penalty for long completions.
    """

    policy: Policy
    followers: Followers
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    checkpoints: Checkpoints
    train: TrainingPrompts
    dropped_prompts: int
    update: UpdateSettings
    overlong: Overlong
    ahead: int
    """Number of batches that may be sampled while another one is trained on."""
    publisher: Publisher

    @property
    def together(self) -> int | None:
        """Number of completions that the sampler decodes at the same time. None: batches are sampled one
        after another, so this number is not needed.

        Batches are sampled at the same time if several may be sampled ahead, the sampler can use several
        adapters, and the job has no environment, whose rollouts each need a worker process.
        """
        several = self.ahead > 1 and self.episodes is None and self.engine.adapters >= self.ahead
        return self.engine.concurrency if several else None


def prepare(config: RunConfig, fence: Fence, stack: ExitStack, should_stop: Callable[[], bool]) -> Parts:
    """Load and start everything that the training loop needs: rows, graders, sampler, policy, optimizer.

    ``stack`` closes these objects at the end of the run. vLLM starts in the background before the policy is
    loaded, and the first request waits until vLLM is ready. If vLLM and the policy use the same GPU, the
    policy is loaded only when vLLM is ready. Raises a TrainerError, such as ModelError, DataError,
    UserCodeError or SamplerError.
    """
    config = _settled(config)
    spec, effective = config.spec, config.effective
    run_dir = Path(config.run_dir)
    if config.device != "cpu":
        _cap_trainer_gpu_memory(config)
    followers = Followers(trainers(config), config.device, _path(config.scratch_dir))
    stack.callback(followers.close)
    scorer = stack.enter_context(Scorer.from_config(config))
    rows = open_rows(config, stack, should_stop)

    base = _base_files(config, begun_with_commit(RunFolder(run_dir)) or spec.model.revision)
    folder, shape, context = base
    warm_start = warm_start_of(config)
    models_used = {MODEL: folder} | ({WARM_START: warm_start} if warm_start else {})
    try:
        refuse_other_inputs(config, rows.files, models_used, fence.check)
    except InputsChanged:
        discard(RunFolder(run_dir).data)  # so that the next attempt reads the sources again
        raise
    engine = start_engine(config, folder, shape, context, should_stop)
    stack.callback(engine.close)
    if config.device != "cpu" and not roles_apart(config):
        # A sampler that starts measures the free memory of its GPU, which must not change meanwhile.
        engine.wait_until_ready()
    dtype = model_dtype(config)
    options = PolicyOptions(
        folder,
        spec.training,
        config.device,
        dtype,
        effective.seed,
        warm_start,
        context,
        divided=base_divided(config),
    )
    with followers.watched():
        policy = Policy(options, followers.gather(options))
    budget = context - spec.sampling.max_tokens
    prompts = rows.rendered(
        policy.tokenizer, spec.model.chat_template_args, budget, _tool_style(spec, policy.tokenizer)
    )
    scorer.ready(should_stop)
    optimizer = make_optimizer(policy.trainable(), spec.training)
    sampling = sampling_parameters(spec.sampling, policy.tokenizer)
    ahead = spec.training.max_staleness if overlaps(spec, roles_apart(config)) else 0
    return Parts(
        engine=engine,
        scorer=scorer,
        policy=policy,
        followers=followers,
        optimizer=optimizer,
        schedule=Schedule(optimizer, spec.training),
        checkpoints=Checkpoints(RunFolder(run_dir), spec.checkpoint.keep, fence),
        train=prompts.train,
        heldout=prompts.heldout,
        dropped_prompts=prompts.dropped,
        sampling=sampling,
        update=update_settings(config, sampling),
        overlong=Overlong(effective.overlong_penalty, spec.rollout_tokens),
        ahead=ahead,
        publisher=Publisher(policy, engine, RunFolder(run_dir), fence.check, ahead),
        episodes=_episodes(config, base, policy.tokenizer, engine, scorer),
    )


def prepare_sampling(config: RunConfig, stack: ExitStack, should_stop: Callable[[], bool]) -> SamplingParts:
    """Load and start what an evaluation without training needs: held-out rows, graders and sampler.

    ``stack`` closes these objects at the end. They are set up as in a training run with this configuration.
    Raises a TrainerError, such as ModelError, DataError, UserCodeError or SamplerError.
    """
    config = _settled(config)
    spec = config.spec
    scorer = stack.enter_context(Scorer.from_config(config))
    rows = open_heldout(config, stack, should_stop)
    base = _base_files(config, spec.model.revision)
    try:
        tokenizer = load_tokenizer(base.folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{base.folder}: {error}") from error
    budget = base.context - spec.sampling.max_tokens
    style = _tool_style(spec, tokenizer)
    heldout = rows.rendered(tokenizer, spec.model.chat_template_args, budget, style).heldout
    sampling = sampling_parameters(spec.sampling, tokenizer)
    engine = start_engine(config, base.folder, base.shape, base.context, should_stop)
    stack.callback(engine.close)
    scorer.ready(should_stop)
    episodes = _episodes(config, base, tokenizer, engine, scorer)
    return SamplingParts(engine=engine, scorer=scorer, heldout=heldout, sampling=sampling, episodes=episodes)


def warm_start_of(config: RunConfig) -> Path | None:
    """Return the folder of the adapter from which training starts. None: it starts from the base model."""
    return _path(config.spec.model.adapter.path if config.spec.model.adapter else None)


def _settled(config: RunConfig) -> RunConfig:
    """Set the number of threads, torch's deterministic mode and the memory allocator of this process.

    Return the configuration, adapted to the devices of this machine.
    """
    config = on_this_machine(config)
    torch.set_num_threads(machine.usable_cores())
    set_deterministic(config.spec.training.deterministic, config.device)
    if config.device == "cpu" and not allocator.preloaded():
        machine.give_large_blocks_back()
    return config


def _base_files(config: RunConfig, revision: str | None) -> BaseFiles:
    """Find or download the base model, and read its shape (layers, widths) and its context length.

    ``revision``: the branch, tag or commit on the hub. Raises ModelError if the model is missing or cannot be
    used. Raises ConfigurationError if ``maxTokens`` leaves no room for a prompt in the context.
    """
    spec = config.spec
    folder = models.resolve(spec.model.name, revision)
    shape = _shape(folder, spec.model)
    context = min(config.effective.max_context_length, shape.context)
    if context <= spec.sampling.max_tokens:
        raise ConfigurationError(
            f"spec.sampling.maxTokens: {spec.sampling.max_tokens} leaves no room for a prompt in the context"
            f" of {context} tokens; use less than {context}"
        )
    return BaseFiles(folder, shape, context)


def _tool_style(spec: RFTJobSpec, tokenizer: Any) -> ToolStyle:
    """Return how the tools of a row are shown to the model: by its chat template, or as text in messages.

    A job's environment decides this. Without an environment the chat template shows the tools.
    """
    return style_of(tokenizer, spec.environment.tools) if spec.environment is not None else "template"


def _episodes(
    config: RunConfig, base: BaseFiles, tokenizer: Any, engine: RolloutEngine, scorer: Scorer
) -> Episodes | None:
    """Return the object that plays rollouts of several turns with the job's environment.

    Return None if the job has no environment. Raises ConfigurationError if the environment's style of tools
    does not fit the tokenizer.
    """
    environment = config.spec.environment
    if environment is None:
        return None
    if environment.tools == "template" and getattr(tokenizer, "response_template", None) is None:
        raise ConfigurationError(
            "spec.environment.tools: template needs a response_template in the model's tokenizer, to read"
            " tool calls, but this tokenizer has none; write tools: text, or leave tools out"
        )
    arguments: dict[str, Any] = dict(config.spec.model.chat_template_args or {})
    if "strftime_now" in str(tokenizer.chat_template):
        arguments["strftime_now"] = Rendering.of_run(RunFolder(Path(config.run_dir))).date
    stops = split_stops(config.spec.sampling.stop, tokenizer).token_ids
    ends = end_tokens(tokenizer.eos_token_id, _generation_ends(base.folder)) | set(stops)
    dialogue = Dialogue(
        tokenizer, arguments, frozenset(ends), environment.tools, vocabulary=base.shape.vocabulary
    )
    together = config.spec.training.deterministic
    return Episodes(environment, dialogue, engine, scorer, base.context, together=together)


def _generation_ends(folder: Path) -> int | list[int] | None:
    """Return the end-of-sequence token ids in a model's generation_config.json. None: it names none."""
    from transformers import GenerationConfig

    try:
        ends: int | list[int] | None = GenerationConfig.from_pretrained(
            folder, trust_remote_code=False
        ).eos_token_id
    except OSError:
        return None
    return ends


def _cap_trainer_gpu_memory(config: RunConfig) -> None:
    """Limit torch to the trainer's share of the GPU's memory, if trainer and vLLM use the same GPU.

    vLLM uses the rest. If the trainer needs more memory than planned, the trainer fails and not vLLM.
    """
    share = trainer_share(config)
    if share is not None:
        torch.cuda.set_per_process_memory_fraction(share)


def trainer_share(config: RunConfig) -> float | None:
    """Return the share of a GPU's memory, from 0 to 1, that the trainer may use beside vLLM.

    None: there is no limit, for example because vLLM uses other GPUs.
    """
    if config.spec.sampling.engine != "vllm" or roles_apart(config):
        return None
    share = USABLE - sampler_share(config)
    return share if share > 0 else None


def sampling_parameters(sampling: Sampling, tokenizer: Any) -> SamplingParameters:
    """Return the job's sampling parameters in the form that the sampler needs.

    A stop text that is a special token becomes a token id. Raises ConfigurationError for a stop text that can
    never occur.
    """
    texts, token_ids = split_stops(sampling.stop, tokenizer)
    return SamplingParameters(
        sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens, texts, token_ids
    )


def update_settings(config: RunConfig, sampling: SamplingParameters) -> UpdateSettings:
    """Return the settings of the policy updates, such as loss, clipping and size of the micro-batches.

    ``sampling``: the sampling parameters, because log-probs are computed with the same temperature.
    """
    training, effective = config.spec.training, config.effective
    drawn = sampling.effective()
    planned = config.plan.micro_batch_tokens if config.plan is not None else None
    return UpdateSettings(
        filter=Filter(drawn.temperature, drawn.top_k, drawn.top_p),
        loss=settings_for(
            training.objective,
            effective.clip_low,
            effective.clip_high,
            effective.kl_beta,
            effective.loss_aggregation,
        ),
        max_tokens=config.spec.rollout_tokens,
        micro_batch_tokens=planned or MICRO_BATCH_TOKENS[config.device],
        longest_shared_row=planned,
        max_grad_norm=training.max_grad_norm,
        mask_truncated=training.mask_truncated,
        mini_batches=training.updates_per_batch,
        stale=MismatchBounds(
            training.stale_token_low,
            training.stale_token_high,
            training.stale_sequence_low,
            training.stale_sequence_high,
        ),
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text is not None else None


def _shape(folder: Path, model: ModelSource) -> Shape:
    """Return the numbers of a model that decide its memory, such as layers and widths, from config.json.

    They are estimated from the number of parameters if config.json lacks values. Raises ModelError if
    config.json cannot be read, or if the model cannot be trained.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: {error}") from error
    try:
        check_trainable(config.to_dict(), model.name)
    except Untrainable as error:
        raise ModelError(str(error)) from error
    try:
        return from_config(config.to_dict())
    except UnreadableConfig as error:
        log.warning("%s; the model's shape is estimated from its number of parameters", error)
    guess = estimated(parameter_count(model.parameters or model.name) or _USUAL_PARAMETERS)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return replace(guess, context=context or guess.context)
