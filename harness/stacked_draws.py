"""Random numbers of a joined batch: on a CPU each member draws its own, in the order and shapes of a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from harness.stacked import Layout, Rows
from predictors.layers.dropout import keep_mask


class MemberDraws(TorchFunctionMode):
    """While active, random functions of rows are evaluated for each member under that member's random state.

    Off the CPU dropout and multinomial draws are taken for all rows at once, from the generator of the device: as good as
    those of separate runs, but other numbers. Permutations are always drawn for each member.

    Args:
        joined: layout of the joined batch.
        states: random state of each member.
    """

    def __init__(self, joined: Layout, states: list[Tensor]) -> None:
        super().__init__()
        self.joined = joined
        self.states = states

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Evaluate ``func`` for each member if it is random, else as it is."""
        kwargs = kwargs or {}
        if func is torch.randperm:
            return self._permutation(args[0], **kwargs)
        if func in ROW_WISE and args[0].device.type == "cpu" and kwargs.get("p") != 0:
            rows = self.joined.rows(len(args[0]))
            own = ROW_WISE[func](rows, args[0])
            return rows.join([self._under(member, func, x, *args[1:], **kwargs) for member, x in enumerate(own)])
        return func(*args, **kwargs)

    def _permutation(self, total: int, device: torch.device | None = None) -> Tensor:
        """A permutation that leaves every row with its member."""
        rows = self.joined.rows(total)
        own = rows.split(torch.arange(total))
        drawn = [index[self._under(member, torch.randperm, len(index))] for member, index in enumerate(own)]
        return rows.join(drawn).to(device)

    def _under(self, member: int, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        kept = torch.get_rng_state()
        torch.set_rng_state(self.states[member])
        result = func(*args, **kwargs)
        self.states[member] = torch.get_rng_state()
        torch.set_rng_state(kept)
        return result


def _shapes(rows: Rows, like: Tensor) -> list[Tensor]:
    """Tensors of the shape that each member's rows have, without content."""
    counts = [sum(rows.lengths[member :: rows.members]) for member in range(rows.members)]
    return [like.new_empty(1).expand(count, *like.shape[1:]) for count in counts]


ROW_WISE: Mapping[Any, Callable[[Rows, Tensor], list[Tensor]]] = {
    keep_mask: _shapes,
    F.dropout: Rows.split,
    torch.multinomial: Rows.split,
}
"""Random functions whose first argument has a row for every row of the result, and how it is divided."""
