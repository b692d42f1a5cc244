"""The pydantic classes for the status of an RFTJob. In a cluster, only the operator writes the status."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from rft_api.base import DATE_TIME, Int, Model, map_by
from rft_api.conditions import MAX_MESSAGE, Condition, Phase
from rft_api.parameters import Dtype

Device = Literal["cpu", "cuda"]

MAX_HISTORY = 50
"""Maximum number of points of the reward curve in the status."""


class Inherited(Model):
    """A field that the job leaves out, and the value that it inherits from the platform's defaults."""

    path: str = Field(description="Path of the field, such as spec.resources.tolerations.")
    value: str = Field(description="Inherited value. A value that is not a text is written as JSON.")
    from_: str = Field(
        alias="from",
        description="Path of the default in the chart's values, such as jobDefaults.resources.tolerations.",
    )


class Effective(Model):
    """The values that a run really uses for parameters that may be absent in the spec.

    Each is the value in the spec, or a derived value if the spec has none.
    """

    seed: Int = Field(description="Seed of the run.")
    max_context_length: Int = Field(description="Maximum length of prompt plus completion, in tokens.")
    clip_low: float | None = Field(
        None,
        description=(
            "Lower clip distance of the probability ratio. Absent if the ratio is not clipped below."
        ),
    )
    clip_high: float = Field(description="Upper clip distance of the probability ratio.")
    kl_beta: float = Field(description="Weight of the KL term.")
    loss_aggregation: Literal["token", "sequence", "maxTokens"] = Field(
        description="What the sum of the token losses is divided by."
    )
    overlong_penalty: float = Field(
        0.0, description="Amount that is subtracted from the reward of a completion of maxTokens tokens."
    )
    refill_rounds: Int = Field(
        0,
        description=(
            "Maximum number of refills per step. A refill replaces groups whose rewards are all equal."
        ),
    )
    inherited: list[Inherited] | None = Field(
        None, description="Fields that the job inherits from the platform's defaults. Absent if none."
    )


class MemoryPart(Model):
    """One part of the memory that a device is expected to need, such as the memory for the base weights."""

    name: str = Field(description="Name of the part, such as base weights.")
    mebibytes: float = Field(ge=0, description="Size of this part of the memory on each device, in MiB.")


class Estimate(Model):
    """The expected steps, tokens, time and cost of a run. A value is absent if it cannot be estimated."""

    steps: Int | None = Field(None, ge=0, description="Number of training steps in the whole run.")
    steps_per_epoch: Int | None = Field(None, ge=0, description="Number of training steps in one epoch.")
    prompts_per_step: Int | None = Field(None, ge=1, description="Number of prompts in one training step.")
    prompt_tokens: Int | None = Field(
        None, ge=0, description="Number of prompt tokens in the whole run. A prompt counts once per rollout."
    )
    completion_tokens: Int | None = Field(
        None, ge=0, description="Number of completion tokens in the whole run."
    )
    seconds_per_step: float | None = Field(
        None, ge=0, description="Expected time of one training step, in seconds."
    )
    sampling_seconds: float | None = Field(
        None, ge=0, description="Expected seconds of a training step for sampling."
    )
    update_seconds: float | None = Field(
        None, ge=0, description="Expected seconds of a training step for forward and backward passes."
    )
    gpu_hours: float | None = Field(
        None, ge=0, description="Expected GPU-hours of the run, with evaluations."
    )
    gpu_hours_if_longest: float | None = Field(
        None, ge=0, description="Expected GPU-hours if every completion has maxTokens tokens."
    )
    cost: float | None = Field(
        None,
        ge=0,
        description="Expected cost of the run: gpuHours times the price in the spec, if it has a price.",
    )


class NodeLabel(Model):
    """A condition on one label of a node: the values that the label may have."""

    key: str = Field(description="Key of the label.")
    values: list[str] = Field(
        description="Values that the label may have. If there are none, the node must not have the label."
    )


class NodeTerm(Model):
    """A set of conditions on the labels of a node, all of which must hold."""

    labels: list[NodeLabel] = Field(description="The labels.")


TrainerBase = Literal["whole", "divided"]
"""Where the base model is if several GPUs train: ``whole`` on each of these GPUs, or with its layers
``divided`` among them."""


