from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from datasets.errors import UserError
from datasets.families import FAMILIES, build_variant
from datasets.families.builder import NetworkBuilder
from datasets.families.nasbench201 import cell_output, on_path
from datasets.families.resnet import resnet_of
from datasets.families.vgg import vgg_of
from datasets.families.weights import with_random_weights
from datasets.onnx_file import parse
from datasets.onnx_graph import network_of

SKIP, NONE, CONV, POOL = "skip_connect", "none", "nor_conv_3x3", "avg_pool_3x3"


def parameters(model):
    """All but the single-element constants of hard activations, which are not trained."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if list(tensor.dims) != [1])


def conv_norm(inputs, outputs, kernel):
    """Weights of a convolution without bias and the four vectors of its batch normalisation."""
    return inputs * outputs * kernel**2 + 4 * outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_variants_are_valid_networks_without_weights(family):
    for index in range(6):
        model = build_variant(family, index)
        assert len(model.SerializeToString()) < 60_000
        assert not any(tensor.raw_data or tensor.float_data for tensor in model.graph.initializer)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        network = network_of(parse(model.SerializeToString(), family), None, as_code=True)
        assert network.static["params"] == parameters(model)
        assert not network.unknown


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_runtime_computes_finite_logits_of_the_declared_shape(family):
    runtime = pytest.importorskip("onnxruntime")
    lightest = min((build_variant(family, index) for index in range(6)), key=parameters)
    model = with_random_weights(lightest)
    onnx.checker.check_model(model, full_check=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 2
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal(session.get_inputs()[0].shape, np.float32)
    (logits,) = session.run(None, {"input": image})
    assert list(logits.shape) == session.get_outputs()[0].shape == [1, 100]
    assert np.isfinite(logits).all()
    assert np.ptp(logits) > 0


def test_a_variant_depends_on_family_index_and_seed_only():
    first = build_variant("googlenet", 3, seed=1).SerializeToString(deterministic=True)
    build_variant("googlenet", 4, seed=1)
    assert build_variant("googlenet", 3, seed=1).SerializeToString(deterministic=True) == first
    assert build_variant("googlenet", 3, seed=2).SerializeToString(deterministic=True) != first


@pytest.mark.parametrize("family", FAMILIES)
def test_variants_differ(family):
    files = {build_variant(family, index).SerializeToString(deterministic=True) for index in range(40)}
    assert len(files) == 40


def test_parameters_of_a_resnet_by_hand():
    model = resnet_of(16, 7, [(16, [(8, 3, 1)]), (24, [(32, 5, 3), (40, 3, 3)])])
    stem = conv_norm(3, 16, 7)
    first = conv_norm(16, 8, 3) + conv_norm(8, 16, 1)
    second = conv_norm(16, 32, 5) + conv_norm(32, 24, 3) + conv_norm(16, 24, 1)
    third = conv_norm(24, 40, 3) + conv_norm(40, 24, 3)
    assert parameters(model) == stem + first + second + third + 24 * 100 + 100


def test_parameters_of_a_vgg_by_hand():
    model = vgg_of([[(8, 3)], [(16, 5), (8, 1)], [(8, 3)], [(8, 3)], [(24, 3)]], hidden=40)
    convolutions = conv_norm(3, 8, 3) + conv_norm(8, 16, 5) + conv_norm(16, 8, 1) + 2 * conv_norm(8, 8, 3)
    linear = (24 * 2 * 2) * 40 + 40 + 40 * 100 + 100
    assert parameters(model) == convolutions + conv_norm(8, 24, 3) + linear


def test_a_cell_holds_only_what_its_output_depends_on():
    cell = {(0, 1): CONV, (0, 2): POOL, (1, 2): NONE, (0, 3): SKIP, (1, 3): NONE, (2, 3): CONV}
    assert on_path(cell) == [0, 2, 3]
    net = NetworkBuilder("cell", 8)
    x = net.conv(net.input, 8)
    y = cell_output(net, cell, x)
    types = [node.op_type for node in net.graph.node]
    assert types == ["Conv", "AveragePool", "Relu", "Conv", "BatchNormalization", "Add"]
    assert (y.channels, y.size) == (x.channels, x.size)
    assert list(net.graph.node[-1].input) == [x.name, net.graph.node[-2].output[0]]


@pytest.mark.parametrize("used", [(), ((0, 1), (1, 2)), ((1, 3), (2, 3), (1, 2))])
def test_a_cell_whose_paths_are_all_cut_has_no_feature_map_on_one(used):
    cell = {(s, t): SKIP if (s, t) in used else NONE for t in (1, 2, 3) for s in range(t)}
    assert on_path(cell) == []


def test_random_weights_are_scaled_by_fan_in_and_leave_the_file_as_it_was():
    model = vgg_of([[(64, 3)]] * 5, hidden=64)
    filled = {t.name: onnx.numpy_helper.to_array(t) for t in with_random_weights(model).graph.initializer}
    kernel = next(values for values in filled.values() if values.shape == (64, 64, 3, 3))
    assert kernel.std() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    vectors = np.concatenate([values for values in filled.values() if values.ndim == 1])
    assert vectors.min() >= 0.5
    assert vectors.max() <= 1.5
    assert not any(tensor.raw_data for tensor in model.graph.initializer)


def test_an_unknown_family_is_named():
    with pytest.raises(UserError, match="family=densenet: unknown; choose one of alexnet, "):
        build_variant("densenet", 0)
