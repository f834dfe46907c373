"""The runs behind one cell of a table and their mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from harness.metric_facts import Metric
from harness.tables.defaults import composed
from harness.tables.definition import Column, Row
from harness.tables.recorded import Recorded

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean over seeds.

    Attributes:
        mean: mean of the values.
        half_width: half of the 95 % confidence interval of the mean (Student's t); None for a single value.
        count: number of values.
    """

    mean: float
    half_width: float | None
    count: int

    def text(self, metric: Metric, *, signed: bool = False) -> str:
        """Mean and half of its interval with the decimals of ``metric``."""
        interval = "" if self.half_width is None else f" ± {metric.text(self.half_width)}"
        return metric.text(self.mean, signed=signed) + interval


@dataclass(frozen=True)
class Cell:
    """The runs of one row and column that share a configuration.

    Attributes:
        runs: by seed.
        configurations: how many configurations there were to choose from.
        outdated: runs left out because they are outdated.
        assumed: settings that some record is older than, for which it counts as having today's default.
    """

    runs: Mapping[int, Recorded] = field(default_factory=dict)
    configurations: int = 0
    outdated: int = 0
    assumed: tuple[str, ...] = ()

    def values(self, metric: str) -> dict[int, float]:
        """A metric of the test set or a cost by seed, without failed ones."""
        found = {seed: run.value(metric) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def summary(self, metric: str) -> Summary | None:
        """Mean over the seeds whose metric did not fail; None without any."""
        values = list(self.values(metric).values())
        return summarise(values) if values else None

    @property
    def selects_on_test(self) -> bool:
        """Some run chose its checkpoint on test labels."""
        return any(run.selects_on_test for run in self.runs.values())

    @property
    def starts_from_scored(self) -> bool:
        """Some run started from an encoder that knows graphs it is scored on."""
        return any(run.starts_from_scored for run in self.runs.values())


def summarise(values: Sequence[float]) -> Summary:
    """Mean and half width of its 95 % confidence interval under Student's t distribution."""
    count = len(values)
    if count == 1:
        return Summary(float(values[0]), None, 1)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return Summary(float(np.mean(values)), float(quantile * np.std(values, ddof=1) / np.sqrt(count)), count)


def find_cell(records: Iterable[Recorded], row: Row, column: Column, seeds: Sequence[int]) -> Cell:
    """The runs of a cell: of several configurations the one with the best mean validation metric.

    Configurations with every seed come before those without. Runs that chose their checkpoint on test labels, or whose
    encoder knows graphs that they are scored on, are taken only where there are no others. Of runs with the same
    configuration and seed the newest counts, one with predictions before one without. Outdated runs do not count.
    """
    found = [record for record in records if _matches(record, row, column) and record.seed in seeds]
    matching = [record for record in found if not record.outdated]
    if not matching:
        return Cell(outdated=len(found))
    assumed = _assumed(matching, row, column)
    groups = _configurations(matching, assumed)
    chosen = max(groups, key=lambda group: _preference(group, seeds))
    lacking = {key for record in chosen.values() for key in assumed if key not in record.settings}
    return Cell(dict(sorted(chosen.items())), len(groups), len(found) - len(matching), tuple(sorted(lacking)))


def find_pair(
    records: Iterable[Recorded], row: Row, first: Column, second: Column, seeds: Sequence[int]
) -> tuple[Cell, Cell] | None:
    """The cells of two columns with runs that share every setting outside ``protocol``; None where there are none.

    Of several such pairs the one is taken whose first cell ``find_cell`` would choose.
    """
    found = [record for record in records if _matches(record, row, first) or _matches(record, row, second)]
    current = [record for record in found if record.seed in seeds and not record.outdated]
    assumed = _assumed(current, row, first)
    by_recipe: dict[str, list[Recorded]] = defaultdict(list)
    for record in current:
        by_recipe[record.recipe(assumed)].append(record)
    cells = ((find_cell(group, row, first, seeds), find_cell(group, row, second, seeds)) for group in by_recipe.values())
    pairs = [(one, other) for one, other in cells if one.runs and other.runs]
    return max(pairs, key=lambda pair: _preference(pair[0].runs, seeds), default=None)


def _configurations(records: Sequence[Recorded], assumed: Mapping[str, Any]) -> list[dict[int, Recorded]]:
    """Runs by seed of each configuration.

    A setting named ``seed`` either follows the seed of the runs or is the same for all: where it happens to equal the
    seed of a run, that run belongs to both.
    """
    described = {id(record): record.configuration(assumed) for record in records}
    patterns = dict.fromkeys(
        (rest, tuple((key, None if value == record.seed else value) for key, value in seeds))
        for record in records
        for rest, seeds in [described[id(record)]]
    )
    newest_last = sorted(records, key=lambda record: (record.predictions is not None, record.started))

    def fits(record: Recorded, pattern: Any) -> bool:
        rest, seeds = described[id(record)]
        wanted = [(key, record.seed if value is None else value) for key, value in pattern[1]]
        return rest == pattern[0] and list(seeds) == wanted

    groups = [{record.seed: record for record in newest_last if fits(record, pattern)} for pattern in patterns]
    kept = {frozenset(map(id, group.values())): group for group in groups}
    return [group for runs, group in kept.items() if not any(runs < other for other in kept)]


def _assumed(records: Sequence[Recorded], row: Row, column: Column) -> dict[str, Any]:
    """Today's default of each setting that only some of the records have, or that row or column ask for and some lack."""
    counts = Counter(key for record in records for key in record.settings)
    partial = [key for key in {**counts, **row.config, **column.config} if counts[key] < len(records)]
    if not partial:
        return {}
    default = _default(row, column)
    return {key: default[key] for key in partial if key in default}


def _default(row: Row, column: Column) -> dict[str, Any]:
    return composed(f"predictor={row.predictor}", f"dataset={column.dataset}", f"protocol={column.protocol}")


def _preference(runs: Mapping[int, Recorded], seeds: Sequence[int]) -> tuple[bool, bool, float]:
    honest = not any(run.selects_on_test or run.starts_from_scored for run in runs.values())
    return honest, runs.keys() >= set(seeds), float(np.mean([run.validation() for run in runs.values()]))


def _test_label(dataset: str, config: Mapping[str, Any]) -> Any:
    """What a table is about unless it says otherwise: runs on other labels do not belong in it."""
    changes = [f"{key}={value}" for key, value in config.items() if key.startswith("dataset.")]
    return composed(f"dataset={dataset}", *changes)["dataset.labels.test"]


def _matches(record: Recorded, row: Row, column: Column) -> bool:
    content, settings = record.content, record.settings
    protocol, config = content["protocol"], row.config | column.config
    return (
        content["predictor"] == row.predictor
        and content["dataset"]["name"] == column.dataset
        and protocol["name"] == column.protocol
        and column.train in (None, protocol["sizes"]["train"])
        and settings.get("protocol.family") == column.family
        and settings.get("protocol.platform") == column.platform
        and settings.get("dataset.labels.test") == _test_label(column.dataset, config)
        and _has(settings if config.keys() <= settings.keys() else _default(row, column) | settings, config)
    )


def _has(settings: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    return all(key in settings and settings[key] == value for key, value in config.items())
