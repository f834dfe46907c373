"""How the labels of ``digits201`` are made: train NAS-Bench-201 cells on scikit-learn's handwritten digits.

Each of 2,000 cells (a fixed uniform sample of the 15,625) is trained from three seeds on 300 of the 1,797 8x8 images and
scored on 748 validation and 749 test images. Everything is a pure function of the cell and the seed; results go to a
journal, one line per finished cell, so that an interrupted run continues where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.cells201 import CELL_EDGES, enumerate_cells, parse_cell
from datasets.errors import UserError

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; written at the head of the journal, and a journal of another recipe is refused."""

    cells: int = 2000
    channels: int = 8
    train_images: int = 300
    validation_images: int = 748
    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    input_noise: float = 0.2


def sampled_cells(recipe: Recipe) -> list[str]:
    """The architecture strings of the benchmark, in the order of its rows: a uniform sample in random order."""
    cells = enumerate_cells()
    return [cells[i] for i in np.random.default_rng(201).permutation(len(cells))[: recipe.cells]]


def load_images() -> tuple[Tensor, Tensor]:
    """Scikit-learn's digits, shuffled once: images (1797, 1, 8, 8) centred on 0 and class ids (1797,)."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(8).permutation(len(images))
    pixels = torch.tensor(images[order] / 16 - 0.3, dtype=torch.float32).view(-1, 1, 8, 8)
    return pixels, torch.tensor(classes[order])


def _operation(name: str, channels: int) -> nn.Module | None:
    if name == "none":
        return None
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    kernel = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name]
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels))


class Cell(nn.Module):
    """Four feature maps (B, channels, H, W) joined by the six operations of ``arch``; returns the last of them."""

    def __init__(self, arch: str, channels: int) -> None:
        super().__init__()
        made = [_operation(name, channels) for name in parse_cell(arch)]
        self.edges = [edge for edge, op in zip(CELL_EDGES, made, strict=True) if op is not None]
        self.operations = nn.ModuleList(op for op in made if op is not None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape; zero where no operation reaches the output."""
        maps: dict[int, Tensor] = {0: x}
        for (source, target), operation in zip(self.edges, self.operations, strict=True):
            if source in maps:
                y = operation(maps[source])
                maps[target] = maps[target] + y if target in maps else y
        return maps[3] if 3 in maps else torch.zeros_like(x)


class DigitsNetwork(nn.Module):
    """Stem, cell, stride-2 convolution to twice the channels, cell, pooled linear classifier over ten digits."""

    def __init__(self, arch: str, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.first = Cell(arch, channels)
        self.reduction = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide)
        )
        self.second = Cell(arch, wide)
        self.norm = nn.BatchNorm2d(wide)
        self.classifier = nn.Linear(wide, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10) of images (B, 1, 8, 8)."""
        x = self.second(self.reduction(self.first(self.stem(images))))
        logits: Tensor = self.classifier(F.relu(self.norm(x)).mean((2, 3)))
        return logits


def count_cost(network: nn.Module) -> tuple[int, int]:
    """Return (parameters, multiply-accumulates of the convolutions and linear layers for one 8x8 image)."""
    total = 0

    def add(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        positions = output.shape[2] * output.shape[3] if output.dim() == 4 else 1
        total += positions * int(module.weight.numel())  # type: ignore[operator]

    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, 8, 8))
    for hook in hooks:
        hook.remove()
    return sum(p.numel() for p in network.parameters()), total


def train_network(arch: str, seed: int, recipe: Recipe, images: Tensor, classes: Tensor) -> tuple[float, float]:
    """Train one network by SGD with cosine decay; return its (validation, test) accuracy in [0, 1]."""
    torch.manual_seed(seed)
    network = DigitsNetwork(arch, recipe.channels)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    steps = recipe.epochs * -(-recipe.train_images // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(recipe.epochs):
        for rows in torch.split(torch.randperm(recipe.train_images), recipe.batch_size):
            noisy = images[rows] + recipe.input_noise * torch.randn(len(rows), 1, 8, 8)
            optimizer.zero_grad()
            loss: Tensor = F.cross_entropy(network(noisy), classes[rows])
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        right = (network(images[recipe.train_images :]).argmax(1) == classes[recipe.train_images :]).double()
    return right[: recipe.validation_images].mean().item(), right[recipe.validation_images :].mean().item()


def _train_cell(index: int, arch: str, recipe: Recipe) -> dict[str, Any]:
    torch.set_num_threads(1)
    images, classes = load_images()
    parameters, flops = count_cost(DigitsNetwork(arch, recipe.channels))
    row: dict[str, Any] = {"index": index, "arch": arch, "params": parameters, "flops": flops}
    row |= {"validation": [], "test": [], "seconds": []}
    for seed in SEEDS:
        start = time.perf_counter()
        validation, test = train_network(arch, seed, recipe, images, classes)
        row["validation"].append(validation)
        row["test"].append(test)
        row["seconds"].append(round(time.perf_counter() - start, 4))
    return row


def read_journal(path: Path, recipe: Recipe) -> dict[int, dict[str, Any]]:
    """Finished cells by index; a last line cut short by a kill is not counted as finished.

    Raises:
        UserError: if the journal was written with another recipe or holds a line that is not JSON.
    """
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    parsed = [_parse_line(path, number, line) for number, line in enumerate(lines, 1)]
    if parsed and parsed[0] != asdict(recipe):
        raise UserError(f"{path}: made with another recipe; move it away, or give another --journal, to start afresh")
    return {row["index"]: row for row in parsed[1:]}


def _parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}); delete that line and its cell is redone") from None
    return row


def _rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    whole = path.with_name(f"{path.name}.new")
    whole.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole.replace(path)


def _results(missing: list[tuple[int, str]], recipe: Recipe, workers: int) -> Iterator[dict[str, Any]]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_train_cell, index, arch, recipe) for index, arch in missing]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def train_all(journal: Path, recipe: Recipe, workers: int) -> list[dict[str, Any]]:
    """Train every sampled cell that ``journal`` lacks and return all rows in benchmark order.

    Args:
        journal: finished cells, one line each; continued if it exists.
        recipe: how each network is trained.
        workers: processes, of one thread each.

    Raises:
        UserError: if the journal belongs to another recipe or is damaged.
    """
    done = read_journal(journal, recipe)
    missing = [(i, arch) for i, arch in enumerate(sampled_cells(recipe)) if i not in done]
    journal.parent.mkdir(parents=True, exist_ok=True)
    _rewrite(journal, [asdict(recipe), *done.values()])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress, journal.open("a") as out:
        task = progress.add_task("training cells", total=recipe.cells, completed=len(done))
        for row in _results(missing, recipe, workers):
            out.write(json.dumps(row) + "\n")
            out.flush()
            done[row["index"]] = row
            progress.advance(task)
    return [done[i] for i in range(recipe.cells)]
