"""Reading golden vectors: cases made with the official code, as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from datasets.graph import DenseGraphs, GraphBatch
from datasets.networks import ATTRIBUTES, KNOWN, OPERATIONS

ATTRIBUTE_NAMES = {"kernel": "kernel_shape", "stride": "strides", "pad": "pads", "dilation": "dilations"}
"""ONNX names of the attributes whose names differ."""


class Kinds(dict[str, dict[str, Tensor]]):
    """The tensors of each stored kind; a test that needs a kind that is not stored is skipped."""

    def __missing__(self, kind: str) -> dict[str, Tensor]:
        pytest.skip(f"this case stores no {kind}")


@dataclass(frozen=True)
class Case:
    """One model configuration: its description and the tensors of each kind (params, io, acts, step)."""

    facts: dict[str, Any]
    tensors: Kinds


def names(folder: Path, group: str) -> list[str]:
    """Names of the model cases of a group that store their weights or say how to fill them."""
    return sorted(p.stem for p in (folder / group).glob("*.json") if "config" in json.loads(p.read_text()))


def stored(folder: Path, *path: str) -> Path:
    """A file of the folder; a test that needs one that is not there is skipped."""
    file = folder.joinpath(*path)
    if not file.exists():
        pytest.skip(f"no {file}")
    return file


def facts(folder: Path, *path: str) -> Any:
    """What a JSON file says."""
    return json.loads(stored(folder, *path).read_text())


def tensors(folder: Path, *path: str) -> dict[str, Tensor]:
    """What a file of tensors holds."""
    return load_file(stored(folder, *path))


def read(folder: Path, group: str, name: str) -> Case:
    said = facts(folder, group, f"{name}.json")
    files = {kind: folder / group / file for kind, file in said["files"].items()}
    return Case(said, Kinds({kind: load_file(file) for kind, file in files.items() if file.exists()}))


def weights(case: Case) -> dict[str, Tensor]:
    """The official parameters, stored or filled in."""
    return case.tensors["params"] if "params" in case.tensors else fill(case.facts)


def keys_of_step(case: Case) -> list[str]:
    """The batches of which a training step is stored."""
    return [batch["key"] for batch in case.facts["batches"] if f"{batch['key']}/loss" in case.tensors["step"]]


def gradients(case: Case, prefix: str = "grad/") -> dict[str, Tensor]:
    """The gradients of all official parameters in a training step, 0 where none is stored."""
    step = case.tensors["step"]
    return {name: step.get(prefix + name, torch.zeros_like(value)) for name, value in weights(case).items()}


def fill(said: dict[str, Any]) -> dict[str, Tensor]:
    """The parameters of a full-size case, from the documented hash of (parameter, index)."""
    wide, mask = torch.int64, 0xFFFFFFFF

    def multiply(h: Tensor, factor: int) -> Tensor:
        low, high = h & 0xFFFF, h >> 16
        return ((low * factor) + ((high * factor & 0xFFFF) << 16)) & mask

    result = {}
    for row in said["fill"]["rows"]:
        size = 1
        for n in row["shape"]:
            size *= n
        h = multiply(torch.arange(1, size + 1, dtype=wide), 2654435761) + ((row["i"] + 1) * 2246822519 & mask) & mask
        for shift, factor in ((15, 2246822519), (13, 3266489917)):
            h = multiply(h ^ (h >> shift), factor)
        h = (h ^ (h >> 16)) >> 8
        values = row["base"] + row["amp"] * ((h.double() - 2**23) / 2**23)
        result[row["name"]] = values.float().view(row["shape"])
    return result


def assert_output(actual: Tensor, expected: Tensor, what: str, lost: float = 0.0) -> None:
    """A module's output up to rounding: 2e-5 of the largest number (of 1, if all are smaller) and 20 times ``lost``.

    Args:
        what: the module, for the message.
        lost: what our own float32 numbers are off those of float64; official ones are off by about as much.
    """
    limit = 2e-5 * max(1.0, float(expected.abs().max())) + 20 * lost
    torch.testing.assert_close(actual, expected, atol=limit, rtol=0, msg=lambda m: f"{what}: {m}")


def assert_gradient(actual: Tensor | None, expected: Tensor, name: str, lost: float = 0.0) -> None:
    """A gradient up to rounding: 5e-5 of its largest number and 20 times ``lost``, see ``assert_output``; None is 0."""
    limit = 5e-5 * float(expected.abs().max()) + 1e-7 + 20 * lost
    actual = torch.zeros_like(expected) if actual is None else actual
    assert (actual - expected).abs().max() <= limit, name


def initial_statistics(folder: Path, *path: str) -> dict[str, dict[str, float]]:
    """Mean, deviation (``std``) and largest size (``absmax``) of every official parameter when it has just been drawn."""
    found = facts(folder, "protocol", "init_stats.json")
    for name in path:
        found = found[name]
    return found


def assert_drawn_alike(weights: dict[str, Tensor], stored: dict[str, dict[str, float]]) -> None:
    """Weights come from the distributions that the statistics ``stored`` under the same names are of.

    Constants are equal, means and deviations within six standard errors, and of 100 numbers or more the largest, which
    tells a uniform from a normal distribution, is within 30 %. Of a single drawn number nothing is known.
    """
    assert stored.keys() == weights.keys()
    for name, row in stored.items():
        drawn, count = weights[name], weights[name].numel()
        if count == 1 and row["absmax"] > abs(row["mean"]):
            assert drawn != 0, name
            continue
        assert drawn.mean().item() == pytest.approx(row["mean"], abs=6 * row["std"] / count**0.5 + 1e-9), name
        assert drawn.std(correction=0).item() == pytest.approx(row["std"], rel=6 / count**0.5, abs=1e-9), name
        if count >= 100:
            assert drawn.abs().max().item() == pytest.approx(row["absmax"], rel=0.3), name


def cells(ops: list[list[int]], adjacency: list[list[list[int]]], target: Tensor | None = None) -> GraphBatch:
    """A batch from the lists of a golden case."""
    counts = torch.tensor([len(nodes) for nodes in ops])
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    edges = [torch.tensor(a).nonzero().T + start for a, start in zip(adjacency, ptr[:-1].tolist(), strict=True)]
    return GraphBatch(
        op=torch.tensor([op for nodes in ops for op in nodes]),
        edge_index=torch.cat(edges, 1),
        ptr=ptr,
        row=torch.arange(len(ops)),
        static={},
        labels={"y": torch.zeros(len(ops)) if target is None else target},
        target_name="y",
    )


def dense(ops: Tensor, adjacency: Tensor) -> DenseGraphs:
    """Equal-length graphs without padding."""
    return DenseGraphs(ops, torch.ones_like(ops, dtype=torch.bool), adjacency.bool())


def extracted(folder: Path, names: list[str]) -> GraphBatch:
    """A batch of whole networks, from what the official extractor said about ``names`` (``graph@bBATCH``)."""
    graphs = facts(folder, "onnx", "extract_nnlp.json")["graphs"]
    if unknown := set(names) - set(graphs):
        pytest.skip(f"nothing is stored of {unknown}")
    return networks([graphs[name] for name in names])


def of_extracted(case: Case) -> list[dict[str, Any]]:
    """What is said of the batches whose ``graphs`` are names of extracted ones."""
    named = [batch for batch in case.facts["batches"] if isinstance(batch.get("graphs"), list)]
    if not named:
        pytest.skip("this case has no batch of extracted graphs")
    return named


def networks(graphs: list[dict[str, Any]]) -> GraphBatch:
    """A batch of whole networks from the raw facts of each."""
    nodes = [node for graph in graphs for node in graph["nodes"]]
    ptr = torch.tensor([0, *(len(graph["nodes"]) for graph in graphs)]).cumsum(0)
    names = {"batch": "batch", "flops": "flops", "params": "params", "memory": "mem"}
    return GraphBatch(
        op=torch.tensor([OPERATIONS.index(_operation(node)) for node in nodes]),
        edge_index=torch.cat(
            [torch.tensor(g["directed_edges"]).T + first for g, first in zip(graphs, ptr, strict=False)], 1
        ),
        ptr=ptr,
        row=torch.arange(len(graphs)),
        static={name: torch.tensor([float(g[official]) for g in graphs]) for name, official in names.items()},
        labels={"ms": torch.ones(len(graphs))},
        target_name="ms",
        attributes=torch.tensor([_slots(node) for node in nodes]),
        output_shape=torch.tensor([_output_shape(node) for node in nodes]),
    )


def code_limit(batch: GraphBatch) -> float:
    """How far the codes of whole networks may be off the stored ones.

    Those are sinusoids of float64 products, ours of float32 ones, as under NumPy 1: the larger a dimension, the more they
    differ.
    """
    assert batch.attributes is not None
    assert batch.output_shape is not None
    largest = max(float(columns.nan_to_num().abs().max()) for columns in (batch.attributes, batch.output_shape))
    return 1e-5 + 2**-23 * largest


def _operation(node: dict[str, Any]) -> str:
    return KNOWN[node["code"] - 1] if node["code"] else "Unknown"


def _output_shape(node: dict[str, Any]) -> list[float]:
    """Four dimensions; the official shape of a declared input of rank 0 is None, which is coded as not a number."""
    shape = [nan] if node["out_shape"] is None else [float(size) for size in node["out_shape"]]
    return (shape + [0.0] * 4)[:4]


def _slots(node: dict[str, Any]) -> list[float]:
    """The attribute slots of a node: the first number of each attribute, or every place of a permutation."""
    slots = [0.0] * 8
    for place, slot in enumerate(ATTRIBUTES.get(_operation(node), ())):
        value = node["attrs"].get(ATTRIBUTE_NAMES.get(slot, slot), 0)
        values = value if isinstance(value, list) else [value]
        index = place if slot == "perm" else 0
        slots[place] = float(values[index]) if index < len(values) else 0.0
    return slots
