"""EfficientNet-B0 (Tan and Le, ICML 2019) at 112x112 pixels."""

from __future__ import annotations

from onnx import ModelProto

from datasets.families.builder import NetworkBuilder
from datasets.families.draws import Draw
from datasets.families.inverted_residual import Block, inverted_residual

STAGES = ((16, 1, 1), (24, 2, 2), (40, 2, 2), (80, 3, 2), (112, 3, 1), (192, 4, 2), (320, 1, 1))
"""Channels, blocks and first stride (table 1)."""


def efficientnet(draw: Draw) -> ModelProto:
    """Seven stages of random depth and width; kernel and expansion differ from block to block; swish throughout."""
    net = NetworkBuilder("efficientnet", 112)
    x = net.swish(net.norm(net.conv(net.input, draw.channels(32), draw.pick((3, 5)), stride=2)))
    for stage, (channels, blocks, stride) in enumerate(STAGES):
        width = draw.channels(channels)
        for place in range(max(1, blocks - draw.pick((0, 0, 1)))):
            expansion = draw.pick((4, 6)) if stage else 1
            squeeze = max(4, x.channels // 4)
            x = inverted_residual(
                net, x, Block(width, draw.pick((3, 5, 7)), 1 if place else stride, expansion, squeeze), net.swish
            )
    return net.classify(net.swish(net.norm(net.conv(x, draw.channels(1280), 1))))
