"""GoogLeNet with batch normalisation (Szegedy et al., CVPR 2015) at 96x96 pixels."""

from __future__ import annotations

from onnx import ModelProto

from datasets.families.builder import FeatureMap, NetworkBuilder
from datasets.families.draws import Draw

Widths = tuple[int, int, int, int, int, int]
"""Channels of the branches: 1x1; reduction and 3x3; reduction and 5x5; pooling."""

STAGES: tuple[tuple[Widths, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""Inception modules between two poolings (table 1)."""


def googlenet(draw: Draw) -> ModelProto:
    """Nine inception modules of random kernels and widths, up to three of the five in the middle left out."""
    net = NetworkBuilder("googlenet", 96)
    x = net.max_pool(net.conv_norm_relu(net.input, draw.channels(64), draw.pick((5, 7)), stride=2))
    x = net.conv_norm_relu(net.conv_norm_relu(x, draw.channels(64), 1), draw.channels(192), draw.pick((3, 5)))
    for stage in STAGES:
        x = net.max_pool(x)
        for widths in stage[: max(2, len(stage) - draw.pick(range(4)))]:
            x = _inception(net, x, draw, widths)
    return net.classify(x)


def _inception(net: NetworkBuilder, x: FeatureMap, draw: Draw, widths: Widths) -> FeatureMap:
    one, reduce3, three, reduce5, five, pool = (draw.channels(channels) for channels in widths)
    branches = [
        net.conv_norm_relu(x, one, 1),
        net.conv_norm_relu(net.conv_norm_relu(x, reduce3, 1), three, 3),
        net.conv_norm_relu(net.conv_norm_relu(x, reduce5, 1), five, draw.pick((3, 5, 7))),
        net.conv_norm_relu(net.max_pool(x, 3, 1), pool, 1),
    ]
    return net.concat(branches)
