"""The adapter's arithmetic on a GPU: bfloat16, like the base model's, with weights that stay float32.

A step of AdamW is smaller than bfloat16 can show, so the adapter's weights and gradients are float32. PEFT
then converts the input of each adapted layer to float32 too, and computes there. That moves twice as many
bytes, for numbers that come from bfloat16 and return to it. Here the weights are rounded to bfloat16 for each
product instead, and the gradients of weights are added up in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer


def keep_input_dtype(model: Any) -> None:
    """Let the adapted layers of a PEFT model leave their input in its dtype, for ``rounded`` arithmetic."""
    adapted: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for module in adapted:
        module.cast_input_dtype_enabled = False


@contextmanager
def rounded(device_type: str) -> Iterator[None]:
    """In the ``with`` block, products of matrices round float32 weights to bfloat16.

    A weight is rounded once in the block, however often it is used.
    """
    with torch.autocast(device_type, dtype=torch.bfloat16):
        yield
