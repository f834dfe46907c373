"""``narbench data``: prepare, describe and make benchmarks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from harness.terminal import say

if TYPE_CHECKING:
    from datasets.base import Benchmark

app = typer.Typer(help="Convert, describe and make benchmarks.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Benchmark, as in dataset=NAME.", show_default=False)]
Root = Annotated[Path | None, typer.Option(help="Folder with the official files.", show_default="data")]
Cache = Annotated[Path | None, typer.Option(help="Folder for the converted stores.", show_default="~/.cache/narbench")]
Part = Annotated[str | None, typer.Option(help="Part of the benchmark (nnlqp).", show_default="unseen_structure")]
Device = Annotated[str | None, typer.Option(help="Device of the benchmark (nb201_latency).", show_default="1080ti_1")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Leave out the rows whose networks cannot be read (nnlqp).")
]


@app.command()
def prepare(
    name: Name,
    root: Root = None,
    cache: Cache = None,
    checksum: Annotated[bool, typer.Option("--checksum/--no-checksum", help="Refuse a file that was altered.")] = True,
    allow_missing: AllowMissing = False,
    part: Part = None,
    device: Device = None,
) -> None:
    """Convert a benchmark's official file to a store, once."""
    store = benchmark(name, root, cache, checksum, allow_missing, part, device).open_store()
    say(f"{name}: {len(store):,} graphs in {store.folder}")


@app.command()
def describe(
    name: Name,
    root: Root = None,
    cache: Cache = None,
    allow_missing: AllowMissing = False,
    part: Part = None,
    device: Device = None,
) -> None:
    """Show what a benchmark holds: graphs, operations, labels, noise ceilings and protocols."""
    from harness.cli.describe import print_description

    made = benchmark(name, root, cache, allow_missing=allow_missing, part=part, device=device)
    print_description(made, Console())


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="digits201, which is trained here, or ortcpu, from measurements.")],
    journal: Annotated[Path, typer.Option(help="digits201: finished cells; an interrupted run continues from it.")] = Path(
        "digits201.journal.jsonl"
    ),
    measured: Annotated[
        Path | None, typer.Option("--from", help="ortcpu: folder of `narbench measure`.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the store.", show_default="the benchmark's name")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default all cores.")] = None,
) -> None:
    """Make an embedded benchmark again: digits201 (about an hour of CPU time, resumable) or ortcpu."""
    from datasets import digits201, ortcpu
    from datasets.errors import UserError

    folder = out or Path(name)
    if name == "ortcpu":
        if measured is None:
            raise UserError("ortcpu: made from measurements; give their folder (--from), which `narbench measure` makes")
        store = ortcpu.make(measured, folder, workers)
    elif name == "digits201":
        store = digits201.make(journal, folder, workers or os.cpu_count() or 1)
    else:
        raise UserError(
            f"{name}: only digits201 is made here, and ortcpu from measurements; convert an official file with "
            f"`narbench data prepare {name}`"
        )
    say(f"{name}: {len(store):,} graphs in {store.folder}" + (f"; journal {journal}" if name == "digits201" else ""))


def benchmark(
    name: str,
    root: Path | None = None,
    cache: Path | None = None,
    checksum: bool = True,
    allow_missing: bool = False,
    part: str | None = None,
    device: str | None = None,
) -> Benchmark:
    """A registered benchmark as its YAML describes it, under the ``strict`` protocol with its default sizes.

    Args:
        name: registered name.
        root: folder with the official files; None keeps that of the YAML.
        cache: folder for the converted stores; None keeps that of the YAML.
        checksum: False accepts a file whose published checksum differs.
        allow_missing: leave out rows whose networks cannot be read.
        part: part of a benchmark that has several; None keeps that of the YAML.
        device: device of a benchmark that has several; None keeps that of the YAML.

    Raises:
        UserError: for an unknown name, part or device, with the known ones, or a benchmark that has no networks to be
            missing, no parts or no devices.
    """
    from omegaconf import OmegaConf

    from datasets.base import Benchmark, DatasetConfig, LoadingConfig
    from datasets.errors import UserError
    from datasets.protocol_types import ProtocolConfig
    from harness import registry

    factory = cast(type[Benchmark], registry.load(registry.target("dataset", name)))
    content = OmegaConf.load(registry.CONF / "dataset" / f"{name}.yaml")
    for key, value in (("part", part), ("device", device)):
        if value is None:
            continue
        if key not in content.dataset:
            raise UserError(f"--{key}: {name} has no {key}s; leave it out")
        content.dataset[key] = value
    schema = OmegaConf.structured(factory.Config)
    config = cast(DatasetConfig, OmegaConf.to_object(OmegaConf.merge(schema, content.dataset)))
    config.root, config.cache = str(root or config.root), str(cache or config.cache)
    config.checksum &= checksum
    if allow_missing:
        if not hasattr(config, "allow_missing"):
            raise UserError(f"--allow-missing: {name} has no files of single networks; leave it out")
        config.allow_missing = True
    protocol = ProtocolConfig("strict", content.train, content.val, "all", seed=0)
    made: Benchmark = factory(config, protocol, LoadingConfig(batch_size=1, eval_nodes=1), 0)
    return made
