"""Several predictors of one configuration as one: stacked weights applied to a joined batch, each row by its own member's.

A member's rows of a joined batch are known from how predictors lay rows out: graphs, nodes, or copies of either. Operations
between weights and data are carried out for all members at once; everything else in a predictor works on graphs that do not
see each other, so a joined batch goes through its code unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class StackingError(Exception):
    """A predictor does something that is not defined for stacked weights."""


class Rows:
    """R rows of which block k (of ``lengths[k]`` rows) is of member ``k % members``.

    Attributes:
        lengths: rows of each block.
        members: number of members S.
        copies: blocks of each member.
    """

    def __init__(self, lengths: Sequence[int], members: int, device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.members = members
        self.copies = len(lengths) // members
        self.device = device
        self.even = len(set(lengths)) == 1
        self.longest = max(lengths)

    @cached_property
    def member(self) -> Tensor:
        """Member of each row (R,)."""
        blocks = torch.arange(self.members).repeat(self.copies)
        return blocks.repeat_interleave(torch.tensor(self.lengths)).to(self.device)

    @cached_property
    def slot(self) -> Tensor:
        """Place of each row in blocks padded to the longest (R,)."""
        starts = torch.arange(len(self.lengths)) * self.longest
        return torch.cat([torch.arange(n) + first for n, first in zip(self.lengths, starts, strict=True)]).to(self.device)

    def stack(self, x: Tensor) -> Tensor:
        """Rows (R, ...) by copy and member, padded with zeros: (copies, S, longest, ...)."""
        shape = (self.copies, self.members, self.longest, *x.shape[1:])
        if self.even:
            return x.reshape(shape)
        padded = x.new_zeros(len(self.lengths) * self.longest, *x.shape[1:])
        return padded.index_copy(0, self.slot, x).view(shape)

    def unstack(self, x: Tensor) -> Tensor:
        """The inverse of ``stack``."""
        rows = x.flatten(0, 2)
        return rows if self.even else rows.index_select(0, self.slot)

    def by_member(self, x: Tensor) -> Tensor:
        """Rows (R, ...) by member, the copies one after the other: (S, copies longest, ...)."""
        return self.stack(x).transpose(0, 1).flatten(1, 2)

    def from_members(self, x: Tensor) -> Tensor:
        """The inverse of ``by_member``."""
        return self.unstack(x.view(len(x), self.copies, self.longest, *x.shape[2:]).transpose(0, 1))

    def split(self, x: Tensor) -> list[Tensor]:
        """Each member's own rows, its copies one after the other, as it would see them alone."""
        blocks = torch.split(x, list(self.lengths))
        return [torch.cat(blocks[member :: self.members]) for member in range(self.members)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of ``split``."""
        own = [torch.split(part, list(self.lengths[member :: self.members])) for member, part in enumerate(parts)]
        return torch.cat([blocks[copy] for copy in range(self.copies) for blocks in own])


class Layout:
    """Whose the rows of a joined batch are, by their number.

    Args:
        graphs: graphs of each member.
        nodes: nodes of each member.
        device: of the batch.
    """

    def __init__(self, graphs: Sequence[int], nodes: Sequence[int], device: torch.device) -> None:
        self.members = len(graphs)
        kinds = [(*graphs,), (*graphs,) * 2, (*nodes,), (*nodes,) * 2, (*nodes, *graphs)]
        self.ambiguous = self.members > 1 and len({sum(lengths) for lengths in kinds}) < len(set(kinds))
        self.by_total = {sum(lengths): Rows(lengths, self.members, device) for lengths in kinds}

    def rows(self, total: int) -> Rows:
        """The layout of ``total`` rows.

        Raises:
            StackingError: if rows of that number are neither graphs nor nodes.
        """
        if total not in self.by_total:
            raise StackingError(f"it has {total} rows of something that is neither graphs nor nodes")
        return self.by_total[total]


class StackedWeight(Tensor):
    """The weights (S, ...) of S members, seen by a predictor's code as those of one.

    Attributes:
        per_member: (S, ...).
        joined: layout of the joined batch they are applied to.
    """

    per_member: Tensor
    joined: Layout

    @staticmethod
    def __new__(cls: type[StackedWeight], per_member: Tensor, joined: Layout) -> StackedWeight:
        """Wrap ``per_member``."""
        weight: StackedWeight = torch.Tensor._make_wrapper_subclass(
            cls, per_member.shape[1:], dtype=per_member.dtype, device=per_member.device
        )
        weight.per_member, weight.joined = per_member, joined
        return weight

    def __init__(self, per_member: Tensor, joined: Layout) -> None:
        """See ``__new__``."""

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Reached by what looks past ``__torch_function__``: not defined."""
        raise StackingError(f"it uses a weight in {func}")

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Carry out one operation for all members.

        Raises:
            StackingError: if it is not known how.
        """
        kwargs = kwargs or {}
        if func in METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in APPLIED:
            return APPLIED[func](*args, **kwargs)
        operands = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if all(isinstance(x, StackedWeight) for x in operands):
            return _among_weights(func, args, kwargs)
        if func in BROADCAST and len(operands) == 2 and not kwargs:
            return _broadcast(func, *args)
        raise StackingError(f"it combines weights and data by {getattr(func, '__name__', func)}")


def _among_weights(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """An operation on weights (and numbers) alone, for each member."""
    layout = next(x.joined for x in args if isinstance(x, StackedWeight))
    dims = tuple(0 if isinstance(x, StackedWeight) else None for x in args)
    values = [x.per_member if isinstance(x, StackedWeight) else x for x in args]
    result = torch.vmap(lambda *own: func(*own, **kwargs), in_dims=dims)(*values)
    if isinstance(result, Tensor):
        return StackedWeight(result, layout)
    return type(result)(StackedWeight(part, layout) for part in result)


def _spread(weight: StackedWeight, ndim: int) -> Tensor:
    """``weight`` with a dimension for the rows, for data of ``ndim`` dimensions that ``Rows.stack`` has stacked."""
    values = weight.per_member
    if values.ndim - 1 == ndim and values.shape[1] != 1:
        raise StackingError(f"it combines a weight of shape {tuple(values.shape[1:])} with as many rows")
    return values.view(len(values), *[1] * (ndim - values.ndim + 1), *values.shape[1:])


def _broadcast(func: Callable[..., Tensor], first: Any, second: Any) -> Tensor:
    """An operation that broadcasts weights over rows of data."""
    weight, data = (first, second) if isinstance(first, StackedWeight) else (second, first)
    if data.ndim < weight.per_member.ndim - 1:
        raise StackingError(
            f"it combines a weight of shape {tuple(weight.per_member.shape[1:])} with data of fewer dimensions"
        )
    rows = weight.joined.rows(len(data))
    spread, stacked = _spread(weight, data.ndim), rows.stack(data)
    return rows.unstack(func(spread, stacked) if weight is first else func(stacked, spread))


def _linear(x: Any, weight: StackedWeight, bias: StackedWeight | None = None) -> Any:
    if isinstance(x, StackedWeight):
        return _among_weights(F.linear, (x, weight) if bias is None else (x, weight, bias), {})
    rows = weight.joined.rows(len(x))
    own = rows.by_member(x)
    flat, matrices = own.flatten(1, -2), weight.per_member.mT
    product = torch.bmm(flat, matrices) if bias is None else torch.baddbmm(bias.per_member[:, None], flat, matrices)
    return rows.from_members(product.view(*own.shape[:-1], product.shape[-1]))


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: StackedWeight | None = None,
    bias: StackedWeight | None = None,
    eps: float = 1e-5,
) -> Tensor:
    y = F.layer_norm(x, normalized_shape, eps=eps)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


def _embedding(index: Tensor, weight: StackedWeight, padding_idx: int | None = None, *options: Any, **named: Any) -> Tensor:
    member = weight.joined.rows(len(index)).member
    size = weight.per_member.shape[1]
    if padding_idx not in (None, -1):
        raise StackingError("it has an embedding with padding")
    first = (member * size).view(-1, *[1] * (index.ndim - 1))
    return F.embedding(index + first, weight.per_member.flatten(0, 1))


def _expand(weight: StackedWeight, *sizes: Any) -> Tensor:
    total, *rest = sizes[0] if isinstance(sizes[0], Sequence) else sizes
    rows = weight.joined.rows(total)
    spread = _spread(weight, 1 + len(rest))
    return rows.unstack(spread.expand(rows.copies, rows.members, rows.longest, *rest))


def _baddbmm(bias: StackedWeight, x: Tensor, weight: StackedWeight) -> Tensor:
    """Rows are the second dimension of ``x`` (groups, R, inputs)."""
    rows = weight.joined.rows(x.shape[1])
    own = rows.by_member(x.transpose(0, 1)).transpose(1, 2)
    return rows.from_members((own @ weight.per_member + bias.per_member).transpose(1, 2)).transpose(0, 1)


METADATA = {
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_sparse")
    ),
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, Tensor.is_complex),
}
"""What is asked of a weight itself."""

APPLIED: Mapping[Any, Callable[..., Any]] = {
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    F.embedding: _embedding,
    torch.baddbmm: _baddbmm,
    Tensor.expand: _expand,
}
"""Operations of weights on data with a rule of their own."""

BROADCAST = {
    *(torch.add, torch.mul, torch.sub, torch.matmul),
    *(getattr(Tensor, f"__{name}__") for name in ("add", "radd", "mul", "rmul", "sub", "matmul")),
    *(Tensor.add, Tensor.mul, Tensor.sub, Tensor.matmul),
}
"""Operations that broadcast a weight over the rows of data."""
