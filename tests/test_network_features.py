"""The three official node codings as views of one set of stored columns."""

from __future__ import annotations

from dataclasses import replace

import golden
import pytest
import torch

from datasets.errors import UserError
from predictors.layers.network_features import CodedNodes, CodedStatic, NormalisedNodes, scaled_static
from tests.graphs import network_spec, random_cells

VIEWS = {
    "nnlp": (NormalisedNodes(network_spec()), lambda static: scaled_static(static, 1e9)),
    "v2": (CodedNodes(network_spec(), 5), CodedStatic(1e9)),
    "lat": (CodedNodes(network_spec(), 10), CodedStatic(1e7)),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_equal_the_official_features(golden_folder, view):
    facts = golden.facts(golden_folder, "onnx", f"extract_{view}.json")
    tensors = golden.tensors(golden_folder, "onnx", f"extract_{view}.safetensors")
    if not facts["graphs"]:
        pytest.skip("no graphs")
    nodes, static = VIEWS[view]
    for name, graph in facts["graphs"].items():
        batch = golden.networks([graph])
        x, expected = nodes(batch), tensors[f"{name}/x"]
        known = ~expected.isnan()
        assert x.shape == expected.shape
        limit = 1e-5 if view == "nnlp" else golden.code_limit(batch)
        torch.testing.assert_close(x[known], expected[known], atol=limit, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(static(batch.static)[0], tensors[f"{name}/static"].flatten(), atol=1e-5, rtol=1e-6)


def test_cells_have_no_such_columns():
    batch = replace(random_cells(2, 0), attributes=None)
    with pytest.raises(UserError, match="no attributes"):
        NormalisedNodes(network_spec())(batch)
