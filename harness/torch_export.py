"""PyTorch models as ONNX files, in memory."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from datasets.errors import UserError


def to_onnx(model: nn.Module | ExportedProgram, example: Any) -> bytes:
    """Export a model in evaluation mode, batch normalisation as operators of its own (as NNLQP's files have it).

    Attention is made of operators too: PyTorch's fused one, taken where gradients are off, cannot be exported. PyTorch's
    TorchScript exporter is used: its successor fuses batch normalisation and needs a package more (onnxscript).

    Args:
        model: a module, or an exported program, which is taken in the mode in which it was exported.
        example: one input, or a tuple of all; of an exported program by default those it was exported with.

    Raises:
        UserError: if there is no example input or the exporter fails on the model, on an unknown operator for instance.
    """
    exported = isinstance(model, ExportedProgram)
    module: Any = model.module() if isinstance(model, ExportedProgram) else model
    inputs, keywords = _inputs(model, example)
    modes = [(part, part.training) for part in module.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    if not exported:
        module.eval()
    buffer = io.BytesIO()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keep = torch.onnx.TrainingMode.PRESERVE
            torch.onnx.export(module, inputs, buffer, kwargs=keywords, dynamo=False, training=keep)  # type: ignore[arg-type]
    except Exception as error:  # the exporter's own, and whatever it or the model's code stumbles over
        reason = " ".join(str(error).strip().partition("\n")[0].split()) or "no reason given"
        raise UserError(
            f"{_name(model)}: cannot be exported to ONNX ({type(error).__name__}: {reason}); check the example input, or "
            "export it to a file by other means"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for part, mode in modes:
            part.training = mode
    return buffer.getvalue()


def _inputs(model: nn.Module | ExportedProgram, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if example is not None:
        return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}
    if isinstance(model, ExportedProgram) and model.example_inputs is not None:
        inputs: tuple[tuple[Any, ...], dict[str, Any]] = model.example_inputs
        return inputs
    raise UserError(f"{_name(model)}: needs an example input: predict(model, example=torch.zeros(1, 3, 224, 224))")


def _name(model: nn.Module | ExportedProgram) -> str:
    return type(model).__name__
