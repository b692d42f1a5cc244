"""Advice rules for a run. They read the spec of the RFTJob, and the run's reward curve, metrics and
evaluation.

Each rule has a pure function that returns the advice as a message, or None if the rule does not apply. The
message contains the numbers from which the advice follows.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from rft_advice import bands
from rft_advice.canary import CANARY_ERRORS, largest_fall
from rft_advice.curve import Curve, curve_of, epoch_means
from rft_advice.headings import Heading
from rft_api.fields import find
from rft_api.job import RFTJobSpec
from rft_api.status import EvaluationResult, Metrics, Progress, Recommendation, Reward
from rft_run.mismatch import ADVICE_KL

RISE = 0.1
"""The mean reward (0 to 1) counts as risen if it is higher by at least this value: in a later quarter of the
curve than in an earlier one, or at the peak than at the start.
"""
NO_RISE = 0.02
"""The mean reward (0 to 1) counts as unchanged if it changes by less than this value."""
GOOD = 0.95
"""A reward (0 to 1) of at least this value counts as good: it can hardly rise any further."""
LOST = 0.5
"""The reward counts as collapsed if it rises, and then falls by at least this fraction (0 to 1) of the rise.
"""
CLIMBING = 0.2
"""A curve counts as still rising if (q4 - q3) / (q4 - q1) has at least this value. Here q1 to q4 are the mean
rewards of its four quarters.

For a straight line the value is 1/3.
"""
LEVEL = 0.1
"""A curve counts as level if |q4 - q2| / (q2 - q1) has at most this value. Here q1 to q4 are the mean rewards
of its four quarters.
"""
CUT = 0.1
"""The user gets advice if at least this fraction of a step's completions is truncated at ``maxTokens``."""
ALIKE = 0.5
"""The user gets advice if in at least this fraction of a step's groups all rewards are equal."""
LOW_ENTROPY = 0.1
"""The user gets advice if the entropy, in nats per token, is below this value. Then the next token is nearly
always the same."""
CANARY_FALL = 0.05
"""The user gets advice only if the mean score (0 to 1) of a canary, a grader of weight 0, fell by at least
this value."""
UNUSED = 8
"""The user gets advice if ``maxTokens`` is at least this many times the mean length of completions."""

RATE, EPOCHS, RANK = "spec.training.learningRate", "spec.training.epochs", "spec.training.loraRank"
TEMPERATURE, ROLLOUTS = "spec.sampling.temperature", "spec.sampling.numRollouts"
ENGINE = "spec.sampling.engine"
MAX_TOKENS, MAX_STEPS = "spec.sampling.maxTokens", "spec.stop.maxSteps"


class RunFacts(Protocol):
    """The data of a run that the advice rules for runs read. Each field is None if it does not exist yet.

    The trainer passes its ``RunStatus``, which has these fields, to the rules. It reports the advice that
    they return.
    """

    @property
    def progress(self) -> Progress | None: ...
    @property
    def reward(self) -> Reward | None: ...
    @property
    def evaluation(self) -> EvaluationResult | None: ...
    @property
    def metrics(self) -> Metrics | None: ...


class RunRule(NamedTuple):
    """A rule that gives advice on a run if its condition is true. The function ``message`` checks the
    condition, and returns the advice or None. It is a pure function.

    ``headings`` are the headings of the tuning guide that the rule follows. ``when`` is the condition, and
    ``advice`` is the advice, both in general words for the documentation.
    """

    id: str
    paths: tuple[str, ...]
    """Paths of the manifest's fields that the rule is about. The first one is the field to change."""
    headings: tuple[Heading, ...]
    when: str
    advice: str
    message: Callable[[RFTJobSpec, RunFacts], str | None]

    def speak(self, spec: RFTJobSpec, run: RunFacts) -> Recommendation | None:
        """Return the recommendation if the rule's condition is true for the run, else None."""
        message = self.message(spec, run)
        if message is None:
            return None
        return Recommendation(rule=self.id, parameter=self.paths[0], message=message)


