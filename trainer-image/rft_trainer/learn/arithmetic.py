"""Lets the adapter compute in bfloat16 on a GPU, as the base model does. The adapter's weights stay float32.

AdamW's changes of a weight are too small for bfloat16, so the adapter's weights and gradients are float32. By
default PEFT then converts the input of each adapted layer to float32, and computes in float32. This moves
twice as many bytes as bfloat16, although input and output of the layer are bfloat16. With this module, matrix
products use the weights rounded to bfloat16. The gradients of weights are summed in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer


def keep_input_dtype(model: Any) -> None:
    """Make the adapted layers of a PEFT model keep the dtype of their input, not convert it to float32."""
    adapted: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for module in adapted:
        module.cast_input_dtype_enabled = False


@contextmanager
def rounded(device_type: str) -> Iterator[None]:
    """In the ``with`` block, compute matrix products in bfloat16, with float32 weights rounded to bfloat16.

    ``device_type``: the device type of torch's autocast, such as "cuda". A weight is rounded only once in the
    block, even if it is used several times.
    """
    with torch.autocast(device_type, dtype=torch.bfloat16):
        yield
