"""The nodes and edges of an ONNX graph by the rules of NNLQP (Liu et al., ICPP 2022): one node for each tensor made.

* An operator becomes one node for each of its outputs that anything reads (graph outputs included).
* Every input of an operator is an edge from the node of that tensor, but for the parameters of Conv, ConvTranspose, Gemm,
  BatchNormalization and Reshape: initializers, constants and graph inputs from their second input on.
* All other graph inputs, initializers and constants that are read become nodes without parents, of operation ``Input``.
* A node without edges is dropped.

The bodies of If, Loop and Scan are not looked into.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.onnx_file import MAX_NODES, PARAMETERISED, OnnxFile, OnnxNode


@dataclass(frozen=True)
class Dag:
    """The nodes of a graph in topological order: by generation, as networkx (2.6 and later) sorts them.

    Attributes:
        names: tensor that each node stands for.
        makers: position in the file of the operator that makes it; -1 of a node without parents.
        edges: (e, 2) parent, child; sorted.
    """

    names: tuple[str, ...]
    makers: tuple[int, ...]
    edges: NDArray[np.int32]


def build_dag(file: OnnxFile) -> Dag:
    """The nodes and edges of a file.

    Raises:
        UserError: if there are none, or more than ``MAX_NODES`` nodes.
    """
    made = _made(file)
    index = {name: place for place, name in enumerate(made)}
    children: list[dict[int, None]] = [{} for _ in made]
    given = _given(file)
    for node in file.nodes:
        outputs = dict.fromkeys([index[name] for name in node.outputs if name in made])
        for name in _data_inputs(node, given) if outputs else ():
            if (parent := index.setdefault(name, len(index))) == len(children):
                children.append({})
            children[parent].update(outputs)
    order, parents = _generations(children)
    if not order:
        raise UserError(f"{file.source}: holds no operator that reads an input; export the model again")
    if len(order) > MAX_NODES:
        raise UserError(
            f"{file.source}: its graph has {len(order)} nodes, one for each tensor that is read; at most {MAX_NODES} are "
            "read, split the model"
        )
    names = list(index)
    makers = tuple([made[names[v]] if parents[v] else -1 for v in order])
    return Dag(tuple([names[v] for v in order]), makers, _sorted_edges(order, children))


def _made(file: OnnxFile) -> dict[str, int]:
    """Tensors that are made and read, and the position of the operator that makes each."""
    read = (
        {name for node in file.nodes for name in node.inputs} | {value.name for value in file.graph.output} | file.captured
    )
    return {name: place for place, node in enumerate(file.nodes) for name in node.outputs if name and name in read}


def _given(file: OnnxFile) -> set[str]:
    """Tensors that do not depend on data that flow through the graph."""
    constants = {name for node in file.nodes if node.type == "Constant" for name in node.outputs}
    return constants | set(file.weights) | {value.name for value in file.graph.input}


def _data_inputs(node: OnnxNode, given: set[str]) -> Iterable[str]:
    if node.type in PARAMETERISED:
        return [name for place, name in enumerate(node.inputs) if name and (place == 0 or name not in given)]
    return filter(None, node.inputs)


def _generations(children: Sequence[dict[int, None]]) -> tuple[list[int], list[int]]:
    """Nodes that have edges, generation by generation, and the number of parents of every node."""
    parents = [0] * len(children)
    for group in children:
        for child in group:
            parents[child] += 1
    level = [v for v, count in enumerate(parents) if not count and children[v]]
    waiting, order = parents.copy(), []
    while level:
        order += level
        following = []
        for child in (child for v in level for child in children[v]):
            waiting[child] -= 1
            if not waiting[child]:
                following.append(child)
        level = following
    return order, parents


def _sorted_edges(order: Sequence[int], children: Sequence[dict[int, None]]) -> NDArray[np.int32]:
    place = np.empty(len(children), np.int64)
    place[order] = np.arange(len(order))
    parent = np.repeat(np.arange(len(order)), [len(children[v]) for v in order])
    child = place[[child for v in order for child in children[v]]]
    pairs = np.sort(parent * len(order) + child)
    return np.stack(np.divmod(pairs, len(order)), 1).astype(np.int32)
