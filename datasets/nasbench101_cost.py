"""Size and cost of NAS-Bench-101 networks, from their cells alone.

Source: "NAS-Bench-101" (Ying et al., ICML 2019, sections 2.1-2.3 and figure 1) and its reference model: a 3x3 convolution
to 128 channels, three stacks of three cells, 2x2 max-pooling and twice the channels before stacks 2 and 3, a global mean
and a dense layer of 10 classes. A convolution has no bias and is followed by batch normalisation and ReLU.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_STEM, _CLASSES, _IMAGE = 128, 10, 32
_CELLS = ((128, 128, 32, 3), (128, 256, 16, 1), (256, 256, 16, 2), (256, 512, 8, 1), (512, 512, 8, 2))
"""(input channels, output channels, side of the feature map in pixels, cells of this kind)."""


def cost(adjacency: NDArray[np.bool_], kernel: Ints) -> tuple[Ints, Ints]:
    """Trainable parameters and multiply-accumulates of networks whose cells have equally many vertices.

    Only convolutions and the dense layer multiply; parameters also count the scale and offset of batch normalisation and
    the bias of the dense layer.

    Args:
        adjacency: ``adjacency[b, i, j]`` is True where vertex i feeds vertex j > i (B, n, n); every vertex is on a path
            from the first to the last.
        kernel: side of each vertex's convolution, 0 where it has no weights (B, n).

    Returns:
        Trainable parameters (B,) and multiply-accumulates (B,) for one 32x32 RGB image.
    """
    last = _CELLS[-1][1]
    params = np.full(len(adjacency), 3 * 9 * _STEM + 2 * _STEM + last * _CLASSES + _CLASSES)
    flops = np.full(len(adjacency), 3 * 9 * _STEM * _IMAGE**2 + last * _CLASSES)
    for inputs, outputs, side, repeats in _CELLS:
        weights, normalised = _cell(adjacency, kernel, inputs, outputs)
        params += repeats * (weights + 2 * normalised)
        flops += repeats * weights * side**2
    return params, flops


def vertex_channels(adjacency: NDArray[np.bool_], outputs: int) -> Ints:
    """Channels of every interior vertex (B, n); 0 for the input and the output.

    The output's channels are shared evenly by the vertices that feed it, the first ones taking one more where that leaves
    a remainder; any other vertex has as many as the widest vertex it feeds.
    """
    to_output = adjacency[:, :, -1].copy()
    to_output[:, 0] = False
    share, remainder = np.divmod(outputs, np.maximum(to_output.sum(1), 1))
    takes_more = np.cumsum(to_output, 1) <= remainder[:, None]
    channels: Ints = np.where(to_output, share[:, None] + takes_more, 0)
    for vertex in range(adjacency.shape[1] - 3, 0, -1):
        widest = np.where(adjacency[:, vertex], channels, 0).max(1)
        channels[:, vertex] = np.where(to_output[:, vertex], channels[:, vertex], widest)
    return channels


def _cell(adjacency: NDArray[np.bool_], kernel: Ints, inputs: int, outputs: int) -> tuple[Ints, Ints]:
    """Convolution weights (B,) and batch-normalised channels (B,) of one cell.

    Every vertex fed by the input, the output included, gets a 1x1 convolution of the input to its own channels.
    """
    channels = vertex_channels(adjacency, outputs)
    projected = np.where(adjacency[:, 0], channels, 0).sum(1) + outputs * adjacency[:, 0, -1]
    weights = inputs * projected + (kernel**2 * channels**2).sum(1)
    return weights, projected + np.where(kernel > 0, channels, 0).sum(1)
