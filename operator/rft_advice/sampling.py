"""Advice rules for single parameters of ``spec.sampling``."""

from rft_advice import bands
from rft_advice.rule import AdviceRule
from rft_advice.thinking import thinks
from rft_advice.training import longest_sequence
from rft_api.job import RFTJobSpec

DEFAULTS = bands.SAMPLING
_PRECISE, _CREATIVE = bands.PRECISE_TEMPERATURE, bands.CREATIVE_TEMPERATURE
_FOCUSED, _QUALITY = bands.FOCUSED_TOP_P, bands.QUALITY_ROLLOUTS


def temperature_near_greedy(spec: RFTJobSpec) -> str | None:
    """Return advice to raise the temperature if it is so low that all rollouts of a prompt are alike. Else
    return None.
    """
    value = spec.sampling.temperature
    if value >= _PRECISE[0]:
        return None
    return (
        f"{value:g} is near-greedy: rollouts of a prompt are alike, nothing is explored, and the policy"
        f" may collapse; for precise or safe answers use {_PRECISE[0]:g} to {_PRECISE[1]:g}"
    )


def temperature_high(spec: RFTJobSpec) -> str | None:
    """Return advice to lower the temperature if it is so high that texts may become incoherent. Else return
    None.
    """
    value = spec.sampling.temperature
    if value <= _CREATIVE[1]:
        return None
    return (
        f"{value:g} is very random, so answers may become incoherent;"
        f" for creative tasks use {_CREATIVE[0]:g} to {_CREATIVE[1]:g}"
    )


def top_p_zero(spec: RFTJobSpec) -> str | None:
    """Return advice to raise top-p if it is 0, because only the most probable token can then be sampled. Else
    return None.
    """
    if spec.sampling.top_p > 0:
        return None
    return (
        "0 keeps only the most probable token: every rollout of a prompt is the same and nothing is learned;"
        f" use {DEFAULTS.top_p:g}, or {_FOCUSED[0]:g} to {_FOCUSED[1]:g} against unlikely tokens"
    )


def top_p_low(spec: RFTJobSpec) -> str | None:
    """Return advice to raise top-p if it is so low that very few tokens can be sampled. Else return None.
    Another rule is for top-p 0.
    """
    value = spec.sampling.top_p
    if value == 0 or value >= _FOCUSED[0]:
        return None
    return (
        f"{value:g} leaves very few tokens to choose from; {_FOCUSED[0]:g} to {_FOCUSED[1]:g} already"
        f" removes unlikely ones, {bands.DIVERSE_TOP_P:g} to {DEFAULTS.top_p:g} keeps answers diverse"
    )


def top_k_one(spec: RFTJobSpec) -> str | None:
    """Return advice to change top-k if it is 1, because only the most probable token can then be sampled.
    Else return None.
    """
    if spec.sampling.top_k != 1:
        return None
    return (
        "1 is greedy: every rollout of a prompt is the same and nothing is learned;"
        f" use {DEFAULTS.top_k}, or 0 for no limit"
    )


def top_k_low(spec: RFTJobSpec) -> str | None:
    """Return advice to use the default top-k, or top-p instead, if top-k is so low that few tokens can be
    sampled. Else return None. Another rule is for top-k 1.
    """
    value = spec.sampling.top_k
    if not 1 < value < bands.FEW_TOP_K:
        return None
    return (
        f"{value} candidates per token make answers focused and alike; the default is {DEFAULTS.top_k},"
        " and topP adapts better to how sure the model is"
    )


def top_k_above_50(spec: RFTJobSpec) -> str | None:
    """Return advice to lower top-k if it is so high that sampling is slow. Else return None."""
    value = spec.sampling.top_k
    if value <= bands.MOST_TOP_K:
        return None
    return f"{value} slows sampling down; keep it at or below {bands.MOST_TOP_K}, or use topP instead"


def rollouts_few(spec: RFTJobSpec) -> str | None:
    """Return advice to raise the number of rollouts per prompt if they are too few for a useful comparison of
    their rewards. Else return None.
    """
    value = spec.sampling.num_rollouts
    if value >= bands.USUAL_ROLLOUTS:
        return None
    return (
        f"{value} rollouts per prompt are cheap and give little to compare: in many groups all scores are"
        f" equal; {bands.USUAL_ROLLOUTS} suits most runs"
    )


def rollouts_many(spec: RFTJobSpec) -> str | None:
    """Return advice to lower the number of rollouts per prompt if it is high, because each further rollout
    costs as much but improves the result less. Else return None.
    """
    value = spec.sampling.num_rollouts
    if value <= _QUALITY[0]:
        return None
    ratio = value / DEFAULTS.num_rollouts
    return (
        f"{value} rollouts per prompt cost {ratio:g} times the default {DEFAULTS.num_rollouts}, and each"
        " further rollout improves the result less; unless quality matters more than cost, use"
        f" {bands.USUAL_ROLLOUTS}"
    )


def max_tokens_low(spec: RFTJobSpec) -> str | None:
    """Return advice to raise ``maxTokens`` if it is so low that answers may be cut. Else return None."""
    value = spec.sampling.max_tokens
    if value >= bands.SHORT_COMPLETION:
        return None
    return (
        f"{value} tokens suit only labels and one-line answers; if the model should reason first, its answer"
        " is cut before the end and gets no reward: raise maxTokens"
    )