class Plan(Model):
    """The plan of a run, made before its start: GPUs, CPU, memory, and the expected time and cost."""

    effective: Effective | None = Field(None, description="Effective parameters of the run.")
    gpus: Int = Field(0, ge=0, description="Number of GPUs of the pod.")
    device: Device = Field("cpu", description="Kind of device on which the trainer computes.")
    dtype: Dtype | None = Field(None, description="Dtype of the base model's weights in trainer and sampler.")
    accelerator: str | None = Field(None, description="Kind of GPU for which the plan is made.")
    gpu_resource: str | None = Field(
        None,
        description=(
            "Extended resource that the pod requests for GPUs, such as nvidia.com/gpu. Absent if no node"
            " with this kind of GPU was found."
        ),
    )
    gpu_memory: str | None = Field(
        None, description="Memory of one GPU, if the GPU was chosen by the labels of nodes."
    )
    node_selector: dict[str, str] | None = Field(
        None, description="Node labels that the plan adds to the pod, so that it runs on this kind of GPU."
    )
    node_terms: list[NodeTerm] | None = Field(
        None,
        description=(
            "Sets of labels that nodes with this kind of GPU have. The pod runs only on a node that has all"
            " labels of one set."
        ),
    )
    cpu: str | None = Field(None, description="CPU request of the trainer.")
    cpu_limit: str | None = Field(
        None, description="CPU limit of the trainer, if spec.resources.cpuLimit sets one."
    )
    memory: str | None = Field(None, description="Memory request and limit of the trainer.")
    ephemeral_storage: str | None = Field(
        None, description="Ephemeral storage request of the trainer, for files that it writes to its node."
    )
    ephemeral_storage_limit: str | None = Field(
        None, description="Ephemeral storage limit of the trainer. The kubelet ends a pod that exceeds it."
    )
    least_memory: str | None = Field(
        None, description="Minimum memory of the run, with the smallest micro-batch."
    )
    forced: bool = Field(
        False, description="Whether memory is below leastMemory. An annotation of the RFTJob allows this."
    )
    memory_parts: list[MemoryPart] | None = Field(None, description="Parts of the expected memory.")
    micro_batch_tokens: Int | None = Field(
        None, ge=1, description="Number of tokens in one forward pass on one device."
    )
    balanced_gpus: Int | None = Field(
        None,
        ge=1,
        description="Number of GPUs, up to 8, with which the times of sampling and training differ least.",
    )
    trainer_gpus: Int | None = Field(None, ge=1, description="Number of GPUs that train.")
    trainer_base: TrainerBase | None = Field(
        None,
        description=(
            "Where the base model is during training: whole on each GPU that trains, or with its layers"
            " divided among them. If absent: divided."
        ),
    )
    sampler_gpus: Int | None = Field(
        None,
        ge=1,
        description=(
            "Number of GPUs that sample. If trainerGpus plus samplerGpus is more than gpus, some GPUs sample"
            " and train in turns."
        ),
    )
    sampler_servers: Int | None = Field(
        None,
        ge=1,
        description="Number of samplers. The GPUs that sample are divided among them. If absent: 1.",
    )
    sampler_cache_memory: str | None = Field(
        None, description="Size of a sampler's key-value cache on each of its GPUs."
    )
    idle_share: float | None = Field(
        None, ge=0, le=1, description="Expected fraction of a step's time in which GPUs are idle."
    )
    sampler_cache_tokens: Int | None = Field(
        None, ge=1, description="Capacity of the sampler's key-value cache on a CPU, in tokens."
    )
    sampler_memory_share: float | None = Field(
        None, gt=0, le=1, description="Fraction of a GPU's memory that the sampler may use."
    )
    estimate: Estimate | None = Field(None, description="Estimate of steps, tokens, time and cost.")
    notes: list[str] | None = Field(None, description="Sentences that explain the numbers of the plan.")


class Change(Model):
    """A parameter whose value in this run differs from its value in the baseline, an earlier RFTJob."""

    path: str = Field(description="Path of the field, such as spec.training.learningRate.")
    from_: str | None = Field(
        None,
        alias="from",
        description="Effective value of the field in the baseline. Absent if the baseline has no value.",
    )
    to: str | None = Field(
        None,
        description="Effective value of the field in this run. Absent if this run has no value.",
    )


