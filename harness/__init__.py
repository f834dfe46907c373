"""The experiment: configuration, training, evaluation, records and the command line."""

from pathlib import Path

import datasets

_FOUND, _OURS = Path(next(iter(datasets.__path__))).resolve(), Path(__file__).resolve().parents[1] / "datasets"
if _FOUND != _OURS:
    raise ImportError(
        f"narbench needs its own package `datasets` ({_OURS}), but Python finds another one first ({_FOUND}), perhaps the "
        "Hugging Face library; run from the narbench checkout, or use an environment without the other one"
    )
