"""Advice rules for single parameters of ``spec.training``."""

from rft_advice import bands
from rft_advice.rule import AdviceRule
from rft_api.effective import effective
from rft_api.job import RFTJobSpec
from rft_api.sizes import parameter_count

DEFAULTS = bands.TRAINING


def model_size(spec: RFTJobSpec) -> float | None:
    """Return the model's number of parameters: the value of ``spec.model.parameters``, or else the number in
    the model's name, such as 7B. Return None if neither is given.
    """
    return parameter_count(spec.model.parameters or spec.model.name)


def longest_sequence(spec: RFTJobSpec) -> int:
    """Return the maximum length of prompt plus completion, in tokens: ``training.maxContextLength``, or its
    default, which depends on other fields.
    """
    return effective(spec, uid="").max_context_length


def learning_rate_high(spec: RFTJobSpec) -> str | None:
    """Return advice to lower the learning rate if it is more than ``LEARNING_RATE_FACTOR`` times its default.
    Else return None.
    """
    most = DEFAULTS.learning_rate * bands.LEARNING_RATE_FACTOR
    value = spec.training.learning_rate
    if value <= most:
        return None
    return (
        f"{value:g} is {value / DEFAULTS.learning_rate:.3g} times the default {DEFAULTS.learning_rate:g}:"
        f" the reward may spike and then collapse; stay at or below {most:g}"
    )


def learning_rate_low(spec: RFTJobSpec) -> str | None:
    """Return advice to raise the learning rate if it is below its default divided by
    ``LEARNING_RATE_FACTOR``. Else return None.
    """
    least = DEFAULTS.learning_rate / bands.LEARNING_RATE_FACTOR
    value = spec.training.learning_rate
    if value >= least:
        return None
    return (
        f"{value:g} is {value / DEFAULTS.learning_rate:.3g} of the default {DEFAULTS.learning_rate:g}:"
        f" the reward may rise very slowly or level off early; stay at or above {least:g}"
    )


def epochs_many(spec: RFTJobSpec) -> str | None:
    """Return advice to lower the number of epochs if it is so high that the policy may memorize the rows.
    Else return None.
    """
    epochs = spec.training.epochs
    if epochs < bands.MANY_EPOCHS:
        return None
    return (
        f"{epochs} passes over the same rows risk memorizing them; start with {DEFAULTS.epochs} and add one"
        " or two while the reward still climbs at the end"
    )


def lora_rank_low(spec: RFTJobSpec) -> str | None:
    """Return advice to raise the LoRA rank for complex tasks if it is low, and the model is small or of
    unknown size. Else return None. Another rule is for large models.
    """
    if spec.training.lora_rank > bands.LOW_RANK or _is_large(spec):
        return None
    return (
        f"rank {spec.training.lora_rank} trains faster and may lack capacity for complex tasks;"
        f" keep it for simple changes of style, else use {DEFAULTS.lora_rank} or {bands.USUAL_RANK}"
    )


def lora_rank_high(spec: RFTJobSpec) -> str | None:
    """Return advice to lower the LoRA rank if it is high, and the model is not known to be small. Else return
    None. Another rule is for small models.
    """
    if spec.training.lora_rank <= bands.USUAL_RANK or _is_small(spec):
        return None
    return (
        f"rank {spec.training.lora_rank} needs more GPU memory and risks overfitting;"
        f" {DEFAULTS.lora_rank} or {bands.USUAL_RANK} suits most tasks: use more only if these were too low"
    )


def lora_rank_high_for_small_model(spec: RFTJobSpec) -> str | None:
    """Return advice to lower the LoRA rank if the model is small, and the rank is higher than small models
    usually need. Else return None.
    """
    if spec.training.lora_rank <= bands.USUAL_RANK or not _is_small(spec):
        return None
    return (
        f"rank {spec.training.lora_rank} on a model below {_billions(bands.SMALL_MODEL)}:"
        f" {DEFAULTS.lora_rank} to {bands.USUAL_RANK} is usually enough, more risks overfitting"
    )


def lora_rank_low_for_large_model(spec: RFTJobSpec) -> str | None:
    """Return advice to raise the LoRA rank if the model is large, and the rank is lower than large models may
    need. Else return None.
    """
    if spec.training.lora_rank > bands.LOW_RANK or not _is_large(spec):
        return None
    return (
        f"rank {spec.training.lora_rank} on a model of {_billions(bands.LARGE_MODEL)} or more:"
        " large models may need a higher rank for complex behaviour;"
        f" use {DEFAULTS.lora_rank} or {bands.USUAL_RANK}, which may need more GPUs"
    )


def batch_small(spec: RFTJobSpec) -> str | None:
    """Return advice to use the default of ``batchSizeTokens`` if the value is far lower. Else return None."""
    size, default = spec.training.batch_size_tokens, DEFAULTS.batch_size_tokens
    if size * bands.BATCH_FACTOR >= default:
        return None
    return (
        f"{size} tokens per step is less than 1/{bands.BATCH_FACTOR} of the default {default}: gradients get"
        " noisier and throughput drops; keep the default unless noise is what you want"
    )


