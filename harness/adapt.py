"""Few-shot transfer of a trained latency predictor to another device, as a learning curve.

For every number k of labelled networks and every random draw of them: ``adapted`` starts from the run's encoder with a new
head, ``scratch`` from new weights, both trained on the k networks for the same number of steps, the last weights taken;
``scaled`` is the run's own prediction times one factor fitted on the k networks. The networks of a smaller k are among
those of a larger one, and all that no k of a draw uses are predicted, so that the points of a curve can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from datasets.base import EpochSampler, GraphRows, Rows
from datasets.errors import UserError
from datasets.graph import GraphBatch
from datasets.measured import NAME, PROTOCOL, Measured, MeasuredConfig
from datasets.nnlqp_corpus import LABEL
from datasets.protocol_types import LabelConfig, ProtocolConfig
from harness.assembly import build_data, build_predictor
from harness.config import ExperimentConfig, TrainerConfig
from harness.evaluation import Predictions, by_size, predict
from harness.metrics import Scores
from harness.prediction import record_on_networks
from harness.progress import track
from harness.records import RunFolder
from harness.trained import recorded_features, trained_platforms
from harness.training import StepSeed, quiet_lightning, quiet_trainer
from harness.transfer import Source
from predictors.base import Predictor
from predictors.recipe import Recipe

METHODS = ("adapted", "scratch", "scaled")
SIZES = (8, 16, 32, 64, 128)
"""Numbers of networks by default, as far as half of the data reach."""

FEWEST_EVALUATED = 8
"""Networks that must be left to be predicted."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What the user chooses.

    Attributes:
        sizes: numbers k of networks that train; None takes those of ``SIZES`` that fit.
        draws: random draws of the networks.
        steps: of every training.
        seed: of the first draw; the others count on from it.
        platform: device of the data, where they have several.
        out: folder of the result; by default a new one where the run's configuration keeps runs.
    """

    sizes: Sequence[int] | None
    draws: int
    steps: int
    seed: int
    platform: str | None
    out: Path | None


@dataclass(frozen=True)
class Point:
    """One method on one draw of k networks.

    Attributes:
        k: networks that trained.
        draw: number of the draw, from 0.
        method: one of ``METHODS``.
        scores: on the evaluated networks.
    """

    k: int
    draw: int
    method: str
    scores: Scores


class Adaptation:
    """A run, the data of the new device and what is made of them.

    Attributes:
        source: the run.
        draws: the data under each draw of as many networks as the largest k.
        sizes: numbers k, rising.
        options: of the user.
        seen: evaluated networks of the first draw that trained the run or one that it started from; None if one of these
            runs, or its data, are not there any more.
    """

    def __init__(self, run: Path, data: Path, options: Options) -> None:
        """Load the run and the data.

        Raises:
            UserError: if either is not valid, or the data are too few.
        """
        record_on_networks(RunFolder.existing(run))
        self.source, self.options = Source.open(run), options
        dataset = self._dataset(data)
        total = len(self._data(dataset, "all", options.seed).store)
        self.sizes = choose_sizes(options.sizes, total)
        self.draws = [self._data(dataset, self.sizes[-1], options.seed + draw) for draw in range(options.draws)]
        self._enough()
        self.seen = self._seen()

    @property
    def settings(self) -> dict[str, Any]:
        """What every point depends on, as JSON has it."""
        data, options = self.draws[0], self.options
        facts = {"run": self.source.facts, "data": data.store.manifest.fingerprint, "platform": options.platform}
        return facts | {"k": self.sizes, "draws": options.draws, "steps": options.steps, "seed": options.seed}

    def points(self, done: Collection[tuple[int, int, str]] = ()) -> Iterator[tuple[Point, Predictor | None, Predictions]]:
        """Train and score every method on every draw of every size, under a progress bar.

        Args:
            done: draws, numbers k and methods that are left out.

        Yields:
            The scores, the predictor if one was trained, and its predictions.
        """
        jobs = [job for job in itertools.product(range(len(self.draws)), self.sizes, METHODS) if job not in done]
        own = self._own_predictions(self.draws[0]) if jobs else np.empty((0, 0))
        shown: Iterator[tuple[int, int, str]] = track(jobs, "adapting")
        for draw, k, method in shown:
            data, predictor = self.draws[draw], None
            rows = data.parts.train[:k]
            if method == "scaled":
                predictions = scaled(own, data, rows)
            else:
                predictor = self._train(data, rows, self.options.seed + draw, carried=method == "adapted")
                predictions = self._predict(predictor, data)
            yield Point(k, draw, method, predictions.scores(data.task)), predictor, predictions

    def recipe(self, k: int) -> Recipe:
        """The run's recipe for so many steps on k networks, its learning rate warmed up and lowered to zero."""
        size = min(self.source.config.recipe.batch_size, k)
        epochs = -(-self.options.steps // -(-k // size))
        decay: dict[str, Any] = {"schedule": "linear", "warmup": 0.1, "final": 0.0, "batching": "shuffled"}
        return replace(self.source.config.recipe, batch_size=size, epochs=epochs, ema=0.0, eval_every=1, **decay)

    def config(self, data: Measured, k: int) -> ExperimentConfig:
        """The configuration that an adapted predictor is filed under."""
        source, out = self.source.config, self.options.out
        return replace(
            source,
            recipe=self.recipe(k),
            dataset=data.config,
            protocol=replace(data.protocol, train=k),
            seed=data.seed,
            train=k,
            val=0,
            init=str(self.source.folder.path),
            out=None if out is None else str(out),
            resume=None,
        )

    def _dataset(self, data: Path) -> MeasuredConfig:
        return MeasuredConfig(
            target="datasets.measured:Measured",
            name=NAME,
            root=str(data),
            cache=self.source.config.dataset.cache,
            checksum=False,
            labels=LabelConfig(LABEL, LABEL, LABEL),
            features=recorded_features(self.source.record),
            platform=self.options.platform,
        )

    def _data(self, dataset: MeasuredConfig, size: int | str, seed: int) -> Measured:
        protocol = ProtocolConfig(PROTOCOL, size, 0, "all", seed)
        data = build_data(replace(self.source.config, dataset=dataset, protocol=protocol, seed=seed))
        data.setup()
        return cast(Measured, data)

    def _enough(self) -> None:
        least = min(len(data.parts.test) for data in self.draws)
        if least < FEWEST_EVALUATED:
            raise UserError(
                f"k={self.sizes[-1]} leaves {least} networks to be predicted, of which {FEWEST_EVALUATED} are needed; "
                "give a smaller --k or more data"
            )

    def _seen(self) -> int | None:
        data, known = self.draws[0], set[bytes]()
        try:
            for theirs in self.source.benchmarks():
                known.update(map(bytes, theirs.store.hashes[theirs.parts.train]))
        except UserError:
            return None
        return sum(bytes(graph) in known for graph in data.store.hashes[data.parts.test])

    def _train(self, data: Measured, rows: Rows, seed: int, *, carried: bool) -> Predictor:
        torch.manual_seed(seed)
        predictor = build_predictor(replace(self.source.config, recipe=self.recipe(len(rows))), data.spec)
        if carried:
            self.source.initialise(predictor)
        fit(predictor, data, rows, self.options.steps, seed, self.source.config.trainer)
        return predictor

    def _predict(self, predictor: Predictor, data: Measured) -> Predictions:
        rows = data.parts.test
        loader = data.eval_dataloader(by_size(predictor, data, rows, LABEL), LABEL)
        return predict(predictor, loader, len(rows))

    def _own_predictions(self, data: Measured) -> Floats:
        """The run's predictions of every network of the data, for each device that it was trained on (devices, B)."""
        predictor, several = self.source.predictor, len(self.source.predictor.spec.platforms) > 1
        rows = np.arange(len(data.store))

        def batches(device: int) -> Iterator[GraphBatch]:
            for batch in data.eval_dataloader(rows, LABEL):
                yield replace(batch, platform=torch.full((len(batch),), device)) if several else batch

        devices = trained_platforms(self.source.record).values() or (0,)
        return np.stack([predict(predictor, batches(device), len(rows)).prediction for device in devices])


def choose_sizes(given: Sequence[int] | None, total: int) -> list[int]:
    """The numbers of networks that train, rising and each once.

    Raises:
        UserError: if one is not positive or leaves too few of the ``total`` networks.
    """
    if given is None:
        sizes = [k for k in SIZES if 2 * k <= total]
        if not sizes:
            raise UserError(f"{total} networks: too few for a curve, which needs {2 * SIZES[0]}; measure more")
        return sizes
    most = total - FEWEST_EVALUATED
    for k in given:
        if not 0 < k <= most:
            raise UserError(
                f"k={k}: choose 1 to {most}; {FEWEST_EVALUATED} of the {total} networks must be left to be predicted"
                if most > 0
                else f"{total} networks: too few; {FEWEST_EVALUATED} must be left to be predicted"
            )
    return sorted(set(given))


def fit(predictor: Predictor, data: Measured, rows: Rows, steps: int, seed: int, hardware: TrainerConfig) -> None:
    """Train on ``rows`` for exactly ``steps`` steps, without validation: the last weights are the result."""
    batches = list(itertools.islice(_batches(rows, predictor.recipe.batch_size, seed), steps))
    loader = DataLoader(GraphRows(data.store, LABEL), sampler=batches, batch_size=None)
    trainer = quiet_trainer(
        hardware,
        devices=1,
        max_epochs=1,
        gradient_clip_val=predictor.recipe.clip or None,
        callbacks=[StepSeed(seed)],
        logger=False,
        enable_checkpointing=False,
    )
    with quiet_lightning():
        trainer.fit(predictor, loader)


def scaled(own: Floats, data: Measured, rows: Rows) -> Predictions:
    """The run's predictions times the factor that suits ``rows`` best, of its devices the one that then does.

    Args:
        own: predictions of all networks for each device of the run (devices, B).
        data: the new device.
        rows: networks whose latency is known.
    """
    label = data.store.label(LABEL)
    factors = [best_factor(prediction[rows], label[rows]) for prediction in own]
    errors = [
        float(np.abs(factor * prediction[rows] / label[rows] - 1).mean())
        for factor, prediction in zip(factors, own, strict=True)
    ]
    best = int(np.argmin(errors))
    test = data.parts.test
    return Predictions(test, factors[best] * own[best][test], label[test])


def best_factor(prediction: Floats, label: Floats) -> float:
    """The factor with the least mean absolute percentage error: a median of label / prediction, weighted by its inverse.

    A predictor may predict negative latencies, whose ratios are weighted by their size alike.
    """
    ratio = label / prediction
    order = np.argsort(ratio)
    weight = np.cumsum(np.abs(1 / ratio[order]))
    return float(ratio[order][np.searchsorted(weight, weight[-1] / 2)])


def _batches(rows: Rows, size: int, seed: int) -> Iterator[Rows]:
    sampler = EpochSampler(rows, size, seed)
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        yield from sampler
