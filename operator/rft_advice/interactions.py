"""Advice rules for combinations of two or more parameters of a spec."""

from rft_advice import bands
from rft_advice.rule import AdviceRule
from rft_advice.training import longest_sequence
from rft_api.job import RFTJobSpec

_RATE = bands.TRAINING.learning_rate
_BATCH = bands.TRAINING.batch_size_tokens
_CREATIVE = bands.CREATIVE_TEMPERATURE[0]
_FOCUSED = bands.FOCUSED_TOP_P[1]


def temperature_unfiltered(spec: RFTJobSpec) -> str | None:
    """Return advice to set top-p or top-k if the temperature is high and both are off, so that unlikely
    tokens may be sampled. Else return None.
    """
    sampling = spec.sampling
    if sampling.temperature <= _CREATIVE or sampling.top_p < 1 or sampling.top_k != 0:
        return None
    return (
        f"{sampling.temperature:g} with topP 1 and topK 0: any token may be drawn, however unlikely;"
        f" set topP {bands.DIVERSE_TOP_P:g} or topK {bands.SAMPLING.top_k}"
    )


def creative_temperature_low_top_p(spec: RFTJobSpec) -> str | None:
    """Return advice to raise top-p if the temperature is high for diverse answers, but a low top-p makes them
    less diverse again. Else return None.
    """
    sampling = spec.sampling
    if sampling.temperature < _CREATIVE or not 0 < sampling.top_p < bands.DIVERSE_TOP_P:
        return None
    return (
        f"{sampling.top_p:g} removes the diversity that temperature {sampling.temperature:g} gives;"
        f" for creative tasks keep topP at {bands.DIVERSE_TOP_P:g} to {bands.SAMPLING.top_p:g}"
    )


def top_k_with_low_top_p(spec: RFTJobSpec) -> str | None:
    """Return advice to turn top-k off (0) if a low top-p is set too: then top-p is the stricter limit. Else
    return None.
    """
    # There is no advice if top-p is ``_FOCUSED`` or more, because the tuning guide's pattern for safer
    # answers lowers top-p to this value, and lowers top-k too.
    sampling = spec.sampling
    if sampling.top_k == 0 or not 0 < sampling.top_p < _FOCUSED:
        return None
    return (
        f"{sampling.top_k} with topP {sampling.top_p:g} limits the candidate tokens twice, and topP is the"
        " stricter limit; set topK 0 and keep topP, which adapts to how sure the model is"
    )


def learning_rate_raised_alone(spec: RFTJobSpec) -> str | None:
    """Return advice to raise the learning rate only for a good reason, if it is above its default and the
    batch size is not. Else return None.

    There is another rule for a learning rate that is far above its default.
    """
    training = spec.training
    beyond = training.learning_rate > _RATE * bands.LEARNING_RATE_FACTOR
    if beyond or training.learning_rate <= _RATE or training.batch_size_tokens > _BATCH:
        return None
    return (
        f"{training.learning_rate:g} is above the default {_RATE:g}, which is tuned for batches of {_BATCH}"
        f" tokens, and batchSizeTokens is {training.batch_size_tokens}: raise the learning rate only"
        " when the curve of another run levelled off early"
    )


def epochs_with_high_rank(spec: RFTJobSpec) -> str | None:
    """Return advice to use one epoch or a lower LoRA rank if a run has several epochs and a high rank,
    because the policy may memorize the rows. Else return None.
    """
    training = spec.training
    passes = 1 < training.epochs < bands.MANY_EPOCHS
    if not passes or training.lora_rank < bands.USUAL_RANK:
        return None
    return (
        f"{training.epochs} epochs with rank {training.lora_rank}: both make memorizing the rows easier;"
        f" compare held-out rewards, and if they fall, use epochs {bands.TRAINING.epochs} or a lower rank"
    )


def turns_fill_context(spec: RFTJobSpec) -> str | None:
    """Return advice to set a longer context or fewer tokens if the turns of a rollout with an environment may
    fill the whole context. Else return None.
    """
    context = longest_sequence(spec)
    if spec.environment is None or spec.rollout_tokens < context:
        return None
    turns, each = spec.environment.max_turns, spec.sampling.max_tokens
    sampled = f"{turns} turns of up to {each} tokens"
    if spec.environment.max_tokens is not None:
        sampled = f"environment.maxTokens {spec.rollout_tokens}"
    return (
        f"the prompt, all turns of a rollout and the environment's answers must fit into {context} tokens,"
        f" but {sampled} alone may fill them, and then the rollout is cut off; set maxContextLength above"
        f" {spec.rollout_tokens} if model and memory allow it, or lower environment.maxTurns or"
        " sampling.maxTokens"
    )


RULES: tuple[AdviceRule, ...] = (
    AdviceRule(
        "temperature-unfiltered",
        ("spec.sampling.temperature", "spec.sampling.topP", "spec.sampling.topK"),
        ("Temperature + Top-p/Top-k", "Temperature"),
        f"temperature is above {_CREATIVE:g}, topP is 1 and topK is 0",
        "With a high temperature, let topP or topK exclude unlikely tokens.",
        temperature_unfiltered,
    ),
    AdviceRule(
        "creative-temperature-low-top-p",
        ("spec.sampling.topP", "spec.sampling.temperature"),
        ("Temperature + Top-p/Top-k", "Top-p (Nucleus Sampling)", "More creative"),
        f"temperature is {_CREATIVE:g} or more and topP is above 0 and below {bands.DIVERSE_TOP_P:g}",
        "For creative tasks, raise the temperature and keep topP high.",
        creative_temperature_low_top_p,
    ),
    AdviceRule(
        "top-k-with-low-top-p",
        ("spec.sampling.topK", "spec.sampling.topP"),
        ("Temperature + Top-p/Top-k", "Top-k"),
        f"topK is on and topP is above 0 and below {_FOCUSED:g}",
        "If one of the two limits is enough, prefer topP, which adapts to the distribution.",
        top_k_with_low_top_p,
    ),
    AdviceRule(
        "learning-rate-raised-alone",
        ("spec.training.learningRate", "spec.training.batchSizeTokens"),
        ("Learning Rate + Batch Size", "Faster convergence"),
        f"learningRate is above its default, up to {bands.LEARNING_RATE_FACTOR:g} times, and batchSizeTokens"
        " is not above its default",
        "Larger batches allow somewhat higher rates. With the default batch, raise the rate only if a curve"
        " levelled off early.",
        learning_rate_raised_alone,
    ),
    AdviceRule(
        "epochs-with-high-rank",
        ("spec.training.epochs", "spec.training.loraRank"),
        ("Epochs", "LoRA Rank", "Prevent overfitting"),
        f"epochs is 2 to {bands.MANY_EPOCHS - 1} and loraRank is {bands.USUAL_RANK} or more",
        "To prevent overfitting, keep one epoch, or lower the rank.",
        epochs_with_high_rank,
    ),
    AdviceRule(
        "turns-fill-context",
        (
            "spec.training.maxContextLength",
            "spec.environment.maxTurns",
            "spec.environment.maxTokens",
            "spec.sampling.maxTokens",
        ),
        (),
        "environment is set, and the sampled tokens of a rollout alone may fill the context",
        "A rollout that fills the context is cut off. Leave room for the prompt, all turns and all answers.",
        turns_fill_context,
    ),
)
