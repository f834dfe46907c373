"""SqueezeNet 1.1 (Iandola et al., 2016) at 128x128 pixels."""

from __future__ import annotations

from onnx import ModelProto

from datasets.families.builder import CLASSES, FeatureMap, NetworkBuilder
from datasets.families.draws import Draw

STAGES = ((16, 64), (32, 128), (48, 192))
"""Squeeze and expand channels of the fire modules between two poolings."""


def squeezenet(draw: Draw) -> ModelProto:
    """Three stages of one to four fire modules of random kernels and widths."""
    net = NetworkBuilder("squeezenet", 128)
    x = net.conv_relu(net.input, draw.channels(64), draw.pick((3, 5, 7)), stride=2)
    for squeeze, expand in STAGES:
        x = net.max_pool(x)
        for _ in range(draw.pick((1, 2, 3, 4))):
            x = _fire(net, x, draw, squeeze, expand)
    x = net.global_average_pool(net.conv_relu(x, CLASSES, 1))
    return net.finish(net.flatten(x))


def _fire(net: NetworkBuilder, x: FeatureMap, draw: Draw, squeeze: int, expand: int) -> FeatureMap:
    x = net.conv_relu(x, draw.channels(squeeze), 1)
    small = net.conv_relu(x, draw.channels(expand), 1)
    return net.concat([small, net.conv_relu(x, draw.channels(expand), draw.pick((3, 3, 5)))])
