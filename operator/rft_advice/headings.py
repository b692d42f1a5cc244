"""The headings of the tuning guide, the web page that the advice rules follow (see ``rft_advice``).

The page docs/reference/advice.md lists the rules for each heading.
"""

from typing import Literal, get_args

Heading = Literal[
    "Overview",
    "Learning Rate",
    "Epochs",
    "LoRA Rank",
    "Batch Size",
    "Temperature",
    "Top-p (Nucleus Sampling)",
    "Top-k",
    "Number of Rollouts (n)",
    "Max Tokens",
    "Temperature + Top-p/Top-k",
    "Learning Rate + Batch Size",
    "LoRA Rank + Model Size",
    "Start with Defaults",
    "One Change at a Time",
    "Track Everything",
    "Faster convergence",
    "Better quality",
    "Safer/less toxic",
    "More creative",
    "Lower cost",
    "Higher capacity",
    "Prevent overfitting",
]
"""The headings of the tuning guide under which it gives advice. The last seven are from its section "Common
Patterns"."""

HEADINGS: tuple[Heading, ...] = get_args(Heading)