class Baseline(Model):
    """The differences between the run and its baseline, the RFTJob that the annotation rft.dev/baseline
    names.
    """

    job: str = Field(description="Name of the baseline, an RFTJob.")
    changes: list[Change] | None = Field(
        None,
        description=(
            "Parameters whose values differ. Absent if the run could not be compared with the baseline."
        ),
    )
    message: str | None = Field(
        None,
        description=(
            "Why the runs could not be compared, or a warning that more than one parameter changed."
        ),
    )


Stage = Literal["preparing", "evaluatingBase", "training", "evaluatingTuned", "finished"]
"""What the trainer is doing now, such as training or evaluating."""


class Progress(Model):
    """How far the run is: its step, epoch, attempt, stage and estimated time left."""

    step: Int = Field(0, ge=0, description="Number of completed training steps.")
    total_steps: Int | None = Field(None, ge=0, description="Number of training steps in the whole run.")
    total_steps_estimated: bool = Field(True, description="Whether totalSteps is still an estimate.")
    epoch: Int = Field(
        0,
        ge=0,
        description=(
            "Number of the current epoch, counted from 1. When all rows of the last epoch are used, it is one"
            " more."
        ),
    )
    percent: float = Field(
        0.0, ge=0, le=100, description="Percentage of the training steps that are completed."
    )
    eta_seconds: float | None = Field(None, ge=0, description="Estimated time left, in seconds.")
    attempt: Int = Field(
        1, ge=1, description="Number of the current attempt: how often the trainer was started."
    )
    resumed_from_step: Int = Field(
        0, ge=0, description="Step of the checkpoint from which this attempt continued."
    )
    stage: Stage = Field("preparing", description="What the trainer is doing now.")
    samplers_restarted: Int = Field(
        0,
        ge=0,
        description=(
            "Number of times that vLLM ended unexpectedly and was restarted without a restart of the trainer."
        ),
    )
    updated_at: str | None = Field(None, description="Time of the trainer's last report, in RFC 3339.")


class RewardPoint(Model):
    """One point of the reward curve: the mean reward and the mean scores of one training step."""

    step: Int = Field(ge=0, description="Number of the training step.")
    reward: float = Field(description="Mean reward of the step's rollouts.")
    graders: dict[str, float] | None = Field(None, description="Mean score of each grader in this step.")


def thin(points: Sequence[RewardPoint]) -> list[RewardPoint]:
    """Return at most 50 evenly spaced points of the reward curve, in the same order.

    The first point, the last point and the point with the highest reward are always kept.
    """
    if len(points) <= MAX_HISTORY:
        return list(points)
    best = max(range(len(points)), key=lambda index: points[index].reward)
    chosen = _spread(len(points), MAX_HISTORY)
    if best not in chosen:
        chosen = _spread(len(points), MAX_HISTORY - 1) | {best}
    return [points[index] for index in sorted(chosen)]


def _spread(length: int, count: int) -> set[int]:
    """Return ``count`` evenly spaced indices into a list of ``length`` items, from 0 to ``length`` - 1."""
    return {round(i * (length - 1) / (count - 1)) for i in range(count)}


class Reward(Model):
    """The reward curve of a run, and its latest, highest and first value."""

    latest: float | None = Field(None, description="Mean reward of the last step.")
    best: float | None = Field(None, description="Highest mean reward of a step so far.")
    baseline: float | None = Field(None, description="Mean reward of the first step.")
    graders: dict[str, float] | None = Field(None, description="Mean score of each grader in the last step.")
    history: list[RewardPoint] = Field(
        default_factory=list, max_length=MAX_HISTORY, description="Points of the reward curve, at most 50."
    )


class PairedDifference(Model):
    """Mean score of the tuned policy minus mean score of the starting policy, with a 95 % interval.

    Both policies are evaluated on the same rows. The interval is a bootstrap interval.
    """

    mean: float = Field(description="Mean difference of the scores.")
    low: float = Field(description="Lower end of the 95 % interval of the difference.")
    high: float = Field(description="Upper end of the 95 % interval of the difference.")


class GraderEvaluation(Model):
    """Mean scores on the held-out rows before and after training, of one grader or of the combined reward."""

    base: float = Field(description="Mean score of the starting policy.")
    tuned: float | None = Field(None, description="Mean score of the last evaluated policy.")
    difference: PairedDifference | None = Field(
        None, description="Score of the tuned policy minus score of the starting policy, on one set of rows."
    )


