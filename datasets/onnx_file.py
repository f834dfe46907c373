"""Reading an ONNX file that may be damaged or hostile: every limit is checked before any work is done on it.

Weights are never needed: their data are dropped on reading, and files that keep them elsewhere are never opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs

from datasets.errors import UserError
from datasets.onnx_trust import HIDDEN, MAX_RANK, harmless, trusted

MAX_BYTES = 2**30
"""Largest file that is read."""

MAX_NODES = 10_000
"""Most operators of a file, those in the bodies of If, Loop and Scan included, and most nodes of its graph."""

MAX_DEPTH = 8
"""Deepest nesting of bodies."""

MAX_EDGES = 100_000
"""Most pairs of an operator's input and output, counted as one for an operator without inputs."""

MAX_TYPE = 2**12
"""Bytes of the longest statement of a tensor's type."""

MAX_KEPT = 2**16
"""Bytes of the largest initializer whose values are kept: shapes, axes and scales, but no large weights."""

MAX_COPIED = 2**12
"""Bytes of the largest parameter that each of its copies keeps the values of."""

OPSETS = range(7, 25)
"""Versions of the ONNX operator set that are read."""

ONNX_DOMAINS = ("", "ai.onnx")

_has = lru_cache(maxsize=1024)(defs.has)

PARAMETERISED = frozenset({"Conv", "ConvTranspose", "Gemm", "BatchNormalization", "Reshape"})
"""Operators whose inputs after the first are parameters, not data (NNLQP)."""

_DATA_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


class OnnxNode(NamedTuple):
    """An operator as the file has it.

    Attributes:
        type: name of the operator, with the domain before it if that is not ONNX's.
        name: its own name, or that of its first output.
        inputs: tensors it reads; empty names are inputs left out.
        outputs: tensors it makes; empty names are outputs left out.
        attributes: as in the file.
        foreign: whether the operator is not one of ONNX's.
    """

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Sequence[AttributeProto]
    foreign: bool

    @classmethod
    def from_file(cls, content: NodeProto, source: str) -> OnnxNode:
        """Read the names.

        Raises:
            UserError: naming the file, for names that are not text and attributes that are impossible (``onnx_trust``).
        """
        inputs, outputs = tuple(content.input[:]), tuple(content.output[:])
        kind, domain, name = content.op_type, content.domain, content.name
        names = (kind, domain, name, *inputs, *outputs)
        try:
            "".join(names)
        except TypeError:  # protobuf gives bytes where it cannot decode text
            raise UserError(f"{source}: damaged: an operator's names {names} are not text; export it again") from None
        own = domain in ONNX_DOMAINS
        if own and not harmless(content):
            raise UserError(f"{source}: {kind} {name!r} has impossible attributes; check them, or export the model again")
        foreign = not own or not _has(kind)
        kind = kind if own else f"{domain}.{kind}"
        return cls(kind, name or next(iter(outputs), ""), inputs, outputs, content.attribute[:], foreign)

    def __str__(self) -> str:
        return f"{' '.join(self.type.split())} {self.name!r}"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Tensors that are read as parameters where they do not depend on data."""
        return self.inputs[1:] if self.type in PARAMETERISED else ()


@dataclass(frozen=True)
class OnnxFile:
    """A file that kept within the limits and whose tensors are each made once, before they are used.

    Attributes:
        source: how messages name the file.
        model: its content, without the data of large initializers.
        nodes: its operators.
        opset: version of the ONNX operator set.
        untrusted: positions of the operators that are inferred one at a time (``onnx_trust``); those in bodies of If, Loop
            and Scan have been renamed, so that they are not inferred.
        weights: dimensions of the initializers.
        captured: tensors read in the bodies of If, Loop and Scan.
        exported: batch size that the file states; 0 if it states none.
    """

    source: str
    model: ModelProto
    nodes: tuple[OnnxNode, ...]
    opset: int
    untrusted: frozenset[int]
    weights: dict[str, tuple[int, ...]]
    captured: frozenset[str]
    exported: int = 0

    @property
    def data(self) -> list[ValueInfoProto]:
        """Graph inputs that are no parameters."""
        parameters = self.parameters | self.weights.keys()
        return [value for value in self.graph.input if value.name not in parameters]

    @property
    def batch(self) -> int:
        """Dimension 0 of the first of ``data`` that has one, 0 if it is not fixed; 1 if there is none."""
        dims = (value.type.tensor_type.shape.dim for value in self.data)
        return next((int(dim[0].dim_value) for dim in dims if dim), 1)

    @property
    def overridden(self) -> str:
        """What to do about another batch size than that of the file; empty if it has that, or states none."""
        if self.exported in (0, self.batch):
            return ""
        return f"the file was exported with batch {self.exported}; give that, or export with a dynamic batch size"

    @property
    def parameters(self) -> set[str]:
        """Tensors that are read as parameters."""
        return {name for node in self.nodes for name in node.parameters}

    @property
    def graph(self) -> GraphProto:
        """The model's graph."""
        return self.model.graph


