"""The status of an RFTJob, which only the operator writes."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from rft_api.base import Int, Model, map_by
from rft_api.conditions import MAX_MESSAGE, Condition, Phase
from rft_api.parameters import Dtype

Device = Literal["cpu", "cuda"]

MAX_HISTORY = 50
"""Maximum number of points of the reward curve in the status."""


class Effective(Model):
    """The effective values of the parameters that may be derived: the value that the user gave, else the
    derived one.
    """

    seed: Int = Field(description="Seed the run uses.")
    max_context_length: Int = Field(description="Longest prompt plus completion, in tokens.")
    clip_low: float | None = Field(None, description="Lower clip distance; absent when not clipped.")
    clip_high: float = Field(description="Upper clip distance.")
    kl_beta: float = Field(description="Weight of the KL term.")
    loss_aggregation: Literal["token", "sequence", "maxTokens"] = Field(
        description="What the summed token loss is divided by."
    )
    overlong_penalty: float = Field(0.0, description="Taken from the reward of a completion of maxTokens.")
    refill_rounds: Int = Field(0, description="Times per step that groups with equal rewards are replaced.")


class MemoryPart(Model):
    """One part of the memory that the plan expects, such as the base weights."""

    name: str = Field(description="Part, e.g. base weights.")
    mebibytes: float = Field(ge=0, description="Size per device in MiB.")


class Estimate(Model):
    """The expected duration and cost of the run. Values that cannot be known before the run are absent."""

    steps: Int | None = Field(None, ge=0, description="Optimizer steps in all.")
    steps_per_epoch: Int | None = Field(None, ge=0, description="Optimizer steps of one epoch.")
    prompts_per_step: Int | None = Field(None, ge=1, description="Prompts of one step.")
    prompt_tokens: Int | None = Field(None, ge=0, description="Prompt tokens to train on, once a rollout.")
    completion_tokens: Int | None = Field(None, ge=0, description="Completion tokens to train on.")
    seconds_per_step: float | None = Field(None, ge=0, description="Time of a step, in seconds.")
    sampling_seconds: float | None = Field(None, ge=0, description="Of these, generating.")
    update_seconds: float | None = Field(None, ge=0, description="Of these, forward and backward passes.")
    gpu_hours: float | None = Field(None, ge=0, description="GPUs times hours, evaluations included.")
    gpu_hours_if_longest: float | None = Field(
        None, ge=0, description="The same if every completion is maxTokens long."
    )
    cost: float | None = Field(None, ge=0, description="Of gpuHours, where a price is given.")


class Plan(Model):
    """The plan of a run: values that were derived before the run."""

    effective: Effective | None = Field(None, description="Derived parameters.")
    gpus: Int = Field(0, ge=0, description="GPUs of the pod.")
    device: Device = Field("cpu", description="What the trainer computes on.")
    dtype: Dtype | None = Field(None, description="Type of the base's weights in trainer and sampler.")
    accelerator: str | None = Field(None, description="GPU kind the plan is made for.")
    gpu_resource: str | None = Field(
        None, description="Extended resource the pod asks for, where the nodes say it."
    )
    gpu_memory: str | None = Field(None, description="Memory of one GPU, where the nodes' labels chose it.")
    node_selector: dict[str, str] | None = Field(
        None, description="Node labels the plan adds, so that the pod lands on that kind of GPU."
    )
    cpu: str | None = Field(None, description="CPU request of the trainer.")
    memory: str | None = Field(None, description="Memory request and limit of the trainer.")
    least_memory: str | None = Field(
        None, description="The least memory that holds the run, with the smallest micro-batch."
    )
    forced: bool = Field(False, description="Whether less memory than that is obeyed.")
    memory_parts: list[MemoryPart] | None = Field(None, description="The memory sum by part.")
    micro_batch_tokens: Int | None = Field(
        None, ge=1, description="Tokens of one forward pass on one device."
    )
    balanced_gpus: Int | None = Field(
        None, ge=1, description="GPUs with which sampling and training would take equally long, of up to 8."
    )
    trainer_gpus: Int | None = Field(None, ge=1, description="GPUs that the training is divided over.")
    sampler_gpus: Int | None = Field(None, ge=1, description="GPUs that the sampler is divided over.")
    sampler_cache_tokens: Int | None = Field(
        None, ge=1, description="Tokens that the sampler's key-value cache holds on a CPU."
    )
    sampler_memory_share: float | None = Field(
        None, gt=0, le=1, description="Share of a GPU's memory that the sampler may take."
    )
    estimate: Estimate | None = Field(None, description="Steps, tokens, time and cost, estimated.")
    notes: list[str] | None = Field(None, description="How the numbers came about, line by line.")


class Change(Model):
    """A parameter whose value differs from the baseline's value."""

    path: str = Field(description="Field, e.g. spec.training.learningRate.")
    from_: str | None = Field(
        None, alias="from", description="The baseline's effective value; absent where it has none."
    )
    to: str | None = Field(None, description="This run's effective value; absent where it has none.")