class BestEvaluation(Model):
    """The checkpoint with the highest held-out reward among the evaluated checkpoints, and its result."""

    step: Int = Field(ge=1, description="Training step of the checkpoint.")
    reward: GraderEvaluation = Field(description="Held-out result of the combined reward.")


class EvaluationResult(Model):
    """Results of the evaluation on held-out rows: the scores of the starting policy and the tuned policy."""

    rows: Int = Field(ge=0, description="Number of held-out rows.")
    step: Int = Field(0, ge=0, description="Training step of the tuned policy.")
    reward: GraderEvaluation | None = Field(None, description="Held-out result of the combined reward.")
    graders: dict[str, GraderEvaluation] | None = Field(None, description="Held-out result of each grader.")
    best: BestEvaluation | None = Field(
        None,
        description="Checkpoint with the highest held-out reward. Absent before a checkpoint is evaluated.",
    )
    selected: bool = Field(
        False,
        description=(
            "Whether the best checkpoint was chosen among several checkpoints, as the one with the highest"
            " held-out reward. If true, its held-out reward is probably too high."
        ),
    )


class PhaseSeconds(Model):
    """The time in seconds of each phase of one training step."""

    rollout: float = Field(0.0, ge=0, description="Time of sampling, in seconds.")
    grade: float = Field(0.0, ge=0, description="Time of grading, in seconds.")
    update: float = Field(
        0.0, ge=0, description="Time of forward passes, backward passes and optimizer, in seconds."
    )
    publish: float = Field(
        0.0, ge=0, description="Time to write and load the new adapter version, in seconds."
    )


class Metrics(Model):
    """Metrics of the last training step, such as loss, KL, entropy and the time of each phase."""

    loss: float | None = Field(None, description="Loss of the last step.")
    kl: float | None = Field(
        None, description="Mean KL (k3) of the policy to the reference policy, in nats per token."
    )
    entropy: float | None = Field(
        None, description="Mean entropy of the sampling distribution, in nats per token."
    )
    clip_fraction: float | None = Field(
        None, description="Fraction of the tokens whose probability ratio was clipped."
    )
    truncated_fraction: float | None = Field(
        None, description="Fraction of the completions that were truncated at maxTokens or by another limit."
    )
    zero_variance_fraction: float | None = Field(
        None, description="Fraction of the groups in which all rewards are equal."
    )
    mismatch_kl: float | None = Field(None, description="KL between trainer and sampler, in nats per token.")
    grad_norm: float | None = Field(None, description="Norm of the gradient before clipping.")
    completion_tokens: float | None = Field(None, description="Mean length of a completion, in tokens.")
    turns: float | None = Field(
        None, description="Mean number of the model's turns in a rollout with an environment."
    )
    tool_calls: float | None = Field(None, description="Mean number of tool calls in a rollout.")
    tool_errors: Int | None = Field(
        None, ge=0, description="Number of failed or unreadable tool calls in the last step."
    )
    limited_fraction: float | None = Field(
        None, description="Fraction of the rollouts that a limit of the environment ended."
    )
    environment_errors: Int | None = Field(
        None, ge=0, description="Number of rollouts of the last step that a failure of the environment ended."
    )
    refused_requests: Int | None = Field(
        None,
        ge=0,
        description=(
            "Number of requests that agents sent in rollouts of the last step and that the trainer refused."
        ),
    )
    environment_fraction: float | None = Field(
        None, description="Fraction of the rollouts' time that was spent waiting for environments."
    )
    tokens_per_second: float | None = Field(
        None, description="Number of sampled tokens per second of sampling."
    )
    step_seconds: float | None = Field(None, description="Time of the last step, in seconds.")
    phases: PhaseSeconds | None = Field(None, description="Time of each phase of the last step, in seconds.")


class Recommendation(Model):
    """A piece of advice from the numbers of the run: what the user should change in the spec, and why."""

    rule: str = Field(description="Id of the rule that this advice comes from.")
    parameter: str | None = Field(None, description="Path of the spec's field that should be changed.")
    message: str = Field(description="What to change, and why.")