def reward_collapsed(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to lower the learning rate if the reward rose and then fell sharply. Else return None."""
    curve = curve_of(run.reward)
    if curve is None or curve.peak - curve.start < RISE:
        return None
    if curve.peak - curve.end < LOST * (curve.peak - curve.start):
        return None
    rate = spec.training.learning_rate
    lower = max(rate / 2, find(RATE).minimum or 0.0)
    what = f"lower learningRate from {rate:g} to {lower:g}" if lower < rate else "use the best checkpoint"
    return (
        f"the reward rose from {curve.start:.2f} to {curve.peak:.2f} at step {curve.peak_step}, then fell to"
        f" {curve.end:.2f}: {what}"
    )


def reward_levelled_off(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to raise the learning rate if the reward rose early, and then stayed constant below
    ``GOOD``. Else return None.
    """
    curve = curve_of(run.reward)
    rate, most = spec.training.learning_rate, bands.TRAINING.learning_rate * bands.LEARNING_RATE_FACTOR
    if curve is None or rate >= most or curve.end >= GOOD:
        return None
    first, second, _, last = curve.quarters
    # If the reward fell after the rise, it has collapsed. A higher learning rate would make this worse.
    if second - first < RISE or not abs(last - second) <= LEVEL * (second - first):
        return None
    return (
        f"the mean reward went from {first:.2f} in the first quarter of the curve to {second:.2f} in the"
        f" second and is {last:.2f} in the last: raise learningRate from {rate:g} to"
        f" {min(1.5 * rate, most):g}"
    )


def slow_at_low_rate(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to use the default learning rate if the reward did not change and the rate is below its
    default. Else return None.
    """
    curve, rate = curve_of(run.reward), spec.training.learning_rate
    if curve is None or rate >= bands.TRAINING.learning_rate or not _unmoved(curve):
        return None
    return (
        f"{_not_moved(curve)}, with learningRate {rate:g}: raise it to the default"
        f" {bands.TRAINING.learning_rate:g}"
    )


def never_learned(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to raise the LoRA rank if the reward did not change. Else return None.

    Also return None if the learning rate is below its default. Then another rule advises a higher rate.
    """
    curve, rank = curve_of(run.reward), spec.training.lora_rank
    higher = [choice for choice in find(RANK).choices if choice > rank]
    slow = spec.training.learning_rate < bands.TRAINING.learning_rate
    if curve is None or slow or not higher or not _unmoved(curve):
        return None
    return (
        f"{_not_moved(curve)}, with loraRank {rank}: if the base model earns any reward, raise loraRank to"
        f" {higher[0]}"
    )


def still_climbing(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to add one epoch if the reward was still rising when the last epoch ended. Else return
    None.
    """
    curve, epochs = curve_of(run.reward), spec.training.epochs
    if curve is None or not _used_all_rows(spec, run) or _reached_max_steps(spec, run) or not _climbs(curve):
        return None
    if not find(EPOCHS).allows(epochs + 1):
        return None
    return f"{_climbing(curve)} when the rows ended: raise epochs from {epochs} to {epochs + 1}"


def stopped_while_climbing(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to raise ``stop.maxSteps`` if the reward was still rising when this limit ended the run.
    Else return None.
    """
    curve = curve_of(run.reward)
    if curve is None or not _reached_max_steps(spec, run) or not _climbs(curve):
        return None
    return (
        f"{_climbing(curve)} when stop.maxSteps {_max_steps(spec)} ended the run: raise it, or leave it out"
    )


def epochs_stopped_helping(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to use one epoch less if the last of several epochs did not raise the reward. Else return
    None.
    """
    progress, epochs = run.progress, spec.training.epochs
    if progress is None or epochs == 1 or not _used_all_rows(spec, run):
        return None
    means = epoch_means(run.reward, epochs, progress.step)
    if means is None or means[-1] - means[-2] >= NO_RISE:
        return None
    return (
        f"the mean reward was {means[-2]:.2f} in epoch {epochs - 1} and {means[-1]:.2f} in epoch {epochs}:"
        f" lower epochs from {epochs} to {epochs - 1}"
    )


def overfitted(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to use the default number of epochs if the reward rose on training rows, but not on
    held-out rows. Else return None. This rule is for runs of several epochs.
    """
    evidence = _overfit(run)
    if evidence is None or spec.training.epochs == 1:
        return None
    return f"{evidence}: lower epochs from {spec.training.epochs} to {bands.TRAINING.epochs}"


def overfitted_in_one_epoch(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to lower the LoRA rank if the reward rose on training rows, but not on held-out rows.
    Else return None. This rule is for runs of a single epoch.
    """
    evidence, rank = _overfit(run), spec.training.lora_rank
    lower = [choice for choice in find(RANK).choices if choice < rank]
    if evidence is None or spec.training.epochs > 1 or not lower:
        return None
    return f"{evidence}: lower loraRank from {rank} to {lower[-1]}"


def completions_cut(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to raise ``maxTokens`` if many completions of the last step were truncated at this limit.
    Else return None.
    """
    cut = run.metrics.truncated_fraction if run.metrics is not None else None
    value = spec.sampling.max_tokens
    higher = min(2 * value, int(find(MAX_TOKENS).maximum or 2 * value))
    if cut is None or cut < CUT or higher == value:
        return None
    context = spec.training.max_context_length
    room = ", and maxContextLength with it" if context is not None and context <= higher else ""
    return (
        f"{cut:.0%} of the last step's completions were cut at maxTokens {value}: raise it to {higher}{room}"
    )


def max_tokens_unused(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to lower ``maxTokens`` if it is far above the mean length of the last step's completions,
    and none was truncated. Else return None.
    """
    metrics, value = run.metrics, spec.sampling.max_tokens
    if metrics is None or metrics.completion_tokens is None or metrics.truncated_fraction != 0:
        return None
    lower = value // 2
    if metrics.completion_tokens * UNUSED > value or lower < bands.SHORT_COMPLETION:
        return None
    return (
        f"completions of the last step had {metrics.completion_tokens:.0f} tokens on average and none was"
        f" cut at maxTokens {value}: lower it to {lower}, since memory is planned for the longest completion"
    )


def groups_score_alike(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to raise the number of rollouts per prompt if all rewards are equal in many groups of the
    last step, so that their advantages are 0. Else return None.
    """
    alike = run.metrics.zero_variance_fraction if run.metrics is not None else None
    value = spec.sampling.num_rollouts
    higher = next((count for count in bands.QUALITY_ROLLOUTS if count > value), None)
    if alike is None or alike < ALIKE or higher is None or _is_good(run):
        return None
    return (
        f"in {alike:.0%} of the last step's groups all {value} rollouts scored the same, which teaches"
        f" nothing: raise numRollouts to {higher}"
    )


def diversity_lost(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return advice to raise the temperature if the entropy is so low that rollouts of a prompt hardly
    differ. Else return None.
    """
    entropy = run.metrics.entropy if run.metrics is not None else None
    value = spec.sampling.temperature
    higher = next((band for band in bands.CREATIVE_TEMPERATURE if band > value), None)
    if entropy is None or entropy >= LOW_ENTROPY or higher is None or _is_good(run):
        return None
    return (
        f"the entropy is {entropy:.3f} nats per token, so rollouts hardly differ: raise temperature from"
        f" {value:g} to {higher:g}"
    )


def canary_fell(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return a warning if the reward rose while the score of a canary (a grader of weight 0) fell. Else
    return None.

    The fall must be larger than noise can explain. ``rft_advice.canary`` describes how this is tested.
    """
    canaries = [grader.name for grader in spec.graders if grader.is_canary]
    points = run.reward.history if run.reward is not None else []
    fall = largest_fall(points, canaries, CANARY_FALL)
    if fall is None:
        return None
    return (
        f"since step {fall.step} the mean reward rose from {fall.reward_before:.2f} to"
        f" {fall.reward_after:.2f} while the canary {fall.canary} fell from {fall.before:.2f} to"
        f" {fall.after:.2f} ({fall.errors:.0f} standard errors). The policy may exploit errors of the"
        f" graders: compare rollouts with a high reward before and after step {fall.step} (rft samples)."
        f" Correct these graders, and use a checkpoint of step {fall.step} or of an earlier step"
    )


def sampler_drifts(spec: RFTJobSpec, run: RunFacts) -> str | None:
    """Return a warning if the token probabilities of the sampler and the trainer differ more than usual. Else
    return None.

    If they differ much more, the trainer itself ends the run.
    """
    drift = run.metrics.mismatch_kl if run.metrics is not None else None
    if drift is None or drift < ADVICE_KL:
        return None
    return (
        f"mismatchKl of the last step is {drift:.3g} per token; usually it is below {ADVICE_KL:g}. The"
        f" sampler ({spec.sampling.engine}) computes other probabilities than the trainer. Compare the"
        " version and the dtype of the sampler with those of the trainer. If generation overlaps training,"
        " lower learningRate"
    )


def _unmoved(curve: Curve) -> bool:
    return abs(curve.quarters[-1] - curve.quarters[0]) < NO_RISE and curve.end < GOOD


def _not_moved(curve: Curve) -> str:
    return (
        f"the mean reward was {curve.quarters[0]:.2f} in the first quarter of the curve and is"
        f" {curve.quarters[-1]:.2f} in the last"
    )


def _climbs(curve: Curve) -> bool:
    rise, late = curve.quarters[-1] - curve.quarters[0], curve.quarters[-1] - curve.quarters[-2]
    return rise >= RISE and late >= CLIMBING * rise and curve.end < GOOD


def _climbing(curve: Curve) -> str:
    return (
        f"the mean reward still climbed, from {curve.quarters[-2]:.2f} to {curve.quarters[-1]:.2f} in the"
        " last quarter of the curve,"
    )


def _ended(run: RunFacts) -> bool:
    return run.progress is not None and run.progress.stage in ("evaluatingTuned", "finished")


def _used_all_rows(spec: RFTJobSpec, run: RunFacts) -> bool:
    """Return whether a run has ended because all rows of its last epoch were used, and not because of a stop
    rule.
    """
    return run.progress is not None and _ended(run) and run.progress.epoch > spec.training.epochs


def _max_steps(spec: RFTJobSpec) -> int | None:
    return spec.stop.max_steps if spec.stop is not None else None


def _reached_max_steps(spec: RFTJobSpec, run: RunFacts) -> bool:
    most = _max_steps(spec)
    return most is not None and run.progress is not None and run.progress.step >= most


def _overfit(run: RunFacts) -> str | None:
    """Return the beginning of a message if a run is overfitted: its training reward rose, but its held-out
    reward did not. The text has both changes of the reward. Return None if the run is not overfitted.
    """
    curve = curve_of(run.reward)
    held_out = run.evaluation.reward if run.evaluation is not None else None
    if curve is None or held_out is None or held_out.difference is None:
        return None
    rise = curve.quarters[-1] - curve.quarters[0]
    if rise < RISE or held_out.difference.mean > 0:
        return None
    return (
        f"the training reward rose by {rise:.2f} and the held-out reward changed by"
        f" {held_out.difference.mean:+.2f} (95 % interval {held_out.difference.low:+.2f} to"
        f" {held_out.difference.high:+.2f})"
    )


def _is_good(run: RunFacts) -> bool:
    return run.reward is not None and run.reward.latest is not None and run.reward.latest >= GOOD


RUN_RULES: tuple[RunRule, ...] = (
    RunRule(
        "reward-collapsed",
        (RATE,),
        ("Learning Rate",),
        "the reward rose and then lost half of the rise again",
        "If the reward jumps and then collapses, lower the learning rate.",
        reward_collapsed,
    ),
    RunRule(
        "reward-levelled-off",
        (RATE,),
        ("Learning Rate", "Learning Rate + Batch Size", "Faster convergence"),
        "the reward rose, levelled off in the first half and is not good yet",
        "If the reward levels off early, raise the learning rate, but stay within the advised range.",
        reward_levelled_off,
    ),
    RunRule(
        "slow-at-low-learning-rate",
        (RATE,),
        ("Learning Rate", "Faster convergence"),
        "the reward has not moved and learningRate is below its default",
        "With too low a learning rate, the training converges very slowly.",
        slow_at_low_rate,
    ),
    RunRule(
        "never-learned",
        (RANK,),
        ("LoRA Rank", "Higher capacity"),
        "the reward has not moved and learningRate is at its default or above",
        "A model that struggles to learn may need a larger adapter.",
        never_learned,
    ),
    RunRule(
        "still-climbing",
        (EPOCHS,),
        ("Epochs", "Faster convergence"),
        "the rows ended while the reward still climbed",
        "If the reward still rises at the end, add one or two epochs.",
        still_climbing,
    ),
    RunRule(
        "stopped-while-climbing",
        (MAX_STEPS,),
        ("Epochs",),
        "stop.maxSteps ended the run while the reward still climbed",
        "If the reward still rises at the end, allow more steps.",
        stopped_while_climbing,
    ),
    RunRule(
        "epochs-stopped-helping",
        (EPOCHS,),
        ("Epochs", "Lower cost"),
        "the last of several epochs was no better than the one before",
        "See in the reward curve when more epochs no longer help.",
        epochs_stopped_helping,
    ),
    RunRule(
        "overfitted",
        (EPOCHS,),
        ("Epochs", "Prevent overfitting"),
        "after several epochs the training reward rose and the held-out reward did not",
        "Against overfitting keep one epoch.",
        overfitted,
    ),
    RunRule(
        "overfitted-in-one-epoch",
        (RANK,),
        ("LoRA Rank", "Prevent overfitting"),
        "after one epoch the training reward rose and the held-out reward did not",
        "To prevent overfitting, consider a lower rank.",
        overfitted_in_one_epoch,
    ),
    RunRule(
        "completions-cut",
        (MAX_TOKENS, "spec.training.maxContextLength"),
        ("Max Tokens", "Better quality"),
        f"{CUT:.0%} or more of the completions are cut at maxTokens",
        "If answers are cut, allow more tokens.",
        completions_cut,
    ),
    RunRule(
        "max-tokens-unused",
        (MAX_TOKENS,),
        ("Max Tokens", "Lower cost"),
        f"completions take at most 1/{UNUSED} of maxTokens on average and none is cut",
        "If answers are naturally short, a low limit is enough.",
        max_tokens_unused,
    ),
    RunRule(
        "groups-score-alike",
        (ROLLOUTS,),
        ("Number of Rollouts (n)", "Better quality"),
        f"in {ALIKE:.0%} or more of the groups all rollouts score the same, and the reward is not good yet",
        "With more rollouts per prompt, more groups have different scores to compare.",
        groups_score_alike,
    ),
    RunRule(
        "canary-fell",
        ("spec.graders.weight", "spec.stop.canary"),
        ("Better quality", "Safer/less toxic"),
        f"the reward rose while the mean score of a grader of weight 0 fell by at least {CANARY_FALL:g} and"
        f" by at least {CANARY_ERRORS:g} standard errors",
        "If the reward rises while a score that is not trained falls, the policy may exploit errors of the"
        " graders.",
        canary_fell,
    ),
    RunRule(
        "diversity-lost",
        (TEMPERATURE,),
        ("Temperature", "Better quality", "More creative"),
        f"the entropy is below {LOW_ENTROPY:g} nats per token, and the reward is not good yet",
        "If outputs lack diversity, raise the temperature.",
        diversity_lost,
    ),
    RunRule(
        "sampler-drifts",
        (ENGINE, RATE),
        ("Track Everything",),
        f"mismatchKl is {ADVICE_KL:g} or more",
        "The policy learns less from rollouts if the sampler's probabilities differ from the trainer's.",
        sampler_drifts,
    ),
)


def recommend(spec: RFTJobSpec, run: RunFacts) -> list[Recommendation]:
    """Apply all advice rules for runs to the data of a run, and return their recommendations in the order of
    ``RUN_RULES``. ``spec`` is the spec of the RFTJob.
    """
    return [said for rule in RUN_RULES if (said := rule.speak(spec, run)) is not None]
