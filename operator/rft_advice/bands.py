"""The numbers in the conditions of the advice, such as the highest top-k without advice.

The docstring of each number names its place in the tuning guide (see ``rft_advice``). Where the guide has no
number, we chose it. The ranges and defaults of the fields are in the pydantic classes of ``rft_api``.
"""

from rft_api.parameters import Sampling, Training

TRAINING = Training()
SAMPLING = Sampling()
"""The parameters of training and sampling with their default values."""

LEARNING_RATE_FACTOR = 2.0
"""There is advice if the learning rate is above its default times this factor, or below its default divided
by this factor.

Source in the tuning guide: Learning Rate, "When to adjust", third point.
"""
MANY_EPOCHS = 4
"""There is advice if ``epochs`` has at least this value.

We chose this number: the tuning guide (Epochs, "When to adjust", first point) only says to add one or two
epochs to the default, which gives at most 3."""
LOW_RANK = 4
"""A LoRA rank up to this number may have too little capacity.

Source in the tuning guide: LoRA Rank, "How it affects outcome", first point."""
USUAL_RANK = 16
"""The highest LoRA rank that suits most tasks.

Sources in the tuning guide: LoRA Rank, second point, and LoRA Rank + Model Size."""
SMALL_MODEL = 13e9
LARGE_MODEL = 70e9
"""A model with fewer parameters than ``SMALL_MODEL`` is small. A model with at least ``LARGE_MODEL``
parameters is large.

Source in the tuning guide: LoRA Rank + Model Size."""
BATCH_FACTOR = 4
"""There is advice if ``batchSizeTokens`` is above its default times this factor, or below its default
divided by this factor.

We chose this number: the tuning guide (Batch Size, "When to adjust") only says to stay near the default.
"""
PRECISE_TEMPERATURE = (0.3, 0.5)
"""Range of the temperature for precise tasks. Below this range sampling is almost greedy.

Source in the tuning guide: Temperature, "When to adjust", first point."""
CREATIVE_TEMPERATURE = (1.0, 1.2)
"""Range of the temperature for creative tasks. Above this range texts become incoherent.

Source in the tuning guide: Temperature, "When to adjust", second point."""
FOCUSED_TOP_P = (0.2, 0.5)
"""Range of top-p that removes unlikely tokens.

Source in the tuning guide: Top-p, "When to adjust", first point."""
DIVERSE_TOP_P = 0.9
"""The lowest top-p for creative tasks. Source in the tuning guide: Top-p, "When to adjust", second point."""
MOST_TOP_K = 50
"""The highest advised top-k. Source in the tuning guide: Top-k, "When to adjust", second point."""
FEW_TOP_K = 10
"""There is advice if top-k is above 1 and below this number.

We chose this number: the tuning guide (Top-k, "How it affects outcome") has none."""
USUAL_ROLLOUTS = 4
"""There is advice if a prompt has fewer rollouts than this number, because little can be compared.

Source in the tuning guide: Number of Rollouts, "When to adjust", second point."""
QUALITY_ROLLOUTS = (6, 8)
"""Range of the number of rollouts per prompt for runs in which quality matters more than cost.

Source in the tuning guide: Number of Rollouts, "When to adjust", first point.
"""
SHORT_COMPLETION = 64
"""There is advice if ``maxTokens`` is below this number of tokens, because answers may be truncated.

We chose this number: the tuning guide (Max Tokens, "How it affects outcome", first point) only says "too
short"."""
THOUGHT = 4096
"""There is advice if a thinking model's ``maxTokens`` is below this number of tokens.

We chose this number: the tuning guide has none. Thoughts about school mathematics often have one to four
thousand tokens."""
LONG_COMPLETION_FACTOR = 4
"""There is advice if ``maxTokens`` is more than this many times its default.

We chose this number: the tuning guide (Max Tokens, third point) only says that the cost is proportional
to the number of tokens."""
PROMPT_SHARE = 0.25
"""There is advice if completions may leave less than this fraction of the context for the prompt.

We chose this number: the tuning guide has none.
"""
EVERY_STEPS = 10
"""The value of ``evaluation.everySteps`` that advice recommends: the number of steps from one evaluation to
the next.

It equals the default number of steps from one checkpoint to the next. We chose this number: the tuning guide
has none.
"""
MANY_CHANGES = 4
"""There is advice if at least this many of the tuning guide's nine parameters differ from their defaults.

We chose this number. The tuning guide ("One Change at a Time") only speaks of changes since the run before,
but a spec does not show the parameters of the run before.
"""
CPU_MODEL = 1e9
"""There is advice if a model with at least this many parameters is trained on a CPU: each step takes minutes.

We chose this number: the tuning guide has none.
"""
