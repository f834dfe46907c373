"""Run one experiment, or a grid with ``-m``: ``python run.py predictor=nnformer dataset=nasbench201``."""

from __future__ import annotations

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from datasets.errors import UserError
from harness import experiment
from harness.config import explain
from harness.show import show_error, show_result


@hydra.main(config_path="pkg://harness.conf", config_name="config", version_base="1.3")  # type: ignore[untyped-decorator]
def task(config: DictConfig) -> float | None:
    """Run the composed experiment, print its result and return the selection metric on validation."""
    if config.resume is not None:
        config = experiment.resumed(config, list(HydraConfig.get().overrides.task))
    result = experiment.run(config)
    show_result(result)
    return result.selection


def main() -> None:
    """Run; a mistake of the user's is one line on stderr and exit status 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        task()
    except UserError as error:
        show_error(str(error))
        sys.exit(2)
    except HydraException as error:
        show_error(explain(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
