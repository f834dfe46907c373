"""MobileNetV2 (Sandler et al., CVPR 2018) at 112x112 pixels."""

from __future__ import annotations

from onnx import ModelProto

from datasets.families.builder import NetworkBuilder
from datasets.families.draws import Draw
from datasets.families.inverted_residual import Block, inverted_residual

STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels, blocks and first stride (table 2)."""


def mobilenetv2(draw: Draw) -> ModelProto:
    """Seven stages of random depth and width; kernel and expansion differ from block to block."""
    net = NetworkBuilder("mobilenetv2", 112)
    x = net.relu6(net.norm(net.conv(net.input, draw.channels(32), draw.pick((3, 5)), stride=2)))
    for stage, (channels, blocks, stride) in enumerate(STAGES):
        width = draw.channels(channels)
        for place in range(max(1, blocks - draw.pick((0, 0, 1)))):
            expansion = draw.pick((3, 4, 6)) if stage else 1
            block = Block(width, draw.pick((3, 3, 5, 7)), 1 if place else stride, expansion)
            x = inverted_residual(net, x, block, net.relu6)
    return net.classify(net.relu6(net.norm(net.conv(x, draw.channels(1280), 1))))
