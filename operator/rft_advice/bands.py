"""The limits above or below which a rule gives advice on a parameter, such as the highest top-k without
advice.

The docstring of each limit names its source in the tuning guide (see ``rft_advice``). If the guide has no
number, we chose it. The ranges and defaults of the fields are in the pydantic classes of ``rft_api``.
"""

from rft_api.parameters import Sampling, Training

TRAINING = Training()
SAMPLING = Sampling()
"""``TRAINING`` and ``SAMPLING`` are the sections ``spec.training`` and ``spec.sampling`` with all defaults.
"""

LEARNING_RATE_FACTOR = 2.0
"""The user gets advice if the learning rate is above its default times this factor, or below its default
divided by this factor.

Source in the tuning guide: Learning Rate, "When to adjust", third point.
"""
MANY_EPOCHS = 4
"""The user gets advice if ``epochs`` has at least this value.

We chose this number: the tuning guide (Epochs, "When to adjust", first point) only says to add one or two
epochs to the default, which gives at most 3."""
LOW_RANK = 4
"""The user gets advice if ``loraRank`` is at most this number, because the adapter may have too little
capacity.

Source in the tuning guide: LoRA Rank, "How it affects outcome", first point."""
USUAL_RANK = 16
"""The highest LoRA rank that suits most tasks. The user gets advice if ``loraRank`` is higher.

Sources in the tuning guide: LoRA Rank, second point, and LoRA Rank + Model Size."""
SMALL_MODEL = 13e9
LARGE_MODEL = 70e9
"""Limits for advice on the LoRA rank: a model is small if it has fewer parameters than ``SMALL_MODEL``, and
large if it has at least ``LARGE_MODEL`` parameters.

Source in the tuning guide: LoRA Rank + Model Size."""
BATCH_FACTOR = 4
"""The user gets advice if ``batchSizeTokens`` is above its default times this factor, or below its default
divided by this factor.

We chose this number: the tuning guide (Batch Size, "When to adjust") only says to stay near the default.
"""
PRECISE_TEMPERATURE = (0.3, 0.5)
"""Advised range of the temperature for tasks with precise answers. Below this range sampling is almost
greedy.

Source in the tuning guide: Temperature, "When to adjust", first point."""
CREATIVE_TEMPERATURE = (1.0, 1.2)
"""Advised range of the temperature for creative tasks. Above this range texts become incoherent.

Source in the tuning guide: Temperature, "When to adjust", second point."""
FOCUSED_TOP_P = (0.2, 0.5)
"""Advised range of top-p if unlikely tokens should not be sampled, against hallucinations.

Source in the tuning guide: Top-p, "When to adjust", first point."""
DIVERSE_TOP_P = 0.9
"""The lowest advised top-p for creative tasks.

Source in the tuning guide: Top-p, "When to adjust", second point."""
MOST_TOP_K = 50
"""The user gets advice if top-k is above this number, because sampling becomes slow.

Source in the tuning guide: Top-k, "When to adjust", second point."""
FEW_TOP_K = 10
"""The user gets advice if top-k is above 1 and below this number, because few tokens can be sampled.

We chose this number: the tuning guide (Top-k, "How it affects outcome") has none."""
USUAL_ROLLOUTS = 4
"""The user gets advice if ``numRollouts`` is below this number, because a group then has few rewards to
compare.

Source in the tuning guide: Number of Rollouts, "When to adjust", second point."""
QUALITY_ROLLOUTS = (6, 8)
"""Advised range of ``numRollouts`` (rollouts per prompt) if quality matters more than cost.

Source in the tuning guide: Number of Rollouts, "When to adjust", first point.
"""
SHORT_COMPLETION = 64
"""The user gets advice if ``maxTokens`` is below this number of tokens, because answers may be truncated.

We chose this number: the tuning guide (Max Tokens, "How it affects outcome", first point) only says "too
short"."""
THOUGHT = 4096
"""The user gets advice if a model writes its reasoning before the answer, and ``maxTokens`` is below this
number of tokens.

We chose this number: the tuning guide has none. Thoughts about school mathematics often have one to four
thousand tokens."""
LONG_COMPLETION_FACTOR = 4
"""The user gets advice if ``maxTokens`` is more than this many times its default.

We chose this number: the tuning guide (Max Tokens, third point) only says that the cost is proportional
to the number of tokens."""
PROMPT_SHARE = 0.25
"""The user gets advice if a completion of ``maxTokens`` leaves less than this fraction of the context for the
prompt.

We chose this number: the tuning guide has none.
"""
EVERY_STEPS = 10
"""The value that advice recommends for ``evaluation.everySteps``, the number of training steps between two
evaluations.

It equals the default number of steps between two checkpoints. We chose this number: the tuning guide has
none.
"""
MANY_CHANGES = 4
"""The user gets advice if at least this many of the tuning guide's nine parameters differ from their
defaults.

We chose this number. The tuning guide ("One Change at a Time") only speaks of changes since the run before,
but a spec does not show the parameters of the run before.
"""
CPU_MODEL = 1e9
"""The user gets advice if a model with at least this many parameters is trained on a CPU: each step takes
minutes.

We chose this number: the tuning guide has none.
"""
