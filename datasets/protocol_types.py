"""What a protocol is: its configuration and the rows it gives each role."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.errors import UserError

Rows = NDArray[np.int64]


@dataclass
class LabelConfig:
    """Label column of each role: a name, or names in order of preference (``a|b``) of which the first present is used."""

    train: str
    val: str
    test: str


@dataclass
class ProtocolConfig:
    """Which graphs train, select and test.

    Sizes are a count (``424``), a fraction (``0.05``, ``5%``) or ``all``.

    Attributes:
        name: ``paper``, ``strict``, or one of the rules of ``datasets.family_protocols``.
        train: training graphs.
        val: graphs that choose the checkpoint.
        test: test graphs; ``all`` is every row for ``paper`` and every row left for ``strict``.
        seed: draws random rows; ``paper`` draws none.
        select: rows that choose the checkpoint under the rules by family: ``validation`` or ``test`` (as published).
        family: the family that ``ood`` holds out.
        platform: the device of ``transfer``, or the one that ``multi_platform`` leaves out.
    """

    name: str
    train: int | float | str
    val: int | float | str
    test: int | float | str
    seed: int
    select: str = "validation"
    family: str | None = None
    platform: str | None = None


@dataclass(frozen=True)
class Split:
    """Rows of a store by role.

    Attributes:
        train: rows that train.
        val: rows that choose the checkpoint.
        test: rows that are scored.
        rest: the test rows that neither trained nor selected, where ``test`` has others too.
        excluded: graphs in none of the sets, by reason.
        leaks: what the rule lets through, in words; empty for a clean rule.
    """

    train: Rows
    val: Rows
    test: Rows
    rest: Rows | None
    excluded: dict[str, int]
    leaks: str

    @property
    def sha256(self) -> str:
        """Digest of the rows of every role, in order."""
        digest = hashlib.sha256()
        for name in ("train", "val", "test"):
            rows = np.ascontiguousarray(getattr(self, name), dtype="<i8")
            digest.update(f"{name} {len(rows)}\n".encode())
            digest.update(rows.data)
        return digest.hexdigest()


def parse_size(value: int | float | str, total: int, key: str) -> int:
    """Number of graphs meant by a size.

    Raises:
        UserError: naming ``key`` if the value is no size, is not positive or exceeds ``total``.
    """
    text = str(value).strip()
    try:
        if text == "all":
            size = total
        elif text.endswith("%"):
            size = round(float(text[:-1]) / 100 * total)
        elif isinstance(value, float) or "." in text:
            size = round(float(text) * total)
        else:
            size = int(text)
    except (ValueError, OverflowError):
        raise UserError(f"{key}={value}: not a size; give a count (424), a fraction (0.05, 5%) or all") from None
    if not total:
        raise UserError(f"{key}={value}: no graph is left for it by the protocol, the other sizes and missing labels")
    if not 0 < size <= total:
        raise UserError(f"{key}={value} means {size} graphs; choose 1 to {total}")
    return size


def graph_numbers(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number graphs so that equal hashes have equal numbers (B,)."""
    words = np.ascontiguousarray(hashes).view(">u8")
    order = np.lexsort((words[:, 1], words[:, 0]))
    changed = np.any(words[order][1:] != words[order][:-1], axis=1)
    groups = np.empty(len(order), np.int64)
    groups[order] = np.concatenate([[0], np.cumsum(changed)])
    return groups
