"""Make miniature files in the official formats of NAS-Bench-201: ``python make.py FOLDER`` writes them all."""

from __future__ import annotations

import bz2
import pickle
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

CELLS = (
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
)

SEEDS = {
    12: {"cifar10-valid": (111, 777), "cifar10": (777,), "cifar100": (777,), "ImageNet16-120": (777,)},
    200: {"cifar10-valid": (777, 888, 999), "cifar10": (777, 888), "cifar100": (777, 999), "ImageNet16-120": (888,)},
}
"""Seeds of each training, as unequal in number as in the official files."""

SPLITS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("ori-test", "x-valid", "x-test"),
    "ImageNet16-120": ("ori-test", "x-valid", "x-test"),
}

MEGAPARAMS, MEGAFLOPS = 0.129306, 15.64736


def accuracy(index: int, dataset: str, split: str, epoch: int, epochs: int, seed: int) -> float:
    """Accuracy in percent that the files hold: different for every argument."""
    place = 10 * list(SPLITS).index(dataset) + 3 * SPLITS[dataset].index(split)
    return 20 + index + place + epoch / epochs + (0.5 if epochs == 200 else 0) + seed / 10_000


def trial(index: int, cell: str, dataset: str, epochs: int, seed: int) -> dict[str, Any]:
    """State of one ``ResultsCount``, with a NumPy number and trained weights as some files have."""
    evaluated = {
        f"{split}@{epoch}": accuracy(index, dataset, split, epoch, epochs, seed)
        for split in SPLITS[dataset]
        for epoch in range(epochs)
    }
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": OrderedDict((epoch, 90.0) for epoch in range(epochs)),
        "train_acc5es": None,
        "train_losses": dict.fromkeys(range(epochs), 0.1),
        "train_times": None,
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": cell, "class_num": 10},
        "params": np.float64(MEGAPARAMS + index),
        "flop": MEGAFLOPS + index,
        "seed": seed,
        "epochs": epochs,
        "latency": [0.01, 0.02],
        "eval_names": list(SPLITS[dataset]),
        "eval_acc1es": evaluated,
        "eval_times": {},
        "eval_losses": dict.fromkeys(evaluated, 1.0),
    }


def state(index: int, cell: str, epochs: int) -> dict[str, Any]:
    """State of one ``ArchResults``."""
    return {
        "arch_index": index,
        "arch_str": cell,
        "all_results": {
            (dataset, seed): trial(index, cell, dataset, epochs, seed)
            for dataset, seeds in SEEDS[epochs].items()
            for seed in seeds
        },
        "dataset_seed": {dataset: list(seeds) for dataset, seeds in SEEDS[epochs].items()},
        "clear_net_done": True,
    }


def pth_content(cells: Sequence[str] = CELLS) -> dict[str, Any]:
    """What a ``.pth`` file holds."""
    infos = {i: {"full": state(i, cell, 200), "less": state(i, cell, 12)} for i, cell in enumerate(cells)}
    return {"meta_archs": list(cells), "arch2infos": infos, "evaluated_indexes": set(infos)}


def make_pth(path: Path, content: dict[str, Any] | None = None, *, legacy: bool = False) -> Path:
    """Write ``content`` as ``torch.save`` does, zipped or as before torch 1.6."""
    torch.save(content or pth_content(), path, _use_new_zipfile_serialization=not legacy)
    return path


def write_packed(path: Path, content: Any) -> Path:
    """Write one ``.pickle.pbz2`` file."""
    with bz2.open(path, "wb") as file:
        pickle.dump(content, file, protocol=4)
    return path


def make_nats(folder: Path, cells: Sequence[str] = CELLS) -> Path:
    """Write a NATS-Bench ``simple`` folder."""
    folder.mkdir(parents=True)
    meta = {"meta_archs": list(cells), "total_archs": len(cells), "arch2infos": None, "evaluated_indexes": set()}
    write_packed(folder / "meta.pickle.pbz2", meta)
    for i, cell in enumerate(cells):
        content = OrderedDict({"12": state(i, cell, 12), "200": state(i, cell, 200)})
        write_packed(folder / f"{i:06d}.pickle.pbz2", content)
    return folder


if __name__ == "__main__":
    root = Path(sys.argv[1])
    make_nats(root / "NATS-tss-v1_0-3ffb9-simple")
    make_pth(root / "NAS-Bench-201-v1_1-096897.pth")
    make_pth(root / "NAS-Bench-201-v1_0-e61699.pth", legacy=True)


def make_table(path, **changed):
    """A table of two cells; a column given as None is left out."""
    columns = {
        "arch_idx": [0, 1],
        "arch_str": list(CELLS[:2]),
        "hp200_c10valid_val": [81.5, 90.25],
        "nats_c10_test200": [85.0, 93.0],
        "params_M_nats": [0.129306, 0.802426],
        "other": ["a", "b"],
    }
    pq.write_table(pa.table({name: c for name, c in (columns | changed).items() if c is not None}), path)
    return path