def thought_cut(spec: RFTJobSpec) -> str | None:
    """Return advice to raise ``maxTokens`` if the model writes its reasoning before the answer, and the
    completion may be truncated before the answer. Else return None.
    """
    value, turned_off = spec.sampling.max_tokens, (spec.model.chat_template_args or {}).get("enable_thinking")
    if value >= bands.THOUGHT or turned_off is False or not thinks(spec.model.name):
        return None
    return (
        f"{spec.model.name} writes a thought before its answer. A completion that is cut at {value} tokens"
        " inside the thought has no answer and scores 0 with graders that read the answer: raise maxTokens to"
        f" {bands.THOUGHT} or more, or turn thinking off with spec.model.chatTemplateArgs, if the"
        " model's chat template allows this"
    )


def max_tokens_high(spec: RFTJobSpec) -> str | None:
    """Return a warning about the cost if ``maxTokens`` is far above its default. Else return None."""
    value, default = spec.sampling.max_tokens, DEFAULTS.max_tokens
    if value <= default * bands.LONG_COMPLETION_FACTOR:
        return None
    return (
        f"up to {value} tokens per rollout, {value / default:g} times the default {default}: cost rises with"
        " every token generated; keep it for long reasoning and long texts"
    )


def max_tokens_fills_context(spec: RFTJobSpec) -> str | None:
    """Return advice to lower ``maxTokens`` or to set a longer context if a completion of ``maxTokens`` leaves
    little of the context for the prompt. Else return None.
    """
    context = longest_sequence(spec)
    room = context - spec.sampling.max_tokens
    if room >= context * bands.PROMPT_SHARE:
        return None
    return (
        f"{spec.sampling.max_tokens} of the {context} tokens of context leave {room} for a prompt; rows with"
        " longer prompts are dropped: lower maxTokens, or raise maxContextLength"
    )


_TEMPERATURE, _TOP_P = "spec.sampling.temperature", "spec.sampling.topP"
_TOP_K, _ROLLOUTS = "spec.sampling.topK", "spec.sampling.numRollouts"
_MAX_TOKENS = "spec.sampling.maxTokens"

RULES: tuple[AdviceRule, ...] = (
    AdviceRule(
        "temperature-near-greedy",
        (_TEMPERATURE,),
        ("Temperature", "Safer/less toxic"),
        f"temperature is below {_PRECISE[0]:g}",
        "Without randomness there is no exploration: rollouts repeat and the policy collapses.",
        temperature_near_greedy,
    ),
    AdviceRule(
        "temperature-high",
        (_TEMPERATURE,),
        ("Temperature", "More creative", "Better quality"),
        f"temperature is above {_CREATIVE[1]:g}",
        "High randomness explores widely but may give incoherent text.",
        temperature_high,
    ),
    AdviceRule(
        "top-p-zero",
        (_TOP_P,),
        ("Top-p (Nucleus Sampling)",),
        "topP is 0",
        "Zero leaves one token, which is greedy sampling. It is allowed, but nothing is learned.",
        top_p_zero,
    ),
    AdviceRule(
        "top-p-low",
        (_TOP_P,),
        ("Top-p (Nucleus Sampling)", "Safer/less toxic"),
        f"topP is above 0 and below {_FOCUSED[0]:g}",
        "Lower topP to prevent hallucinations, but not so far that answers lose all diversity.",
        top_p_low,
    ),
    AdviceRule(
        "top-k-one",
        (_TOP_K,),
        ("Top-k",),
        "topK is 1",
        "A single candidate is greedy sampling: nothing is explored.",
        top_k_one,
    ),
    AdviceRule(
        "top-k-low",
        (_TOP_K,),
        ("Top-k", "Safer/less toxic"),
        f"topK is 2 to {bands.FEW_TOP_K - 1}",
        "With few candidate tokens, answers are less diverse. topP adapts to how sure the model is.",
        top_k_low,
    ),
    AdviceRule(
        "top-k-above-50",
        (_TOP_K,),
        ("Top-k",),
        f"topK is above {bands.MOST_TOP_K}",
        "Many candidates slow sampling down.",
        top_k_above_50,
    ),
    AdviceRule(
        "num-rollouts-few",
        (_ROLLOUTS,),
        ("Number of Rollouts (n)", "Better quality"),
        f"numRollouts is below {bands.USUAL_ROLLOUTS}",
        "Learning compares the rollouts of a prompt. A few rollouts are cheap, but give little to compare.",
        rollouts_few,
    ),
    AdviceRule(
        "num-rollouts-many",
        (_ROLLOUTS,),
        ("Number of Rollouts (n)", "Lower cost"),
        f"numRollouts is above {_QUALITY[0]}",
        "The cost grows with each rollout, but the gain from each further one becomes smaller.",
        rollouts_many,
    ),
    AdviceRule(
        "max-tokens-low",
        (_MAX_TOKENS,),
        ("Max Tokens",),
        f"maxTokens is below {bands.SHORT_COMPLETION}",
        "If completions are too short, the model cannot finish the task.",
        max_tokens_low,
    ),
    AdviceRule(
        "thought-cut",
        (_MAX_TOKENS, "spec.model.name"),
        (),
        f"the model thinks by default, as its name says, and maxTokens is below {bands.THOUGHT}",
        "If the thought is cut, the completion has no answer and earns no reward.",
        thought_cut,
    ),
    AdviceRule(
        "max-tokens-high",
        (_MAX_TOKENS,),
        ("Max Tokens", "Lower cost"),
        f"maxTokens is above {bands.LONG_COMPLETION_FACTOR} times its default",
        "Long answers help with reasoning, summaries and stories, and cost in proportion to their length.",
        max_tokens_high,
    ),
    AdviceRule(
        "max-tokens-fills-context",
        (_MAX_TOKENS, "spec.training.maxContextLength", "spec.training.batchSizeTokens"),
        ("Max Tokens",),
        f"prompts may have less than {bands.PROMPT_SHARE:.0%} of the context",
        "Prompt and completion together must fit into the context.",
        max_tokens_fills_context,
    ),
)
