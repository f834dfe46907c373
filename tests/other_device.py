"""Another device without having one: tensors that claim to be on ``meta`` and are computed on the CPU."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from datasets.graph import GraphBatch

DEVICE = torch.device("meta")
BETWEEN_DEVICES = ("aten.copy_.", "aten._to_copy.")


class Elsewhere(Tensor):
    """A tensor on ``DEVICE`` whose values are those of ``here``."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=DEVICE
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """Within it, operations on tensors of two devices raise, as with a GPU; numbers may be on either."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})


def moved_batch(batch: GraphBatch) -> GraphBatch:
    """The batch on ``DEVICE``."""
    return replace(batch, **{field.name: tree_map(_move, getattr(batch, field.name)) for field in fields(batch)})


def move_module(module: nn.Module) -> None:
    """Put the parameters and registered buffers on ``DEVICE``."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = _move(buffer)
        for name, parameter in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(_move(parameter.detach()))


def brought_back(tensor: Tensor) -> Tensor:
    """The values of a tensor that has to be on ``DEVICE``."""
    assert isinstance(tensor, Elsewhere), "this was computed on the CPU"
    return tensor.here


def _move(value: Any) -> Any:
    return Elsewhere(value) if isinstance(value, Tensor) else value


def _compute(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    elsewhere = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.dim()]
    if elsewhere and here and not str(operation).startswith(BETWEEN_DEVICES):
        raise RuntimeError(f"{operation}: tensors of shapes {here} are on the CPU, others are not")
    device = kwargs.get("device")
    result_is_elsewhere = bool(elsewhere) if device is None else torch.device(device) == DEVICE
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map(lambda value: value.here if isinstance(value, Elsewhere) else value, (args, kwargs))
    same = {id(tensor.here): tensor for tensor in elsewhere}

    results = operation(*args, **kwargs)
    if result_is_elsewhere:
        results = tree_map(lambda value: same[id(value)] if id(value) in same else _move(value), results)
    return results
