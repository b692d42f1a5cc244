"""Places a frozen base model with a LoRA adapter on the devices of distributed training.

Every device has the whole adapter. Either every device has the whole base model too (``replicate``), or FSDP2
shards the base over the devices (``divide``). FSDP2 shards only the decoder layers. The embedding and the
output layer are not sharded, because they may share their weights. A sharded output layer would also be
gathered again for each chunk of logits.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rft_run.errors import ModelError
from rft_trainer.learn.ranks import Team

_ADAPTER = "lora_"


def replicate(model: nn.Module, device: torch.device, team: Team) -> None:
    """Move the whole ``model`` to the device, in every process of the team, with the leader's weights.

    All processes call this function. ``model``: on the leader (rank 0), the complete model in host memory. On
    the other processes, a model without weights, on torch's meta device.
    """
    _place(model.modules(), device, team)


def divide(model: nn.Module, decoder: nn.Module, layers: int, device: torch.device, team: Team) -> None:
    """Move ``model`` to the device, and shard each decoder layer over the processes of the team with FSDP2.

    All processes call this function. The weights of the adapter are not sharded.

    - ``model``: on the leader (rank 0), the complete model in host memory. On the other processes, a model on
      torch's meta device, which receives the leader's weights.
    - ``decoder``: the module that returns hidden states.
    - ``layers``: number of layers of ``decoder``.

    During sharding only one complete layer is on the device at a time. Raises ModelError if ``decoder`` has
    no list of ``layers`` layers.
    """
    mesh = init_device_mesh(device.type, (team.size,))
    stack = _layers(decoder, layers)
    for layer in stack:
        _place(layer.modules(), device, team)
        adapter = {value for name, value in layer.named_parameters() if _ADAPTER in name}
        fully_shard(layer, mesh=mesh, ignored_params=adapter)
    inside = {module for layer in stack for module in layer.modules()}
    _place((module for module in model.modules() if module not in inside), device, team)
    divided = {value for layer in stack for value in layer.parameters()}
    # Makes the decoder the FSDP root of the layers, so that FSDP prefetches the next layer while the
    # current one computes.
    fully_shard(decoder, mesh=mesh, ignored_params=set(decoder.parameters()) - divided)


def _layers(decoder: nn.Module, count: int) -> list[nn.Module]:
    found = [module for module in decoder.modules() if isinstance(module, nn.ModuleList)]
    stack = next((list(modules) for modules in found if len(modules) == count), None)
    if stack is None:
        raise ModelError(f"{type(decoder).__name__} cannot be sharded: it has no list of {count} layers")
    return stack


def _place(modules: Iterator[nn.Module], device: torch.device, team: Team) -> None:
    """Move the weights and buffers of these modules, without their submodules, to the device.

    Every process of the team gets the leader's values. Tied weights stay tied.
    """
    placed: dict[int, tuple[Tensor, Tensor]] = {}
    for module in modules:
        for name, tensor in _own(module):
            if id(tensor) not in placed:
                # Keep the old tensor alive, so that its id() is not used again for another one.
                placed[id(tensor)] = (tensor, _placed(tensor, device, team))
            setattr(module, name, placed[id(tensor)][1])


def _own(module: nn.Module) -> list[tuple[str, Any]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _placed(tensor: Tensor, device: torch.device, team: Team) -> Tensor:
    value = tensor.detach()
    moved = torch.empty_like(value, device=device) if value.is_meta else value.to(device)
    team.broadcast([moved])
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(moved, requires_grad=tensor.requires_grad)
    return moved
