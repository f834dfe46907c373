"""The three official node codings as views of one set of stored columns."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from datasets.errors import UserError
from datasets.graph import GraphBatch, TaskSpec
from datasets.networks import ATTRIBUTES, KNOWN, OPERATIONS, STATIC
from predictors.layers.network_features import CodedNodes, CodedStatic, NormalisedNodes, scaled_static
from tests.graphs import random_cells

SPEC = TaskSpec("latency", OPERATIONS, tuple(STATIC), "ms", ATTRIBUTES)
NAMES = {"kernel": "kernel_shape", "stride": "strides", "pad": "pads", "dilation": "dilations"}
VIEWS = {
    "nnlp": (NormalisedNodes(SPEC), lambda static: scaled_static(static, 1e9)),
    "v2": (CodedNodes(SPEC, 5), CodedStatic(1e9)),
    "lat": (CodedNodes(SPEC, 10), CodedStatic(1e7)),
}


def columns(facts) -> GraphBatch:
    """A batch of one graph from the raw facts the official extractor reported."""
    ops, attributes, shapes = [], [], []
    for node in facts["nodes"]:
        name = KNOWN[node["code"] - 1] if node["code"] else "Unknown"
        ops.append(OPERATIONS.index(name))
        slots = [0.0] * 8
        for place, slot in enumerate(ATTRIBUTES.get(name, ())):
            value = node["attrs"].get(NAMES.get(slot, slot), 0)
            if slot == "perm":
                slots[place] = value[place] if place < len(value) else 0
            else:
                slots[place] = value[0] if isinstance(value, list) else float(value)
        attributes.append(slots)
        shapes.append((node["out_shape"] + [0.0] * 4)[:4] if node["out_shape"] is not None else [float("nan")] * 4)
    static = {"batch": facts["batch"], "flops": facts["flops"], "params": facts["params"], "memory": facts["mem"]}
    return GraphBatch(
        op=torch.tensor(ops),
        edge_index=torch.tensor(facts["directed_edges"]).T,
        ptr=torch.tensor([0, len(ops)]),
        row=torch.zeros(1, dtype=torch.long),
        static={name: torch.tensor([float(value)]) for name, value in static.items()},
        labels={},
        target_name="",
        attributes=torch.tensor(attributes),
        output_shape=torch.tensor(shapes),
    )


@pytest.mark.parametrize("view", VIEWS)
def test_views_equal_the_official_features(golden_folder, view):
    facts = json.loads((golden_folder / "onnx" / f"extract_{view}.json").read_text())
    tensors = load_file(golden_folder / "onnx" / f"extract_{view}.safetensors")
    nodes, static = VIEWS[view]
    for name, graph in facts["graphs"].items():
        batch = columns(graph)
        x, expected = nodes(batch), tensors[f"{name}/x"]
        known = ~expected.isnan()
        assert x.shape == expected.shape
        torch.testing.assert_close(x[known], expected[known], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(static(batch.static)[0], tensors[f"{name}/static"].flatten(), atol=1e-5, rtol=1e-6)
    assert facts["graphs"]


def test_cells_have_no_such_columns():
    from dataclasses import replace

    batch = replace(random_cells(2, 0), attributes=None)
    with pytest.raises(UserError, match="no attributes"):
        NormalisedNodes(SPEC)(batch)
