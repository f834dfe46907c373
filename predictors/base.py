"""The interface every predictor implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from datasets.errors import UserError
from datasets.graph import GraphBatch, TaskSpec
from predictors.recipe import Recipe, build_optimizer


@dataclass
class PredictorConfig:
    """Base of every predictor's configuration.

    Attributes:
        target: ``module:Class`` of the predictor.
        name: the name it is chosen and reported by.
    """

    target: str
    name: str


class Predictor(LightningModule, ABC):
    """Maps a batch of graphs to one number each, in label units.

    A subclass is one file: a configuration dataclass named as its ``Config``, ``forward`` and ``loss``. Everything else
    (optimiser, schedule, EMA, checkpoints, evaluation) comes from the recipe.

    Attributes:
        Config: configuration dataclass.
        node_order_matters: False where the prediction is the same for every order of the nodes.
        whole_networks: True where graphs of whole networks can be read, not just cells.
        several_platforms: True where labels of several devices can be predicted, by ``GraphBatch.platform``.
        head_modules: dotted names of the submodules that turn encoded graphs into predictions; the others are the encoder,
            which is what a transfer carries over. One that a configuration does without may be named.
        recipe: set by the harness before training.
    """

    Config: ClassVar[type[PredictorConfig]]
    node_order_matters: bool = False
    whole_networks: ClassVar[bool] = False
    several_platforms: ClassVar[bool] = False
    head_modules: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(self, config: Any, spec: TaskSpec) -> None:
        """Check that the predictor can read such graphs, and its sizes and ``dropout`` where it has one.

        Sizes are the whole numbers of its configuration, also those in lists: 1 or more unless their field's metadata have
        another ``least``.

        Raises:
            UserError: if it cannot, for a size below 1, or for a rate that is no probability below 1.
        """
        if spec.whole_networks and not self.whole_networks:
            raise UserError(f"predictor={config.name} reads cells, and this benchmark has whole networks; choose another")
        if len(spec.platforms) > 1 and not self.several_platforms:
            raise UserError(
                f"predictor={config.name} predicts one device, and these labels are of {len(spec.platforms)}; choose "
                "predictor=nnlp, or protocol=transfer, which has one"
            )
        rate = getattr(config, "dropout", 0.0)
        if not 0 <= rate < 1:
            raise UserError(f"predictor.dropout={rate}: give 0 or a probability below 1")
        for field in fields(config):
            value, least = getattr(config, field.name), field.metadata.get("least", 1)
            sizes = value if isinstance(value, list) else [value]
            if any(type(size) is int and size < least for size in sizes):
                raise UserError(f"predictor.{field.name}={value}: give {least} or more")
        super().__init__()
        self.config = config
        self.spec = spec
        self.recipe: Recipe

    @abstractmethod
    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,) in label units."""

    @abstractmethod
    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Weighted loss terms by name; their sum is minimised."""

    def token_counts(self, batch: GraphBatch) -> Tensor:
        """Tokens of each graph (B,), which ``by_size`` batching groups by."""
        return batch.count

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor:
        """One step: the sum of the loss terms, each logged as ``train/<term>``, times the batch's weight."""
        terms = self.loss(batch)
        total = torch.stack(list(terms.values())).sum()
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, batch_size=len(batch))
        self.log("train/loss", total.detach(), batch_size=len(batch))
        return total * batch.weight

    def validation_step(self, batch: GraphBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Predictions (B,) in float32 whatever trains, as in the final evaluation; metrics are computed once, over all.

        Raises:
            UserError: if ``forward`` gave another shape.
        """
        with torch.autocast(self.device.type, enabled=False):
            prediction: Tensor = self(batch)
        if prediction.shape != (len(batch),):
            got, wanted = tuple(prediction.shape), (len(batch),)
            raise UserError(f"{type(self).__name__}.forward gives {got} for {len(batch)} graphs; it must give {wanted}")
        return prediction

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser, its learning rate scheduled per step."""
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = build_optimizer(self.recipe, self.named_parameters(), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
