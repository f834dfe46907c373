"""GAT (Veličković et al., "Graph Attention Networks", ICLR 2018)."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import GATConv

from datasets.errors import UserError
from predictors.gnn import GNN

HEADS = 4
"""Attention heads, whose outputs are concatenated."""


class GAT(GNN):
    """Attention over the nodes around and the node itself, four heads."""

    def convolution(self, width: int) -> nn.Module:
        """The attention convolution with self-loops.

        Raises:
            UserError: if the width is not a multiple of the heads.
        """
        if width % HEADS:
            raise UserError(f"predictor.hidden={width}: choose a multiple of the {HEADS} heads of {self.config.name}")
        convolution: nn.Module = GATConv(width, width // HEADS, heads=HEADS)
        return convolution
