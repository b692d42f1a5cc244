"""The adapter multiplies in bfloat16, as on a GPU. Its weights and their gradients stay float32."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rft_api.parameters import Training
from rft_trainer.learn.arithmetic import keep_input_dtype
from rft_trainer.learn.packing import Completion, PackedRow
from rft_trainer.learn.policy import Policy, PolicyOptions

ROW = PackedRow((5, 6, 7), (Completion((8, 9, 10, 11, 5, 9) * 4, (-1.0,) * 24, 1.0),))


def gradients(policy: Policy) -> list[Tensor]:
    hidden_N_H = policy.hidden(policy.batch([ROW]))
    draw = torch.Generator().manual_seed(3)
    loss = (hidden_N_H.float() * torch.randn(hidden_N_H.shape, generator=draw)).sum()
    return list(torch.autograd.grad(loss, policy.output_factors()))


def test_rounded_products_have_the_gradients_of_float32_within_rounding(character_model: Path) -> None:
    training = Training(lora_rank=4, lora_alpha=8)
    policy = Policy(PolicyOptions(character_model, training, "cpu", "bfloat16", 0))
    with torch.no_grad():
        for factor in policy.output_factors():  # a new adapter has zeros here and changes nothing
            factor.normal_(std=0.1, generator=torch.Generator().manual_seed(4))
    assert not policy._rounds, "on a CPU the adapter computes in float32"
    expected = gradients(policy)
    dtypes: set[torch.dtype] = set()

    def watch(_module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        dtypes.update((inputs[0].dtype, output.dtype))

    layers = [module for name, module in policy._model.named_modules() if name.endswith("lora_A.default")]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    assert gradients(policy)[0].equal(expected[0])
    assert dtypes == {torch.float32}
    dtypes.clear()
    keep_input_dtype(policy._model)
    policy._rounds = True
    found = gradients(policy)
    assert dtypes == {torch.bfloat16}
    for hook in hooks:
        hook.remove()
    for parameter in policy.trainable():
        assert parameter.dtype == torch.float32
    for one, wanted in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert float((one - wanted).norm() / wanted.norm()) < 0.03
