"""VGG with batch normalisation (Simonyan and Zisserman, ICLR 2015) at 64x64 pixels and half to full width."""

from __future__ import annotations

from onnx import ModelProto

from datasets.families.builder import CLASSES, NetworkBuilder
from datasets.families.draws import Draw


def vgg(draw: Draw) -> ModelProto:
    """Five stages of one to three convolutions of random kernels and widths, two linear layers."""
    stages = [
        [(draw.channels(channels), draw.pick((1, 3, 3, 5))) for _ in range(draw.pick((1, 2, 3)))]
        for channels in (32, 64, 128, 256, 256)
    ]
    return vgg_of(stages, draw.channels(512))


def vgg_of(stages: list[list[tuple[int, int]]], hidden: int) -> ModelProto:
    """A VGG of given (channels, kernel) of the convolutions of each stage and width of the hidden linear layer."""
    net = NetworkBuilder("vgg", 64)
    x = net.input
    for stage in stages:
        for channels, kernel in stage:
            x = net.conv_norm_relu(x, channels, kernel)
        x = net.max_pool(x, 2)
    x = net.relu(net.dense(net.flatten(x), hidden))
    return net.finish(net.dense(x, CLASSES))
