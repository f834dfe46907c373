"""ResNet of basic blocks (He et al., CVPR 2016) at 96x96 pixels."""

from __future__ import annotations

from onnx import ModelProto

from datasets.families.builder import FeatureMap, NetworkBuilder
from datasets.families.draws import Draw

Block = tuple[int, int, int]
"""Inner channels and the kernels of the two convolutions."""


def resnet(draw: Draw) -> ModelProto:
    """Four stages of one to three blocks of random kernels and widths."""
    stages: list[tuple[int, list[Block]]] = []
    for channels in (64, 128, 256, 512):
        blocks = [
            (draw.channels(channels), draw.pick((1, 3, 3, 5)), draw.pick((1, 3, 3, 5)))
            for _ in range(draw.pick((1, 2, 2, 3)))
        ]
        stages.append((draw.channels(channels), blocks))
    return resnet_of(draw.channels(64), draw.pick((3, 5, 7)), stages)


def resnet_of(stem: int, stem_kernel: int, stages: list[tuple[int, list[Block]]]) -> ModelProto:
    """A ResNet of given stem and, for each stage, output channels and blocks."""
    net = NetworkBuilder("resnet", 96)
    x = net.max_pool(net.conv_norm_relu(net.input, stem, stem_kernel, stride=2))
    for stage, (channels, blocks) in enumerate(stages):
        for place, block in enumerate(blocks):
            x = basic_block(net, x, channels, block, stride=2 if stage and not place else 1)
    return net.classify(x)


def basic_block(net: NetworkBuilder, x: FeatureMap, channels: int, block: Block, stride: int) -> FeatureMap:
    """Two convolutions and a shortcut, projected where the shape changes."""
    inner, first, second = block
    y = net.norm(net.conv(net.conv_norm_relu(x, inner, first, stride), channels, second))
    if stride > 1 or x.channels != channels:
        x = net.norm(net.conv(x, channels, 1, stride))
    return net.relu(net.add(y, x))
