"""MobileNetV3-large (Howard et al., ICCV 2019) at 112x112 pixels."""

from __future__ import annotations

from onnx import ModelProto

from datasets.families.builder import CLASSES, NetworkBuilder
from datasets.families.draws import Draw
from datasets.families.inverted_residual import Block, inverted_residual

STAGES = (
    (16, 1, 1, 1, False, False),
    (24, 2, 2, 4, False, False),
    (40, 3, 2, 3, True, False),
    (80, 4, 2, 3, False, True),
    (112, 2, 1, 6, True, True),
    (160, 3, 2, 6, True, True),
)
"""Channels, blocks, first stride, expansion, squeeze-and-excitation, hard swish (table 1)."""


def mobilenetv3(draw: Draw) -> ModelProto:
    """Six stages of random depth and width; kernel and expansion differ from block to block."""
    net = NetworkBuilder("mobilenetv3", 112)
    x = net.hard_swish(net.norm(net.conv(net.input, draw.channels(16), 3, stride=2)))
    for stage, (channels, blocks, stride, expansion, squeezed, hard) in enumerate(STAGES):
        width = draw.channels(channels)
        for place in range(max(1, blocks - draw.pick((0, 0, 1)))):
            times = expansion + draw.pick((-1, 0, 1)) if stage else 1
            squeeze = max(8, x.channels * times // 4) if squeezed else 0
            block = Block(width, draw.pick((3, 5, 7)), 1 if place else stride, times, squeeze)
            x = inverted_residual(net, x, block, net.hard_swish if hard else net.relu, net.hard_sigmoid)
    x = net.hard_swish(net.norm(net.conv(x, draw.channels(960), 1)))
    x = net.hard_swish(net.dense(net.flatten(net.global_average_pool(x)), draw.channels(1280)))
    return net.finish(net.dense(x, CLASSES))