class Usage(Model):
    """What the run has used and lost so far: GPU time, tokens, cost, left-out prompts and grader errors."""

    gpu_seconds: float = Field(
        0.0, ge=0, description="GPU-seconds of the steps and evaluations of all attempts."
    )
    prompt_tokens: Int = Field(
        0, ge=0, description="Number of prompt tokens that were trained on. A prompt counts once per rollout."
    )
    completion_tokens: Int = Field(0, ge=0, description="Number of completion tokens that were trained on.")
    dropped_prompts: Int = Field(
        0, ge=0, description="Number of prompts that were left out because they are too long for the context."
    )
    dropped_groups: Int = Field(
        0,
        ge=0,
        description=(
            "Number of groups that were left out because fewer than two of their rollouts were graded."
        ),
    )
    grader_errors: dict[str, int] | None = Field(None, description="Number of errors of each grader.")
    forged_replies: dict[str, int] | None = Field(
        None,
        description=(
            "For each grader, the number of forged replies: another program wrote them in place of the"
            " grader. All of them were refused."
        ),
    )
    cost: float | None = Field(None, ge=0, description="Cost of the run so far, if the spec has a price.")
    expected_gpu_hours: float | None = Field(
        None,
        ge=0,
        description=(
            "Expected GPU-hours of the whole run, from its speed so far. Absent until totalSteps is known."
        ),
    )
    expected_cost: float | None = Field(
        None, ge=0, description="Expected cost of the whole run, if the spec has a price."
    )


class Output(Model):
    """The places of the run's results: the folder of the run, its adapter, and its checkpoints."""

    folder: str | None = Field(None, description="Path of the run's folder on the volume.")
    adapter: str | None = Field(None, description="Path of the final adapter, which peft can load.")
    checkpoint: str | None = Field(None, description="Path of the newest checkpoint.")
    best_checkpoint: str | None = Field(
        None, description="Path of the checkpoint with the highest held-out reward. It is never removed."
    )
    pushed: str | None = Field(
        None, description="Address to which the adapter was copied. Absent if it was not, or not yet."
    )


class RunStatus(Model):
    """The part of an RFTJob's status that the trainer reports, such as progress, reward and metrics."""

    progress: Progress = Field(default_factory=Progress, description="Progress of the run.")
    reward: Reward | None = Field(None, description="The reward curve.")
    evaluation: EvaluationResult | None = Field(None, description="Results of the held-out evaluation.")
    metrics: Metrics | None = Field(None, description="Metrics of the last training step.")
    recommendations: list[Recommendation] | None = Field(
        None, description="Advice from the numbers of the run."
    )
    usage: Usage | None = Field(None, description="Resources that the run has used.")
    output: Output | None = Field(None, description="Paths of the results of the run.")


class RFTJobStatus(Model):
    """The status of an RFTJob: its phase, conditions, plan, progress, metrics and results."""

    observed_generation: Int | None = Field(
        None, description="Generation of the spec that the operator has processed."
    )
    phase: Phase | None = Field(None, description="Phase of the job, which summarizes its conditions.")
    message: str | None = Field(
        None, max_length=MAX_MESSAGE, description="What the job is doing, in one sentence."
    )
    start_time: str | None = Field(
        None, json_schema_extra=DATE_TIME, description="Time at which the run was started, in RFC 3339."
    )
    completion_time: str | None = Field(
        None, json_schema_extra=DATE_TIME, description="Time at which the run ended, in RFC 3339."
    )
    job_name: str | None = Field(None, description="Name of the child Job.")
    failed_pods: Int = Field(0, ge=0, description="Number of failed pods of the child Job.")
    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra=map_by("type"),
        description="Conditions of the job, such as Accepted, Planned and Ready.",
    )
    plan: Plan | None = Field(None, description="Plan of the run, made before its start.")
    baseline: Baseline | None = Field(None, description="Comparison of the run with its baseline.")
    progress: Progress | None = Field(None, description="Progress of the run.")
    reward: Reward | None = Field(None, description="The reward curve.")
    evaluation: EvaluationResult | None = Field(None, description="Results of the held-out evaluation.")
    metrics: Metrics | None = Field(None, description="Metrics of the last training step.")
    recommendations: list[Recommendation] | None = Field(
        None, description="Advice from the numbers of the run."
    )
    usage: Usage | None = Field(None, description="Resources that the run has used.")
    output: Output | None = Field(None, description="Paths of the results of the run.")
