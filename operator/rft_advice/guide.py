"""The tuning guide in our words: what the nine parameters do, and when to change them.

The ranges and defaults in these texts come from the models, and the advised limits come from ``bands``.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

from pydantic import BaseModel

from rft_advice import bands
from rft_api.fields import Field, find
from rft_api.job import RFTJobSpec


class Guide(NamedTuple):
    """The guide's text on one parameter."""

    path: str
    does: str
    too_low: str
    too_high: str
    change: str
    """When to change the parameter, and how far."""

    @property
    def field(self) -> Field:
        """The field of the manifest that holds the parameter, with its range and default."""
        return find(self.path)


def _band(band: Sequence[float]) -> str:
    return f"{band[0]:g} to {band[1]:g}"


NINE: tuple[Guide, ...] = (
    Guide(
        "spec.training.learningRate",
        "How far one optimizer step moves the adapter's weights.",
        "The reward rises very slowly, or levels off before it is good.",
        "The reward jumps, then collapses: steps go past the good weights.",
        "Lower it when the reward jumps and then collapses, raise it when the curve levels off too early."
        f" Stay within {bands.LEARNING_RATE_FACTOR:g} times of the default in either direction.",
    ),
    Guide(
        "spec.training.epochs",
        "How many passes the training makes over the rows; each row is used once per epoch.",
        "The policy has not seen enough when the run ends.",
        "The rows are memorized: the training reward rises while the held-out reward does not.",
        "Add one or two when the reward still climbs at the end. Most tasks need no more than the default.",
    ),
    Guide(
        "spec.training.loraRank",
        "The size of the LoRA adapter, and with it how much new behaviour it can hold.",
        "Trains fast, but may be too small for complex tasks.",
        "Needs more GPU memory and overfits sooner.",
        "Raise it for complex reasoning, or when the reward does not move. A change of style needs little."
        f" Models below {bands.SMALL_MODEL / 1e9:g}B rarely need more than {bands.USUAL_RANK}; from"
        f" {bands.LARGE_MODEL / 1e9:g}B on more may be needed.",
    ),
    Guide(
        "spec.training.batchSizeTokens",
        "Prompt and completion tokens of one step. Tokens, not sequences: long answers mean few.",
        "Noisy steps, which may help exploration, and less throughput.",
        "Smooth steps and more throughput, but fewer steps for the same rows.",
        "Rarely. Keep room for all rollouts of a prompt at their longest. The default learning rate is"
        " tuned for the default batch; a larger batch may carry a slightly higher rate.",
    ),
    Guide(
        "spec.sampling.temperature",
        "How random the choice of the next token is.",
        "Rollouts of a prompt come out alike, nothing is explored, the policy collapses.",
        "Answers become incoherent.",
        f"Lower it to {_band(bands.PRECISE_TEMPERATURE)} for precise, factual or safe answers, raise it to"
        f" {_band(bands.CREATIVE_TEMPERATURE)} for creative tasks or more diverse rollouts.",
    ),
    Guide(
        "spec.sampling.topP",
        "Draws only from the most probable tokens that together reach this share of the probability.",
        "Answers lose diversity; 0 leaves a single token, and nothing to learn from.",
        "Nothing is cut: unlikely tokens can be drawn, and with them made-up content.",
        f"Lower it to {_band(bands.FOCUSED_TOP_P)} where graders punish made-up facts; keep"
        f" {bands.DIVERSE_TOP_P:g} or more for creative tasks.",
    ),
    Guide(
        "spec.sampling.topK",
        "Draws only from this many of the most probable tokens, however probable; 0 turns that off.",
        "Focused answers that resemble each other; 1 leaves nothing to learn from.",
        f"More exploration, and slower sampling above {bands.MOST_TOP_K}.",
        "Together with temperature, e.g. 0.8 with the default. Where one cut-off is enough prefer topP, which"
        " follows how sure the model is.",
    ),
    Guide(
        "spec.sampling.numRollouts",
        "How many answers to each prompt are compared with each other.",
        "Little to compare: groups often score the same, which teaches nothing.",
        "Cost rises with every rollout, the gain becomes small.",
        f"Raise it to {_band(bands.QUALITY_ROLLOUTS)} when quality matters more than cost, else keep"
        f" {bands.USUAL_ROLLOUTS}.",
    ),
    Guide(
        "spec.sampling.maxTokens",
        "The longest answer, in tokens.",
        "Answers are cut before they end and score badly.",
        "Cost rises with every token generated, and prompts get less of the context.",
        "Raise it for long reasoning and long texts, or when answers are cut; lower it where answers are"
        " naturally short.",
    ),
)


def guide_for(path: str) -> Guide | None:
    """Return the guide's text on the parameter at ``path``, or None if it is not one of the nine
    parameters.
    """
    return next((guide for guide in NINE if guide.path == path), None)


def value_of(spec: RFTJobSpec, path: str) -> Any:
    """Return the value in a spec at a path such as ``spec.sampling.topK``, or ``None`` if the spec has no
    value there.
    """
    return reduce(_child, path.split(".")[1:], spec)


def _child(model: Any, alias: str) -> Any:
    if not isinstance(model, BaseModel):
        return None
    fields = type(model).model_fields
    return getattr(model, next(name for name, info in fields.items() if (info.alias or name) == alias))
