"""Run one experiment, or a grid with ``-m``: ``python run.py predictor=nnformer dataset=nasbench201``."""

from __future__ import annotations

import os
import statistics
import sys
from typing import NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from datasets.errors import UserError
from harness import experiment
from harness.config import explain, require_files
from harness.distributed import share
from harness.show import show_result
from harness.stacked_runs import run_seeds
from harness.terminal import InterruptionError, show_error


@hydra.main(config_path="pkg://harness.conf", config_name="config", version_base="1.3")  # type: ignore[untyped-decorator]
def task(config: DictConfig) -> float | None:
    """Run the composed experiment, print its result and return the selection metric on validation."""
    try:
        require_files(GlobalHydra.instance().config_loader(), HydraConfig.get().overrides.task)
        if config.resume is not None:
            config = experiment.resumed(config, list(HydraConfig.get().overrides.task))
        results = run_seeds(config) if config.seeds else [experiment.run(config)]
    except UserError as error:
        stop(str(error))
    for result in results if share().rank == 0 else ():
        show_result(result)
    selections = [result.selection for result in results if result.selection is not None]
    return statistics.mean(selections) if len(selections) == len(results) else None


def stop(reason: str, status: int = 2) -> NoReturn:
    """Print in one line what a user has to know, once for all processes, and exit."""
    if share().rank == 0:
        show_error(reason)
    sys.exit(status)


def main() -> None:
    """Run; Hydra is told to pass its errors on, so that they can be put in one line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        task()
    except HydraException as error:
        stop(explain(error))
    except InterruptionError as interruption:
        stop(str(interruption), 130)
    except UserError as error:
        stop(str(error))
    except KeyboardInterrupt as interruption:
        stop(str(interruption) or "interrupted", 130)


if __name__ == "__main__":
    main()