class Baseline(Model):
    """Comparison of the run with its baseline, the RFTJob that the annotation rft.dev/baseline names."""

    job: str = Field(description="Name of the baseline.")
    changes: list[Change] | None = Field(
        None, description="What differs; absent where it could not be compared."
    )
    message: str | None = Field(
        None, description="Why it could not be compared, or that more than one parameter changed."
    )


Stage = Literal["preparing", "evaluatingBase", "training", "evaluatingTuned", "finished"]
"""What the trainer is doing now, such as training or evaluating."""


class Progress(Model):
    """Progress of the run."""

    step: Int = Field(0, ge=0, description="Optimizer steps made.")
    total_steps: Int | None = Field(None, ge=0, description="Steps in all.")
    total_steps_estimated: bool = Field(True, description="Whether totalSteps is still an estimate.")
    epoch: Int = Field(0, ge=0, description="Current epoch, from 1.")
    percent: float = Field(0.0, ge=0, le=100, description="Share of the steps made, in percent.")
    eta_seconds: float | None = Field(None, ge=0, description="Estimated time left, in seconds.")
    attempt: Int = Field(1, ge=1, description="Trainer starts so far, this one included.")
    resumed_from_step: Int = Field(0, ge=0, description="Step of the checkpoint this attempt began from.")
    stage: Stage = Field("preparing", description="What the trainer is doing.")
    samplers_restarted: Int = Field(0, ge=0, description="Times vLLM died and was started again in place.")
    updated_at: str | None = Field(None, description="When the trainer said so, RFC 3339.")


class RewardPoint(Model):
    """One point of the reward curve."""

    step: Int = Field(ge=0, description="Optimizer step.")
    reward: float = Field(description="Mean reward of the step's rollouts.")
    graders: dict[str, float] | None = Field(None, description="Mean score of the step by grader.")


def thin(points: Sequence[RewardPoint]) -> list[RewardPoint]:
    """Return at most 50 points of the reward curve: evenly spaced, and always the first, the best and the
    last.
    """
    if len(points) <= MAX_HISTORY:
        return list(points)
    best = max(range(len(points)), key=lambda index: points[index].reward)
    chosen = _spread(len(points), MAX_HISTORY)
    if best not in chosen:
        chosen = _spread(len(points), MAX_HISTORY - 1) | {best}
    return [points[index] for index in sorted(chosen)]


def _spread(length: int, count: int) -> set[int]:
    """Return ``count`` evenly spaced indices from 0 to ``length`` - 1, both included."""
    return {round(i * (length - 1) / (count - 1)) for i in range(count)}


class Reward(Model):
    """The reward curve."""

    latest: float | None = Field(None, description="Mean reward of the last step.")
    best: float | None = Field(None, description="Highest mean reward of any step.")
    baseline: float | None = Field(None, description="Mean reward of the first step.")
    graders: dict[str, float] | None = Field(None, description="Mean score of the last step by grader.")
    history: list[RewardPoint] = Field(
        default_factory=list, max_length=MAX_HISTORY, description="At most 50 points of the curve."
    )


class PairedDifference(Model):
    """Mean score of the tuned policy minus that of the base model on the same rows, with a bootstrap
    interval.
    """

    mean: float = Field(description="Mean difference.")
    low: float = Field(description="Lower end of the 95 % interval.")
    high: float = Field(description="Upper end of the 95 % interval.")


class GraderEvaluation(Model):
    """Mean held-out scores of one grader or of the combined reward."""

    base: float = Field(description="Mean score of the starting policy.")
    tuned: float | None = Field(None, description="Mean score of the last tuned policy.")
    difference: PairedDifference | None = Field(None, description="Tuned minus base, paired by row.")


class BestEvaluation(Model):
    """The evaluated checkpoint with the highest held-out reward."""

    step: Int = Field(ge=1, description="Its step.")
    reward: GraderEvaluation = Field(description="The whole reward.")


class EvaluationResult(Model):
    """Results of the held-out evaluation."""

    rows: Int = Field(ge=0, description="Rows in the held-out set.")
    step: Int = Field(0, ge=0, description="Step of the tuned policy.")
    reward: GraderEvaluation | None = Field(None, description="The whole reward.")
    graders: dict[str, GraderEvaluation] | None = Field(None, description="By grader.")
    best: BestEvaluation | None = Field(
        None, description="The checkpoint with the highest held-out reward; absent before one is evaluated."
    )
    selected: bool = Field(
        False, description="The best checkpoint was chosen among several on these rows, which flatters it."
    )


class PhaseSeconds(Model):
    """The time of one training step in seconds, by phase of the step."""

    rollout: float = Field(0.0, ge=0, description="Generating.")
    grade: float = Field(0.0, ge=0, description="Grading.")
    update: float = Field(0.0, ge=0, description="Forward, backward and optimizer.")
    publish: float = Field(0.0, ge=0, description="Writing and loading the adapter version.")


