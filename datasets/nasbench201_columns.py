"""What every source of NAS-Bench-201 becomes: the columns and the manifest of its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.cells201 import NODE_OPERATIONS, parse_cell
from datasets.cells201_graphs import HASH_RULE, graph_columns
from datasets.errors import UserError
from datasets.nasbench201_cost import cell_costs
from datasets.store import Columns, Manifest


def build(
    source: str,
    cells: Sequence[str],
    labels: Mapping[str, NDArray[np.float64]],
    params: NDArray[np.int64] | None = None,
    flops: NDArray[np.int64] | None = None,
) -> tuple[Columns, Manifest]:
    """Columns and manifest of B cells in the official order.

    Args:
        source: the file, for messages.
        cells: B architecture strings.
        labels: accuracies as fractions (B,) by name, NaN where absent.
        params: trainable parameters (B,); computed from the cell if None.
        flops: multiply-accumulates for one CIFAR-10 image (B,); computed from the cell if None.

    Raises:
        UserError: naming the file and the row of a string that is no cell.
    """
    for row, cell in enumerate(cells):
        try:
            parse_cell(cell)
        except ValueError as error:
            raise UserError(f"{source}: row {row}, arch_str: {error}; download the file or make the table again") from None
    ops, edges, hashes = graph_columns(cells)
    computed = cell_costs(ops.values.reshape(len(cells), -1))
    static = {"params": computed[0] if params is None else params, "flops": computed[1] if flops is None else flops}
    gaps = {name: int(gap) for name, y in labels.items() if (gap := np.isnan(y).sum())}
    manifest = Manifest(
        name="nasbench201",
        task="accuracy",
        operations=NODE_OPERATIONS,
        labels=dict.fromkeys(labels, "fraction"),
        static={"params": "count", "flops": "multiply-accumulates"},
        hash_rule=HASH_RULE,
        source={"file": source},
        notes={"cells without a label": gaps} if gaps else {},
    )
    return Columns(cells, hashes, ops, edges, static, labels), manifest
