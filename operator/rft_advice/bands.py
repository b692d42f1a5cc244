"""The limits of the advice. Each comment names the sentence of the tuning guide that the limit comes from.

"Ours" means that the guide has no number, and we chose this one. Ranges and defaults are in the models.
"""

from rft_api.parameters import Sampling, Training

TRAINING = Training()
SAMPLING = Sampling()
"""The default values of the parameters."""

LEARNING_RATE_FACTOR = 2.0
"""Learning Rate, "When to adjust", third point."""
MANY_EPOCHS = 4
"""Ours. The guide (Epochs, "When to adjust", first point) adds one or two to the default, so at most 3."""
LOW_RANK = 4
"""LoRA Rank, "How it affects outcome", first point: a rank that may lack capacity."""
USUAL_RANK = 16
"""LoRA Rank, second point: the highest rank that suits most tasks. LoRA Rank + Model Size says the same."""
SMALL_MODEL = 13e9
LARGE_MODEL = 70e9
"""LoRA Rank + Model Size: models with fewer parameters count as small, the others as large."""
BATCH_FACTOR = 4
"""Ours. Batch Size, "When to adjust", only advises to stay near the default."""
PRECISE_TEMPERATURE = (0.3, 0.5)
"""Temperature, "When to adjust", first point: the band for precision. Below it sampling is near-greedy."""
CREATIVE_TEMPERATURE = (1.0, 1.2)
"""Temperature, "When to adjust", second point: the band for creative tasks. Above it text falls apart."""
FOCUSED_TOP_P = (0.2, 0.5)
"""Top-p, "When to adjust", first point: the band against unlikely tokens."""
DIVERSE_TOP_P = 0.9
"""Top-p, "When to adjust", second point: the lower end for creative tasks."""
MOST_TOP_K = 50
"""Top-k, "When to adjust", second point."""
FEW_TOP_K = 10
"""Ours. Top-k, "How it affects outcome", second point, names no number for "lower"."""
USUAL_ROLLOUTS = 4
"""Number of Rollouts, "When to adjust", second point. Fewer give little to compare."""
QUALITY_ROLLOUTS = (6, 8)
"""Number of Rollouts, "When to adjust", first point: when cost is no concern."""
SHORT_COMPLETION = 64
"""Ours, in tokens. Max Tokens, "How it affects outcome", first point, only says "too short"."""
LONG_COMPLETION_FACTOR = 4
"""Ours, times the default. Max Tokens, third point: cost is linear in the tokens."""
PROMPT_SHARE = 0.25
"""Ours: the share of the context below which the room for prompts counts as too small."""
MANY_CHANGES = 4
"""Ours: number of parameters that differ from their defaults. "One Change at a Time" means changes since the
last run, which a spec alone does not show."""
CPU_MODEL = 1e9
"""Ours, in parameters: from here on a CPU takes minutes for a step."""
