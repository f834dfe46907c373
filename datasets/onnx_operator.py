"""One ONNX operator: its shapes, and its attributes with the defaults that ONNX gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from onnx import AttributeProto

from datasets.errors import UserError
from datasets.graph import ATTRIBUTE_SLOTS
from datasets.networks import KNOWN, UNKNOWN
from datasets.onnx_file import OnnxFile, OnnxNode
from datasets.onnx_trust import Shape

MAX_VALUE = 2**31 - 1
"""Largest attribute that is believed."""

_KNOWN = frozenset(KNOWN)


@dataclass(frozen=True)
class Operator:
    """An operator of a graph.

    Attributes:
        node: as in the file.
        type: its name in ``networks.OPERATIONS``.
        shapes: those that are known, by tensor.
        file: whose operator it is.
    """

    node: OnnxNode
    type: str
    shapes: Mapping[str, Shape]
    file: OnnxFile

    @property
    def opset(self) -> int:
        """Version of the ONNX operator set."""
        return self.file.opset

    @property
    def outputs(self) -> list[Shape]:
        """Shapes of the outputs whose shape is known."""
        return [self.shapes[name] for name in self.node.outputs if name in self.shapes]

    @property
    def input(self) -> Shape:
        """Shape of the first input.

        Raises:
            UserError: if it is unknown or left out.
        """
        return self._required(0)

    @property
    def weight(self) -> Shape:
        """Shape of the second input.

        Raises:
            UserError: if it is unknown or left out.
        """
        return self._required(1)

    @property
    def output(self) -> Shape:
        """Shape of the first output.

        Raises:
            UserError: if it is unknown.
        """
        shape = next(iter(self.outputs), None)
        if shape is None:
            raise self.error("the shape of its output is unknown")
        return shape

    @cached_property
    def kernel(self) -> Sequence[int]:
        """Kernel of a convolution or pooling; a convolution may leave it to its weight."""
        return self.sizes("kernel_shape") or self.weight[2:]

    @cached_property
    def group(self) -> int:
        """Groups of a convolution."""
        if (group := self.integer("group", 1)) < 1:
            raise self.error(f"group={group} must be 1 or more; export the model again")
        return group

    @property
    def bias(self) -> bool:
        """Whether a third input is given."""
        return len(self.node.inputs) > 2 and bool(self.node.inputs[2])

    def integers(self, name: str) -> Sequence[int]:
        """An attribute that is a list of integers; empty if it is not given."""
        attribute = self._attributes.get(name)
        return () if attribute is None else self._checked(name, attribute.ints[:])

    def sizes(self, name: str) -> Sequence[int]:
        """An attribute that is a list of positive integers; empty if it is not given."""
        values = self.integers(name)
        if values and (min(values) < 1 or prod(values) > MAX_VALUE):
            raise self.error(f"{name}={list(values)[:ATTRIBUTE_SLOTS]} is not possible; export the model again")
        return values

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        attribute = self._attributes.get(name)
        return default if attribute is None else self._checked(name, (attribute.i,))[0]

    def text(self, name: str, default: str) -> str:
        """An attribute that is text."""
        attribute = self._attributes.get(name)
        return default if attribute is None else attribute.s.decode("ascii", "replace")

    def error(self, reason: str) -> UserError:
        """An error that names the file and the operator."""
        return UserError(f"{self.file.source}: {self.node}: {reason}")

    @cached_property
    def _attributes(self) -> dict[str, AttributeProto]:
        return {attribute.name: attribute for attribute in self.node.attributes}

    def _checked(self, name: str, values: Sequence[int]) -> Sequence[int]:
        if values and not -MAX_VALUE <= min(values) <= max(values) <= MAX_VALUE:
            raise self.error(f"attribute {name} is out of range; export the model again")
        return values

    def _required(self, place: int) -> Shape:
        names = self.node.inputs
        shape = self.shapes.get(names[place]) if place < len(names) else None
        if shape is None:
            raise self.error(f"the shape of input {place} is unknown; export the model with fixed sizes")
        return shape


def operators_of(file: OnnxFile, shapes: Mapping[str, Shape], *, as_code: bool) -> list[Operator]:
    """The operators of a file, in its order.

    Args:
        file: the file.
        shapes: shapes of its tensors.
        as_code: whether MatMul, which NNLQP's vocabulary misspells, is unknown.
    """
    known = _KNOWN - {"MatMul"} if as_code else _KNOWN
    return [Operator(node, node.type if node.type in known else UNKNOWN, shapes, file) for node in file.nodes]