def batch_large(spec: RFTJobSpec) -> str | None:
    """Return advice to check that the run has enough steps if ``batchSizeTokens`` is far larger than its
    default. Else return None.
    """
    size, default = spec.training.batch_size_tokens, DEFAULTS.batch_size_tokens
    if size <= default * bands.BATCH_FACTOR:
        return None
    return (
        f"{size} tokens per step is more than {bands.BATCH_FACTOR} times the default {default}: gradients"
        " are less noisy, but an epoch has fewer steps; check that the run still has enough steps"
    )


def batch_below_group(spec: RFTJobSpec) -> str | None:
    """Return advice to raise ``batchSizeTokens`` if one batch is too small for a whole group: all rollouts of
    one prompt, each with the maximum length. Else return None.
    """
    rollouts, longest = spec.sampling.num_rollouts, longest_sequence(spec)
    size = spec.training.batch_size_tokens
    if size >= rollouts * longest:
        return None
    return (
        f"one prompt has {rollouts} rollouts (numRollouts) of up to {longest} tokens each, in all up to"
        f" {rollouts * longest}, which is more than a batch of {size} tokens; raise it to"
        f" {rollouts * longest} or lower maxContextLength"
    )


def _is_small(spec: RFTJobSpec) -> bool:
    size = model_size(spec)
    return size is not None and size < bands.SMALL_MODEL


def _is_large(spec: RFTJobSpec) -> bool:
    size = model_size(spec)
    return size is not None and size >= bands.LARGE_MODEL


def _billions(parameters: float) -> str:
    return f"{parameters / 1e9:g}B"


_RATE, _EPOCHS = "spec.training.learningRate", "spec.training.epochs"
_RANK, _BATCH = "spec.training.loraRank", "spec.training.batchSizeTokens"

RULES: tuple[AdviceRule, ...] = (
    AdviceRule(
        "learning-rate-high",
        (_RATE,),
        ("Learning Rate", "Faster convergence"),
        f"learningRate is above {bands.LEARNING_RATE_FACTOR:g} times its default",
        "Large steps overshoot: the reward spikes and collapses. Stay near the default.",
        learning_rate_high,
    ),
    AdviceRule(
        "learning-rate-low",
        (_RATE,),
        ("Learning Rate",),
        f"learningRate is below 1/{bands.LEARNING_RATE_FACTOR:g} of its default",
        "Small steps learn slowly and level off early. Stay near the default.",
        learning_rate_low,
    ),
    AdviceRule(
        "epochs-many",
        (_EPOCHS,),
        ("Epochs", "Prevent overfitting"),
        f"epochs is {bands.MANY_EPOCHS} or more",
        "One epoch suits most tasks. Add one or two if the reward still rises; more may memorize the rows.",
        epochs_many,
    ),
    AdviceRule(
        "lora-rank-low",
        (_RANK, "spec.model.parameters"),
        ("LoRA Rank",),
        f"loraRank is {bands.LOW_RANK} and the model is not known to be large",
        "A small adapter is fast but may be too small for complex tasks.",
        lora_rank_low,
    ),
    AdviceRule(
        "lora-rank-high",
        (_RANK, "spec.model.parameters"),
        ("LoRA Rank", "Higher capacity", "Prevent overfitting"),
        f"loraRank is above {bands.USUAL_RANK} and the model is not known to be small",
        "A large adapter learns more, needs more GPU memory, and overfits sooner.",
        lora_rank_high,
    ),
    AdviceRule(
        "lora-rank-high-for-small-model",
        (_RANK, "spec.model.parameters"),
        ("LoRA Rank", "LoRA Rank + Model Size", "Prevent overfitting"),
        f"loraRank is above {bands.USUAL_RANK} and the model has less than {_billions(bands.SMALL_MODEL)}",
        f"Below {_billions(bands.SMALL_MODEL)} a rank up to {bands.USUAL_RANK} is usually enough.",
        lora_rank_high_for_small_model,
    ),
    AdviceRule(
        "lora-rank-low-for-large-model",
        (_RANK, "spec.model.parameters"),
        ("LoRA Rank", "LoRA Rank + Model Size", "Higher capacity"),
        f"loraRank is {bands.LOW_RANK} and the model has {_billions(bands.LARGE_MODEL)} or more",
        "Large models may need a higher rank to learn complex behaviour, and the resources for it.",
        lora_rank_low_for_large_model,
    ),
    AdviceRule(
        "batch-size-small",
        (_BATCH,),
        ("Batch Size",),
        f"batchSizeTokens is below 1/{bands.BATCH_FACTOR} of its default",
        "Small batches lower the throughput and make gradients noisy. The noise may help exploration.",
        batch_small,
    ),
    AdviceRule(
        "batch-size-large",
        (_BATCH,),
        ("Batch Size", "Learning Rate + Batch Size"),
        f"batchSizeTokens is above {bands.BATCH_FACTOR} times its default",
        "Large batches give smooth updates and throughput, but fewer updates for the same rows.",
        batch_large,
    ),
    AdviceRule(
        "batch-size-below-one-group",
        (_BATCH, "spec.sampling.numRollouts", "spec.training.maxContextLength", "spec.sampling.maxTokens"),
        ("Batch Size",),
        "batchSizeTokens is less than numRollouts × the longest sequence",
        "The batch should have enough tokens for all rollouts of a prompt with the maximum length.",
        batch_below_group,
    ),
)
