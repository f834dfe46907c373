"""``narbench data``: prepare, describe and make benchmarks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

if TYPE_CHECKING:
    from datasets.base import Benchmark

app = typer.Typer(help="Convert, describe and make benchmarks.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Benchmark, as in dataset=NAME.", show_default=False)]
Root = Annotated[Path | None, typer.Option(help="Folder with the official files.", show_default="data")]
Cache = Annotated[Path | None, typer.Option(help="Folder for the converted stores.", show_default="~/.cache/narbench")]


@app.command()
def prepare(
    name: Name,
    root: Root = None,
    cache: Cache = None,
    checksum: Annotated[bool, typer.Option("--checksum/--no-checksum", help="Refuse a file that was altered.")] = True,
) -> None:
    """Convert a benchmark's official file to a store, once."""
    store = benchmark(name, root, cache, checksum).open_store()
    _say(f"{name}: {len(store):,} graphs in {store.folder}")


@app.command()
def describe(name: Name, root: Root = None, cache: Cache = None) -> None:
    """Show what a benchmark holds: graphs, operations, labels, noise ceilings and protocols."""
    from harness.cli.describe import print_description

    print_description(benchmark(name, root, cache), Console())


@app.command()
def make(
    name: Annotated[str, typer.Argument(help="digits201, the one benchmark that is trained here.")],
    journal: Annotated[Path, typer.Option(help="Finished cells; an interrupted run continues from it.")] = Path(
        "digits201.journal.jsonl"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("digits201"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Training processes, of one thread each; by default all cores.")
    ] = None,
) -> None:
    """Train the embedded benchmark's cells again (about an hour of CPU time); continues where it was interrupted."""
    from datasets import digits201
    from datasets.errors import UserError

    if name != "digits201":
        raise UserError(
            f"{name}: only digits201 is made here; convert an official file with `narbench data prepare {name}`"
        )
    store = digits201.make(journal, out, workers or os.cpu_count() or 1)
    _say(f"{name}: {len(store):,} graphs in {store.folder}; journal {journal}")


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, highlight=False, markup=False)


def benchmark(name: str, root: Path | None = None, cache: Path | None = None, checksum: bool = True) -> Benchmark:
    """A registered benchmark as its YAML describes it, under the ``strict`` protocol with its default sizes.

    Args:
        name: registered name.
        root: folder with the official files; None keeps that of the YAML.
        cache: folder for the converted stores; None keeps that of the YAML.
        checksum: False accepts a file whose published checksum differs.

    Raises:
        UserError: for an unknown name, with the nearest known ones.
    """
    from omegaconf import OmegaConf

    from datasets.base import Benchmark, DatasetConfig, LoadingConfig
    from datasets.protocol_types import ProtocolConfig
    from harness import registry

    factory = cast(type[Benchmark], registry.load(registry.target("dataset", name)))
    content = OmegaConf.load(registry.CONF / "dataset" / f"{name}.yaml")
    schema = OmegaConf.structured(factory.Config)
    config = cast(DatasetConfig, OmegaConf.to_object(OmegaConf.merge(schema, content.dataset)))
    config.root, config.cache = str(root or config.root), str(cache or config.cache)
    config.checksum &= checksum
    protocol = ProtocolConfig("strict", content.train, content.val, "all", seed=0)
    made: Benchmark = factory(config, protocol, LoadingConfig(batch_size=1, eval_batch_size=1), 0)
    return made