class Metrics(Model):
    """Metrics of the last training step that show whether the training is healthy."""

    loss: float | None = Field(None, description="Loss of the step.")
    kl: float | None = Field(None, description="Mean KL (k3) to the reference, per token.")
    entropy: float | None = Field(None, description="Mean entropy of the sampling distribution, in nats.")
    clip_fraction: float | None = Field(None, description="Share of tokens whose ratio was clipped.")
    truncated_fraction: float | None = Field(None, description="Share of completions cut at maxTokens.")
    zero_variance_fraction: float | None = Field(None, description="Share of groups whose rewards are equal.")
    mismatch_kl: float | None = Field(None, description="KL between trainer and sampler, per token.")
    grad_norm: float | None = Field(None, description="Gradient norm before clipping.")
    completion_tokens: float | None = Field(None, description="Mean completion length, in tokens.")
    tokens_per_second: float | None = Field(None, description="Generated tokens per second of the step.")
    step_seconds: float | None = Field(None, description="Time of the step, in seconds.")
    phases: PhaseSeconds | None = Field(None, description="The step's time by phase.")


class Recommendation(Model):
    """A piece of advice that is derived from the numbers of the run."""

    rule: str = Field(description="Id of the rule.")
    parameter: str | None = Field(None, description="Field to change.")
    message: str = Field(description="What to change, and why.")


class Usage(Model):
    """Resources that the run has used."""

    gpu_seconds: float = Field(
        0.0, ge=0, description="GPUs times seconds of steps and evaluations, all attempts."
    )
    prompt_tokens: Int = Field(0, ge=0, description="Prompt tokens trained on.")
    completion_tokens: Int = Field(0, ge=0, description="Completion tokens trained on.")
    dropped_prompts: Int = Field(0, ge=0, description="Prompts too long for the context.")
    dropped_groups: Int = Field(0, ge=0, description="Groups left with fewer than two graded rollouts.")
    grader_errors: dict[str, int] | None = Field(None, description="Errors by grader.")
    cost: float | None = Field(None, ge=0, description="Cost, where a price is given.")
    expected_gpu_hours: float | None = Field(
        None, ge=0, description="GPU-hours at the end, from the speed so far, once totalSteps is known."
    )
    expected_cost: float | None = Field(None, ge=0, description="The same as cost, where a price is given.")


class Output(Model):
    """The results of the run: its folder, and the adapter and checkpoints in it."""

    folder: str | None = Field(None, description="The run's folder on the volume.")
    adapter: str | None = Field(None, description="The final adapter; loads with peft.")
    checkpoint: str | None = Field(None, description="The newest checkpoint.")
    best_checkpoint: str | None = Field(
        None, description="The checkpoint with the highest held-out reward; never removed."
    )


class RunStatus(Model):
    """The part of the status that the trainer knows and reports."""

    progress: Progress = Field(default_factory=Progress, description="How far the run is.")
    reward: Reward | None = Field(None, description="The reward curve.")
    evaluation: EvaluationResult | None = Field(None, description="Held-out evaluation.")
    metrics: Metrics | None = Field(None, description="Health of the last step.")
    recommendations: list[Recommendation] | None = Field(None, description="Advice from the run.")
    usage: Usage | None = Field(None, description="What the run has used.")
    output: Output | None = Field(None, description="What the run leaves behind.")


class RFTJobStatus(Model):
    """Status of an RFTJob."""

    observed_generation: Int | None = Field(None, description="Generation of the spec that was acted upon.")
    phase: Phase | None = Field(None, description="Summary of the conditions.")
    message: str | None = Field(
        None, max_length=MAX_MESSAGE, description="What is going on, in one sentence."
    )
    start_time: str | None = Field(None, description="When the run was started, RFC 3339.")
    completion_time: str | None = Field(None, description="When the run ended, RFC 3339.")
    job_name: str | None = Field(None, description="Name of the child Job.")
    failed_pods: Int = Field(0, ge=0, description="Pods of the child Job that failed.")
    conditions: list[Condition] = Field(
        default_factory=list, json_schema_extra=map_by("type"), description="Accepted, Planned, Ready, …"
    )
    plan: Plan | None = Field(None, description="What was derived before the run.")
    baseline: Baseline | None = Field(None, description="What differs from the baseline.")
    progress: Progress | None = Field(None, description="How far the run is.")
    reward: Reward | None = Field(None, description="The reward curve.")
    evaluation: EvaluationResult | None = Field(None, description="Held-out evaluation.")
    metrics: Metrics | None = Field(None, description="Health of the last step.")
    recommendations: list[Recommendation] | None = Field(None, description="Advice from the run.")
    usage: Usage | None = Field(None, description="What the run has used.")
    output: Output | None = Field(None, description="What the run leaves behind.")
