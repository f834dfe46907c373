"""The block that the mobile families share: expansion, depthwise convolution, squeeze-and-excitation, projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from datasets.families.builder import FeatureMap, NetworkBuilder

Activation = Callable[[FeatureMap], FeatureMap]


@dataclass(frozen=True)
class Block:
    """Inverted residual block (Sandler et al., CVPR 2018).

    Attributes:
        channels: output channels.
        kernel: of the depthwise convolution.
        stride: of the depthwise convolution.
        expansion: inner channels as a multiple of the input channels; 1 leaves the expansion out.
        squeeze: channels of the squeeze-and-excitation; 0 leaves it out.
    """

    channels: int
    kernel: int
    stride: int
    expansion: int
    squeeze: int = 0


def inverted_residual(
    net: NetworkBuilder, x: FeatureMap, block: Block, activation: Activation, gate: Activation | None = None
) -> FeatureMap:
    """Add one block.

    Args:
        net: the network.
        x: its input; added to the output where the shape stays.
        block: its sizes.
        activation: after the first two convolutions.
        gate: last activation of the squeeze-and-excitation; sigmoid by default.
    """
    inner = x.channels * block.expansion
    y = activation(net.norm(net.conv(x, inner, 1))) if block.expansion > 1 else x
    y = activation(net.norm(net.conv(y, inner, block.kernel, block.stride, groups=inner)))
    if block.squeeze:
        z = net.relu(net.conv(net.global_average_pool(y), block.squeeze, 1, bias=True))
        y = net.multiply(y, (gate or net.sigmoid)(net.conv(z, inner, 1, bias=True)))
    y = net.norm(net.conv(y, block.channels, 1))
    return net.add(x, y) if block.stride == 1 and x.channels == block.channels else y
