"""AlexNet (Krizhevsky et al., NeurIPS 2012) in the layout of torchvision, at 128x128 pixels."""

from __future__ import annotations

from onnx import ModelProto

from datasets.families.builder import CLASSES, NetworkBuilder
from datasets.families.draws import Draw

POOLED = (True, True, False, False, True)


def alexnet(draw: Draw) -> ModelProto:
    """Five convolutions and three linear layers of random kernels and widths."""
    kernels = (draw.pick((7, 9, 11, 13)), draw.pick((3, 5, 7)), *(draw.pick((1, 3, 5)) for _ in range(3)))
    return alexnet_of([draw.channels(c) for c in (64, 192, 384, 256, 256)], kernels, [draw.channels(768) for _ in range(2)])


def alexnet_of(channels: list[int], kernels: tuple[int, ...], hidden: list[int]) -> ModelProto:
    """An AlexNet of given widths and kernels of the five convolutions and widths of the two hidden linear layers."""
    net = NetworkBuilder("alexnet", 128)
    x = net.input
    for layer, (width, kernel, pooled) in enumerate(zip(channels, kernels, POOLED, strict=True)):
        x = net.conv_relu(x, width, kernel, stride=1 if layer else 4)
        x = net.max_pool(x) if pooled else x
    x = net.flatten(x)
    for features in hidden:
        x = net.relu(net.dense(x, features))
    return net.finish(net.dense(x, CLASSES))
