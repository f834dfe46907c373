"""The weights of several predictors in two tensors, and the gradients of all of them from one joined batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from datasets.base import Benchmark, Rows
from datasets.graph import GraphBatch
from harness.stacked import Layout, StackedWeight, StackingError
from harness.stacked_draws import MemberDraws
from predictors.base import Predictor
from predictors.recipe import is_decayed

Leaves = list[Tensor]

MOST_CPU_NODES = 2048
"""Nodes of a joined batch on a CPU: larger ones save no time there and take memory."""


class Calls(nn.Module):
    """A predictor's two functions of a batch as one module, for its weights to be replaced in both."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, batch: GraphBatch, training: bool) -> Any:
        """Loss terms by name, or predictions (B,)."""
        return self.predictor.loss(batch) if training else self.predictor(batch)


class WeightStack:
    """S predictors of one configuration.

    Attributes:
        predictor: the code that all share; its own weights are not used.
        leaves: (S, P) matrices and (S, V) vectors and biases of every member, each flattened and put one after the other:
            the two groups that weight decay tells apart. Weights that the loss does not depend on are left out.
        unused: (S, ...) the weights left out, by name.
    """

    def __init__(self, predictors: Sequence[Predictor], used: set[str]) -> None:
        self.predictor = predictors[0]
        named = [dict(predictor.named_parameters()) for predictor in predictors]
        stacked = {name: torch.stack([own[name].detach() for own in named]) for name in named[0]}
        self.shapes = [
            {name: w.shape for name, w in named[0].items() if name in used and is_decayed(name, w) is decayed}
            for decayed in (True, False)
        ]
        self.unused = {name: w for name, w in stacked.items() if name not in used}
        self.leaves = [torch.cat([stacked[name].flatten(1) for name in shapes], 1) for shapes in self.shapes]
        self._require_gradients()

    def to(self, device: torch.device) -> None:
        """Move everything."""
        self.predictor.to(device)
        self.leaves = [leaf.detach().to(device) for leaf in self.leaves]
        self.unused = {name: w.to(device) for name, w in self.unused.items()}
        self._require_gradients()

    def _require_gradients(self) -> None:
        for leaf in self.leaves:
            leaf.requires_grad_()
            leaf.grad = torch.zeros_like(leaf)

    def named(self, leaves: Leaves, unused: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights by name (S, ...)."""
        found = dict(unused)
        for shapes, leaf in zip(self.shapes, leaves, strict=True):
            parts = torch.split(leaf, [shape.numel() for shape in shapes.values()], 1)
            found |= {name: x.view(len(x), *shapes[name]) for name, x in zip(shapes, parts, strict=True)}
        return found

    def state_dict(self, member: int, leaves: Leaves) -> dict[str, Tensor]:
        """One member's weights as its own predictor would save them."""
        weights = self.named([leaf.detach() for leaf in leaves], self.unused)
        return {name: weights[name][member].to("cpu", copy=True) for name, _ in self.predictor.named_parameters()}

    def call(self, leaves: Leaves, members: Sequence[int], batch: GraphBatch, joined: Layout, training: bool) -> Any:
        """Loss terms or predictions of a joined batch under the weights of its ``members``."""
        if len(members) < len(leaves[0]):
            leaves = [leaf[_places(members)] for leaf in leaves]
        unused = {name: w[_places(members)] for name, w in self.unused.items()}
        weights: dict[str, Tensor] = {
            f"predictor.{name}": StackedWeight(w, joined) for name, w in self.named(leaves, unused).items()
        }
        self.predictor.train(training)
        return functional_call(Calls(self.predictor), weights, (batch, training))


class JoinedBatches:
    """Batches of several members, gathered as one.

    Args:
        stack: the members' weights.
        data: each member's data, all of one store.
        tokens: tokens of each row of the store that trains.
    """

    def __init__(self, stack: WeightStack, data: Sequence[Benchmark], tokens: Rows) -> None:
        self.stack = stack
        self.store, self.labels = data[0].store, data[0].labels
        self.nodes, self.tokens = self.store.ops.counts, tokens

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.stack.leaves[0].device

    def gather(self, rows: Sequence[Rows], label: str) -> tuple[GraphBatch, Layout]:
        """The joined batch of each member's ``rows``, and whose is whose."""
        nodes = [int(self.nodes[own].sum()) for own in rows]
        joined = Layout([len(own) for own in rows], nodes, self.device)
        return self.store.batch(np.concatenate(rows), label).to(self.device), joined

    def gradients(self, rows: Sequence[Rows], states: list[Tensor]) -> float:
        """Put the gradient of every member's own loss in ``leaf.grad``; members beyond ``rows`` get zeros.

        Args:
            rows: of each member's batch.
            states: random state of each member.

        Returns:
            The mean loss of all graphs.
        """
        for leaf in self.stack.leaves:
            leaf.grad.zero_()  # type: ignore[union-attr]
        total = sum(self._backward(members, rows, states) for members in self._together(rows))
        sizes = torch.ones(len(self.stack.leaves[0]), 1)
        sizes[: len(rows), 0] = torch.tensor([len(own) for own in rows])
        for leaf in self.stack.leaves:
            leaf.grad.div_(sizes.to(self.device))  # type: ignore[union-attr]
        return float(total / sum(map(len, rows)))

    def _backward(self, members: Sequence[int], rows: Sequence[Rows], states: list[Tensor]) -> Tensor:
        """Add each member's gradient times its graphs, for a loss is a mean over graphs; return their summed loss."""
        own = [rows[member] for member in members]
        batch, joined = self.gather(own, self.labels.train)
        if joined.ambiguous:
            return torch.stack([self._backward([member], rows, states) for member in members]).sum()
        leaves = [leaf.detach()[_places(members)].requires_grad_() for leaf in self.stack.leaves]
        with MemberDraws(joined, [states[member] for member in members]):
            terms = self.stack.call(leaves, members, batch, joined, training=True)
            total = torch.stack(list(terms.values())).sum() * len(batch)
        for leaf, gradient in zip(self.stack.leaves, torch.autograd.grad(total, leaves), strict=True):
            leaf.grad[_places(members)] = gradient  # type: ignore[index]
        return total.detach()

    def _together(self, rows: Sequence[Rows]) -> list[list[int]]:
        """Members to be joined: on a CPU few enough and padded alike, so that random numbers are those of separate runs."""
        if self.device.type != "cpu":
            return [list(range(len(rows)))]
        groups: dict[tuple[int, int], list[int]] = {}
        for member, own in enumerate(rows):
            groups.setdefault((int(self.nodes[own].max()), int(self.tokens[own].max())), []).append(member)
        return [
            members[start : start + size]
            for members in groups.values()
            for size in [self._most(members, rows)]
            for start in range(0, len(members), size)
        ]

    def _most(self, members: Sequence[int], rows: Sequence[Rows]) -> int:
        """How many of ``members`` are worth joining on a CPU."""
        return max(1, MOST_CPU_NODES // max(int(self.nodes[rows[member]].sum()) for member in members))

    @torch.no_grad()
    def predict(self, leaves: Leaves, rows: Sequence[Rows], label: str, nodes: int) -> list[Tensor]:
        """Each member's row, prediction and label of its ``rows``, (3, graphs) float64 on the CPU.

        Args:
            leaves: weights to predict with.
            rows: of each member.
            label: name of the label.
            nodes: of a joined batch, about; it has a graph of each member at least.
        """
        chunks = min(1 + sum(int(self.nodes[own].sum()) for own in rows) // nodes, *map(len, rows))
        members = list(range(len(rows)))
        pieces = zip(*(np.array_split(own, chunks) for own in rows), strict=True)
        found = [self._predict(leaves, members, own, label) for own in pieces]
        return [torch.cat([piece[member] for piece in found], 1) for member in members]

    def _predict(self, leaves: Leaves, members: Sequence[int], rows: Sequence[Rows], label: str) -> list[Tensor]:
        batch, joined = self.gather(rows, label)
        if joined.ambiguous:
            return [self._predict(leaves, [m], [own], label)[0] for m, own in zip(members, rows, strict=True)]
        prediction = self.stack.call(leaves, members, batch, joined, training=False)
        columns = torch.stack([batch.row.double(), prediction.double(), batch.target.double()]).cpu()
        return list(torch.split(columns, [len(own) for own in rows], 1))


def _places(members: Sequence[int]) -> slice | list[int]:
    """Index of ``members``, a view where they are the first ones."""
    return slice(len(members)) if list(members) == list(range(len(members))) else list(members)


def prove(stack: WeightStack, predictors: Sequence[Predictor], batches: JoinedBatches, rows: Sequence[Rows]) -> None:
    """Compare the stack's gradients of a few graphs with those of each predictor alone.

    Raises:
        StackingError: if they differ.
    """
    start = [torch.Generator().manual_seed(member).get_state() for member in range(len(rows))]
    before = torch.get_rng_state()
    batches.gradients(rows, [*start])
    if not torch.equal(before, torch.get_rng_state()):
        raise StackingError("it draws random numbers by functions that are not divided among seeds")
    for member, own in enumerate(rows):
        torch.set_rng_state(start[member])
        alone = predictors[member].train()
        loss = torch.stack(list(alone.loss(batches.store.batch(own, batches.labels.train)).values())).sum()
        named = dict(alone.named_parameters())
        for shapes, leaf in zip(stack.shapes, stack.leaves, strict=True):
            expected = torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, [named[n] for n in shapes], retain_graph=True)]
            )
            if not torch.allclose(leaf.grad[member], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):  # type: ignore[index]
                raise StackingError("its gradients in a stack differ from those alone")
    torch.set_rng_state(before)


def used_weights(predictor: Predictor, batch: GraphBatch) -> set[str]:
    """Names of the weights that the loss depends on."""
    loss = torch.stack(list(predictor.train().loss(batch).values())).sum()
    named = dict(predictor.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
