"""The numbers in the conditions of the advice. Each text names its source in the tuning guide.

"Ours" means that the guide has no number, and we chose this one. Ranges and defaults are in the models.
"""

from rft_api.parameters import Sampling, Training

TRAINING = Training()
SAMPLING = Sampling()
"""The default values of the parameters."""

LEARNING_RATE_FACTOR = 2.0
"""The learning rate should be at most this many times its default, and at least the default divided by it.

Guide: Learning Rate, "When to adjust", third point."""
MANY_EPOCHS = 4
"""From this number of epochs on there is advice. Ours: the guide advises at most 3 epochs.

Guide: Epochs, "When to adjust", first point: one or two epochs more than the default."""
LOW_RANK = 4
"""A LoRA rank that may have too little capacity. Guide: LoRA Rank, "How it affects outcome", first point."""
USUAL_RANK = 16
"""The highest LoRA rank that suits most tasks. Guide: LoRA Rank, second point, and LoRA Rank + Model Size."""
SMALL_MODEL = 13e9
LARGE_MODEL = 70e9
"""Models with fewer parameters than ``SMALL_MODEL`` are small, those from ``LARGE_MODEL`` on are large.

Guide: LoRA Rank + Model Size."""
BATCH_FACTOR = 4
"""There is advice if the batch is more than this many times larger or smaller than its default.

Ours: the guide (Batch Size, "When to adjust") only advises to stay near the default."""
PRECISE_TEMPERATURE = (0.3, 0.5)
"""Range of the temperature for precise tasks. Below it sampling is almost greedy.

Guide: Temperature, "When to adjust", first point."""
CREATIVE_TEMPERATURE = (1.0, 1.2)
"""Range of the temperature for creative tasks. Above it texts become incoherent.

Guide: Temperature, "When to adjust", second point."""
FOCUSED_TOP_P = (0.2, 0.5)
"""Range of top-p that removes unlikely tokens. Guide: Top-p, "When to adjust", first point."""
DIVERSE_TOP_P = 0.9
"""Lowest top-p for creative tasks. Guide: Top-p, "When to adjust", second point."""
MOST_TOP_K = 50
"""Highest advised top-k. Guide: Top-k, "When to adjust", second point."""
FEW_TOP_K = 10
"""A top-k below this counts as low. Ours: the guide has no number (Top-k, "How it affects outcome")."""
USUAL_ROLLOUTS = 4
"""With fewer rollouts per prompt there is little to compare.

Guide: Number of Rollouts, "When to adjust", second point."""
QUALITY_ROLLOUTS = (6, 8)
"""Range of the number of rollouts if quality matters more than cost.

Guide: Number of Rollouts, "When to adjust", first point."""
SHORT_COMPLETION = 64
"""If ``maxTokens`` is below this, answers may be cut.

Ours: the guide (Max Tokens, "How it affects outcome", first point) only says "too short"."""
LONG_COMPLETION_FACTOR = 4
"""There is advice if ``maxTokens`` is more than this many times its default. Ours.

Guide: Max Tokens, third point: the cost is proportional to the number of tokens."""
PROMPT_SHARE = 0.25
"""Ours: if prompts have a smaller share of the context than this, there is advice."""
MANY_CHANGES = 4
"""There is advice if this many parameters differ from their defaults.

Ours: the guide's "One Change at a Time" is about changes since the last run, which a spec does not show."""
CPU_MODEL = 1e9
"""Ours: for models with more parameters a CPU takes minutes for a step."""
