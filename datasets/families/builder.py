"""Building weight-less ONNX networks layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx import ModelProto, TensorProto, helper

OPSET = 10
"""The last version whose Clip keeps its limits as attributes, so that graphs hold nothing but the flow of data."""

IR_VERSION = 5
CLASSES = 100


@dataclass(frozen=True)
class FeatureMap:
    """A tensor of the network at batch size 1.

    Attributes:
        name: its name in the graph.
        channels: dimension 1.
        size: height and width; 0 of a matrix.
    """

    name: str
    channels: int
    size: int


class NetworkBuilder:
    """Adds operators to a graph; every method takes and returns feature maps.

    Initializers have dimensions and a type, but no values: as the files of NNLQP (Liu et al., ICPP 2022).
    """

    def __init__(self, name: str, size: int) -> None:
        self.graph = helper.make_graph([], name, [], [])
        self.input = FeatureMap("input", 3, size)
        self.graph.input.append(_value("input", [1, 3, size, size]))

    def conv(
        self, x: FeatureMap, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> FeatureMap:
        """Convolution padded to keep the size (before the stride); ``kernel`` is odd."""
        weights = [(channels, x.channels // groups, kernel, kernel), *([(channels,)] if bias else [])]
        attributes = {"dilations": [1, 1], "group": groups, **_window(kernel, stride, kernel // 2)}
        return self._add("Conv", [x], channels, -(-x.size // stride), weights, **attributes)

    def norm(self, x: FeatureMap) -> FeatureMap:
        """Batch normalisation as at inference."""
        return self._add("BatchNormalization", [x], x.channels, x.size, [(x.channels,)] * 4, epsilon=1e-5)

    def conv_norm_relu(self, x: FeatureMap, channels: int, kernel: int = 3, stride: int = 1) -> FeatureMap:
        """Convolution without bias, batch normalisation, ReLU."""
        return self.relu(self.norm(self.conv(x, channels, kernel, stride)))

    def conv_relu(self, x: FeatureMap, channels: int, kernel: int = 3, stride: int = 1) -> FeatureMap:
        """Convolution with bias, ReLU."""
        return self.relu(self.conv(x, channels, kernel, stride, bias=True))

    def relu(self, x: FeatureMap) -> FeatureMap:
        """max(x, 0)."""
        return self._add("Relu", [x], x.channels, x.size)

    def relu6(self, x: FeatureMap) -> FeatureMap:
        """min(max(x, 0), 6)."""
        return self._add("Clip", [x], x.channels, x.size, min=0.0, max=6.0)

    def sigmoid(self, x: FeatureMap) -> FeatureMap:
        """1 / (1 + exp(-x))."""
        return self._add("Sigmoid", [x], x.channels, x.size)

    def hard_sigmoid(self, x: FeatureMap) -> FeatureMap:
        """min(max(x + 3, 0), 6) / 6 in three operators, as exported for this opset; 3 and 6 are initializers."""
        shifted = self._add("Add", [x], x.channels, x.size, [(1,)])
        return self._add("Div", [self.relu6(shifted)], x.channels, x.size, [(1,)])

    def swish(self, x: FeatureMap) -> FeatureMap:
        """Product of a map and its sigmoid."""
        return self.multiply(x, self.sigmoid(x))

    def hard_swish(self, x: FeatureMap) -> FeatureMap:
        """Product of a map and its hard sigmoid (NNLQP's vocabulary lacks HardSwish)."""
        return self.multiply(x, self.hard_sigmoid(x))

    def add(self, x: FeatureMap, y: FeatureMap) -> FeatureMap:
        """Sum of two maps of one shape."""
        return self._add("Add", [x, y], x.channels, x.size)

    def multiply(self, x: FeatureMap, y: FeatureMap) -> FeatureMap:
        """Product; ``y`` may have size 1."""
        return self._add("Mul", [x, y], x.channels, x.size)

    def concat(self, maps: list[FeatureMap]) -> FeatureMap:
        """Maps of one size, one after the other along the channels."""
        return self._add("Concat", maps, sum(x.channels for x in maps), maps[0].size, axis=1)

    def max_pool(self, x: FeatureMap, kernel: int = 3, stride: int = 2) -> FeatureMap:
        """Largest of each window, padded to keep the size (before the stride); an even kernel is the stride, unpadded."""
        pad = kernel // 2 if kernel % 2 else 0
        return self._add("MaxPool", [x], x.channels, -(-x.size // stride), **_window(kernel, stride, pad))

    def average_pool(self, x: FeatureMap, kernel: int = 3, stride: int = 1) -> FeatureMap:
        """Mean of each window; the padding, as of ``max_pool``, does not count."""
        pad = kernel // 2 if kernel % 2 else 0
        attributes = _window(kernel, stride, pad)
        return self._add("AveragePool", [x], x.channels, -(-x.size // stride), **attributes, count_include_pad=0)

    def global_average_pool(self, x: FeatureMap) -> FeatureMap:
        """Mean of each channel, size 1."""
        return self._add("GlobalAveragePool", [x], x.channels, 1)

    def flatten(self, x: FeatureMap) -> FeatureMap:
        """All channels and positions as one row."""
        return self._add("Flatten", [x], x.channels * x.size**2, 0, axis=1)

    def dense(self, x: FeatureMap, features: int) -> FeatureMap:
        """Linear layer with bias on a row."""
        weights = [(features, x.channels), (features,)]
        return self._add("Gemm", [x], features, 0, weights, alpha=1.0, beta=1.0, transB=1)

    def classify(self, x: FeatureMap) -> ModelProto:
        """Close the network with global average pooling and a linear classifier."""
        return self.finish(self.dense(self.flatten(self.global_average_pool(x)), CLASSES))

    def finish(self, output: FeatureMap) -> ModelProto:
        """The network that ends in ``output``, a row."""
        self.graph.output.append(_value(output.name, [1, output.channels]))
        return helper.make_model(
            self.graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="narbench"
        )

    def _add(
        self,
        operator: str,
        inputs: list[FeatureMap],
        channels: int,
        size: int,
        weights: list[tuple[int, ...]] | None = None,
        **attributes: Any,
    ) -> FeatureMap:
        name = f"{operator.lower()}_{len(self.graph.node)}"
        parameters = [f"{name}.{place}" for place in range(len(weights or []))]
        for parameter, dims in zip(parameters, weights or [], strict=True):
            self.graph.initializer.append(TensorProto(name=parameter, dims=dims, data_type=TensorProto.FLOAT))
        names = [x.name for x in inputs] + parameters
        self.graph.node.append(helper.make_node(operator, names, [name], name, **attributes))
        return FeatureMap(name, channels, size)


def _window(kernel: int, stride: int, pad: int) -> dict[str, Any]:
    return {"kernel_shape": [kernel] * 2, "pads": [pad] * 4, "strides": [stride] * 2}


def _value(name: str, dims: list[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
