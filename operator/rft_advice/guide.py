"""The content of the tuning guide (see ``rft_advice``) in our words: what its nine parameters do, and when to
change them.

The ranges and defaults in these texts come from the pydantic classes of ``rft_api``, and the advised limits
from ``bands``.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

from pydantic import BaseModel

from rft_advice import bands
from rft_api.fields import Field, find
from rft_api.job import RFTJobSpec


class Guide(NamedTuple):
    """What the tuning guide says about one parameter of an RFTJob, in our words.

    ``path`` is the path of the parameter, such as ``spec.sampling.topK``. ``does`` says what the parameter
    sets. ``too_low`` and ``too_high`` say what happens if its value is too low or too high.
    """

    path: str
    does: str
    too_low: str
    too_high: str
    change: str
    """When to change the parameter, and how far."""

    @property
    def field(self) -> Field:
        """The description of the parameter's field in the manifest, with its range and default."""
        return find(self.path)


def _band(band: Sequence[float]) -> str:
    return f"{band[0]:g} to {band[1]:g}"


NINE: tuple[Guide, ...] = (
    Guide(
        "spec.training.learningRate",
        "How far one optimizer step moves the adapter's weights.",
        "The reward rises very slowly, or levels off before it is good.",
        "The reward jumps, then collapses: steps are so large that they miss the good weights.",
        "Lower learningRate when the reward jumps and then collapses. Raise it when the reward stops rising"
        f" too early. Stay between 1/{bands.LEARNING_RATE_FACTOR:g} and {bands.LEARNING_RATE_FACTOR:g} times"
        " the default.",
    ),
    Guide(
        "spec.training.epochs",
        "How many passes the training makes over the rows; each row is used once per epoch.",
        "The policy has not learned enough from the rows when the run ends.",
        "The rows are memorized: the training reward rises while the held-out reward does not.",
        "Add one or two epochs when the reward still rises at the end. Most tasks need no more than the"
        " default.",
    ),
    Guide(
        "spec.training.loraRank",
        "The size of the LoRA adapter, which limits how much new behaviour the adapter can learn.",
        "The adapter trains fast, but may be too small for complex tasks.",
        "The adapter needs more GPU memory and overfits sooner.",
        "Raise loraRank for complex reasoning, or when the reward does not change. A change of style needs"
        f" only a low rank. Models below {bands.SMALL_MODEL / 1e9:g}B rarely need more than"
        f" {bands.USUAL_RANK}; models from {bands.LARGE_MODEL / 1e9:g}B on may need more.",
    ),
    Guide(
        "spec.training.batchSizeTokens",
        "Number of prompt and completion tokens in one step. Fewer long answers fit into it than short ones.",
        "Gradients are noisier, which may help exploration, and throughput is lower.",
        "Gradients are smoother and throughput is higher, but the same rows give fewer steps.",
        "Change batchSizeTokens rarely. A batch should have room for all rollouts of a prompt with the"
        " maximum length. The default learning rate is tuned for the default batch; a larger batch allows a"
        " slightly higher one.",
    ),
    Guide(
        "spec.sampling.temperature",
        "How random the choice of the next token is.",
        "Rollouts of a prompt are alike, so the policy explores nothing and may collapse.",
        "Answers become incoherent.",
        f"Lower temperature to {_band(bands.PRECISE_TEMPERATURE)} for precise, factual or safe answers, raise"
        f" it to {_band(bands.CREATIVE_TEMPERATURE)} for creative tasks or more diverse rollouts.",
    ),
    Guide(
        "spec.sampling.topP",
        "Sampling chooses only among the most probable tokens, whose probabilities add up to this value.",
        "Answers lose diversity; 0 leaves a single token, so rollouts are equal and nothing is learned.",
        "No token is excluded: unlikely tokens may be sampled, which can lead to made-up content.",
        f"Lower topP to {_band(bands.FOCUSED_TOP_P)} where graders punish made-up facts; keep"
        f" {bands.DIVERSE_TOP_P:g} or more for creative tasks.",
    ),
    Guide(
        "spec.sampling.topK",
        "Sampling chooses only among this number of the most probable tokens; 0 means no limit.",
        "Answers are focused and resemble each other; with 1 rollouts are equal and nothing is learned.",
        f"The policy explores more; sampling is slower above {bands.MOST_TOP_K}.",
        "Change topK together with temperature, e.g. use temperature 0.8 with the default topK. If one limit"
        " is enough, prefer topP, which adapts to how sure the model is.",
    ),
    Guide(
        "spec.sampling.numRollouts",
        "How many answers to each prompt are compared with each other.",
        "All rollouts of a group often get the same score, and then nothing is learned from the group.",
        "Each further rollout costs as much as those before, but improves the result less than they did.",
        f"Raise numRollouts to {_band(bands.QUALITY_ROLLOUTS)} when quality matters more than cost, else keep"
        f" {bands.USUAL_ROLLOUTS}.",
    ),
    Guide(
        "spec.sampling.maxTokens",
        "The longest answer, in tokens.",
        "Answers are truncated, and get low scores.",
        "Longer completions cost more, and less of the context is left for prompts.",
        "Raise maxTokens for long reasoning and long texts, or when answers are truncated; lower it where"
        " answers are naturally short.",
    ),
)


def guide_for(path: str) -> Guide | None:
    """Return the texts about the parameter at ``path``, such as ``spec.training.loraRank``: what it does, and
    when to change it. Return None if it is not one of the nine parameters in ``NINE``.
    """
    return next((guide for guide in NINE if guide.path == path), None)


def value_of(spec: RFTJobSpec, path: str) -> Any:
    """Return the value of a field of ``spec``. ``path`` is the path of the field, such as
    ``spec.sampling.topK``. Return ``None`` if the field, or an object around it, is absent.
    """
    return reduce(_child, path.split(".")[1:], spec)


def _child(model: Any, alias: str) -> Any:
    if not isinstance(model, BaseModel):
        return None
    fields = type(model).model_fields
    return getattr(model, next(name for name, info in fields.items() if (info.alias or name) == alias))