def read_file(path: Path) -> OnnxFile:
    """Read and check an ONNX file; tensors kept in other files are not read.

    Raises:
        UserError: if the file cannot be read, is no ONNX model, exceeds a limit or is not a valid graph.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file; give the path of an .onnx file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(
                f"{path}: {size} bytes, at most {MAX_BYTES} are read; save the weights as external data (unused)"
            )
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UserError(f"{path}: cannot be read ({error}); check the path and its permissions") from None
    return parse(content, str(path))


def parse(content: bytes, source: str) -> OnnxFile:
    """Check the content of an ONNX file.

    Args:
        content: the file's bytes.
        source: how messages name the file.

    Raises:
        UserError: as ``read_file``.
    """
    try:
        model = ModelProto.FromString(content)
    except (DecodeError, UnicodeDecodeError):
        raise UserError(f"{source}: not an ONNX model, or damaged; export it again") from None
    if not model.graph.node:
        raise UserError(f"{source}: holds no ONNX graph, or one without operators; export it again")
    opset = _opset(model, source)
    if model.functions:
        raise UserError(f"{source}: has model-local functions; inline them first (onnx.inliner.inline_local_functions)")
    if len(model.graph.node) > MAX_NODES:
        raise _too_large(source)
    _make_dense(model.graph)
    if len(content) > MAX_KEPT:
        _drop_data(model.graph)
    _unshare(model.graph)
    nodes = tuple([OnnxNode.from_file(node, source) for node in model.graph.node])
    bodies = _nested(nodes, source)
    _check_edges(nodes, bodies, source)
    _check_types([model.graph, *bodies], source)
    weights = _weights(model.graph, source)
    for body in bodies:
        _make_dense(body)
        _weights(body, source)
    _check_tensors(model.graph, nodes, set(weights), source)
    _hide_untrusted(bodies)
    untrusted = _untrusted(model.graph, nodes, weights)
    file = OnnxFile(source, model, nodes, opset, untrusted, weights, _captured(bodies))
    return replace(file, exported=file.batch)


def _opset(model: ModelProto, source: str) -> int:
    versions = {int(entry.version) for entry in model.opset_import if entry.domain in ONNX_DOMAINS}
    if len(versions) != 1 or (version := versions.pop()) not in OPSETS:
        found = ", ".join(str(entry.version) for entry in model.opset_import if entry.domain in ONNX_DOMAINS) or "none"
        raise UserError(
            f"{source}: ONNX operator set {found}, this narbench reads {OPSETS[0]}-{OPSETS[-1]}; export it again or "
            "convert it (onnx.version_converter)"
        )
    return version


def _nested(nodes: Sequence[OnnxNode], source: str) -> list[GraphProto]:
    """The bodies of If, Loop and Scan, those within bodies too; refuse too many operators and too deep bodies."""
    found: list[GraphProto] = []
    level = _bodies(attribute for node in nodes for attribute in node.attributes)
    count, depth = len(nodes), 0
    while level:
        count, depth = count + sum(len(body.node) for body in level), depth + 1
        if count > MAX_NODES:
            raise _too_large(source)
        if depth > MAX_DEPTH:
            raise UserError(
                f"{source}: bodies of If, Loop or Scan are nested more than {MAX_DEPTH} deep; simplify the model"
            )
        found += level
        level = _bodies(attribute for body in level for node in body.node for attribute in node.attribute)
    return found


def _check_edges(nodes: Sequence[OnnxNode], bodies: Sequence[GraphProto], source: str) -> None:
    edges = sum([max(len(node.inputs), 1) * len(node.outputs) for node in nodes])
    edges += sum(max(len(node.input), 1) * len(node.output) for body in bodies for node in body.node)
    if edges > MAX_EDGES:
        raise UserError(f"{source}: more than {MAX_EDGES} edges; split the model")


def _check_types(graphs: Sequence[GraphProto], source: str) -> None:
    """Refuse long types, which shape inference would copy from tensor to tensor."""
    for value in (value for graph in graphs for value in (*graph.input, *graph.value_info, *graph.output)):
        if value.type.ByteSize() > MAX_TYPE:
            raise UserError(
                f"{source}: the type of {value.name!r} takes more than {MAX_TYPE} bytes; export the model with a simple one"
            )


def _captured(bodies: Sequence[GraphProto]) -> frozenset[str]:
    """What bodies read or give back."""
    read = {name for body in bodies for node in body.node for name in node.input}
    return frozenset(read | {value.name for body in bodies for value in body.output})


def _hide_untrusted(bodies: Sequence[GraphProto]) -> None:
    """Rename the operators of bodies that nobody could check before they are inferred."""
    for node in (node for body in bodies for node in body.node):
        if not trusted(node) or not harmless(node):
            node.op_type = HIDDEN


def _untrusted(graph: GraphProto, nodes: Sequence[OnnxNode], weights: dict[str, tuple[int, ...]]) -> frozenset[int]:
    """Positions of the operators that are inferred one at a time."""
    constants = {
        name: tuple(attribute.t.dims) or (len(attribute.ints),)
        for node in nodes
        if node.type == "Constant"
        for attribute in node.attributes
        for name in node.outputs
    }
    short = {name for name, dims in (weights | constants).items() if prod(dims) <= MAX_RANK and min(dims, default=0) >= 0}
    return frozenset(
        place
        for place, (node, content) in enumerate(zip(nodes, graph.node, strict=True))
        if not node.foreign and not trusted(content, short)
    )


def _too_large(source: str) -> UserError:
    return UserError(f"{source}: more than {MAX_NODES} operators; split the model")


def _bodies(attributes: Iterable[AttributeProto]) -> list[GraphProto]:
    found = [attribute for attribute in attributes if attribute.HasField("g") or attribute.graphs]
    return [body for attribute in found for body in (attribute.g, *attribute.graphs)]


def _weights(graph: GraphProto, source: str) -> dict[str, tuple[int, ...]]:
    weights = {tensor.name: tuple(tensor.dims[:]) for tensor in graph.initializer}
    if len(weights) != len(graph.initializer):
        raise UserError(f"{source}: two initializers have the same name; export it again")
    bad = next((name for name, dims in weights.items() if min(dims, default=0) < 0), None)
    if bad is not None:
        raise UserError(f"{source}: initializer {bad!r} has a negative dimension; export it again")
    large = next((name for name, dims in weights.items() if len(dims) > MAX_RANK), None)
    if large is not None:
        raise UserError(f"{source}: initializer {large!r} has more than {MAX_RANK} dimensions; export it again")
    return weights


def _check_tensors(graph: GraphProto, nodes: Sequence[OnnxNode], made: set[str], source: str) -> None:
    """Refuse a tensor made twice, or used before it is made (which is also what a cycle looks like)."""
    inputs = [value.name for value in graph.input]
    if len(set(inputs)) != len(inputs):
        raise UserError(f"{source}: two graph inputs have the same name; export it again")
    made |= {*inputs, ""}
    for node in nodes:
        if not made.issuperset(node.inputs):
            name = next(name for name in node.inputs if name not in made)
            raise UserError(
                f"{source}: {node} reads {name!r}, which no input, initializer or earlier operator makes; "
                "the graph has a cycle, is not sorted, or lost its initializers"
            )
        for name in filter(None, node.outputs):
            if name in made:
                raise UserError(f"{source}: {node} makes {name!r}, which exists already; export it again")
            made.add(name)
    missing = next((value.name for value in graph.output if value.name not in made), None)
    if missing is not None:
        raise UserError(f"{source}: nothing makes the graph's output {missing!r}; export it again")


def _make_dense(graph: GraphProto) -> None:
    """State sparse initializers as dense ones without data, as shape inference wants them."""
    for sparse in graph.sparse_initializer:
        graph.initializer.add(name=sparse.values.name, data_type=sparse.values.data_type, dims=sparse.dims)
    del graph.sparse_initializer[:]


def _drop_data(graph: GraphProto) -> None:
    """Shape inference copies the model; without the weights that is cheap."""
    constants = (attribute for node in graph.node if node.op_type == "Constant" for attribute in node.attribute)
    for tensor in (*graph.initializer, *_tensors(constants)):
        _strip(tensor, MAX_KEPT)


def _tensors(attributes: Iterable[AttributeProto]) -> Iterable[TensorProto]:
    for attribute in attributes:
        yield from (attribute.t, attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _strip(tensor: TensorProto, limit: int) -> None:
    if tensor.ByteSize() > limit:
        for name in _DATA_FIELDS:
            tensor.ClearField(name)


def _unshare(graph: GraphProto) -> None:
    """Read an Identity of an initializer or Constant as another one: exporters merge parameters of equal value."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    taken = {"", *(value.name for value in graph.input)}
    constants: dict[str, NodeProto] = {}
    copies = []
    for place, node in enumerate(graph.node):
        name = next(iter(node.output), "")
        if node.domain not in ONNX_DOMAINS or name in taken:
            continue
        given = next(iter(node.input), "") if node.op_type == "Identity" else ""
        if given and given in weights:
            copy = graph.initializer.add()
            copy.CopyFrom(weights[given])
            copy.name = name
            _strip(copy, MAX_COPIED)
            weights[name] = copy
            copies.append(place)
        elif given in constants:
            node.CopyFrom(constants[given])
            node.output[:] = [name]
            for tensor in _tensors(node.attribute):
                _strip(tensor, MAX_COPIED)
        if node.op_type == "Constant" and node.ByteSize() <= MAX_KEPT:
            constants[name] = node
    for place in reversed(copies):
        del graph.node[place]
