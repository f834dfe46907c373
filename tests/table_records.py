"""Run folders made by hand for the tests of tables."""

from __future__ import annotations

import copy
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy import stats

from harness.config import compose, plain, typed

CONFIGS = {}


def config(predictor, seed, protocol, train, dataset="digits201"):
    key = (predictor, protocol, dataset)
    if key not in CONFIGS:
        overrides = [f"predictor={predictor}", f"protocol={protocol}", f"dataset={dataset}", "seed=77", "train=12345"]
        CONFIGS[key] = plain(typed(compose(overrides)))
    text = json.dumps(CONFIGS[key]).replace("12345", str(train)).replace('"seed": 77', f'"seed": {seed}')
    return json.loads(text)


def write_run(
    folder, predictor, seed=0, *, tau=0.5, val=0.5, protocol="strict", train=400, dataset="digits201", leaks="",
    changes=None, test=None, drop=(), started="2026-01-01T00:00:00", values=None,
):  # fmt: skip
    """One run; ``changes`` are dotted settings, ``test`` is (keys, labels, predictions) or None without predictions."""
    path = folder / f"{predictor}-{dataset}-{protocol}-{train}-{seed}-{len(list(folder.iterdir()))}"
    path.mkdir(parents=True)
    settings = config(predictor, seed, protocol, train, dataset)
    for key, value in (changes or {}).items():
        group, _, last = key.rpartition(".")
        (settings[group] if group else settings)[last] = value
    for key in drop:
        group, _, last = key.rpartition(".")
        del settings[group][last]
    record = {
        "schema_version": 1,
        "id": path.name,
        "started": started,
        "predictor": predictor,
        "seed": seed,
        "config": settings,
        "config_hash": "c" * 64,
        "dataset": {
            "name": dataset, "fingerprint": "f" * 64, "task": "accuracy",
            "labels": copy.deepcopy(settings["dataset"]["labels"]),
        },
        "protocol": {
            "name": protocol, "version": 1, "sha256": "5" * 64, "leaks": leaks,
            "sizes": {"train": train, "val": 200, "test": 1000},
        },
        "metrics": {"val": {"kendall_tau": val}, "test": {"kendall_tau": tau} if values is None else values},
    }  # fmt: skip
    (path / "record.json").write_text(json.dumps(record))
    if test is not None:
        keys, label, prediction = test
        table = pa.table(
            {
                "key": pa.array([*map(str, keys), "validation"]),
                "split": pa.array(["test"] * len(keys) + ["val"]).dictionary_encode(),
                "label": np.append(label, 0).astype(np.float32),
                "prediction": np.append(prediction, 0).astype(np.float32),
            }
        )
        pa.parquet.write_table(table, path / "predictions.parquet")
    return path


def predicted_run(folder, predictor, seed, keys, label, prediction, **more):
    """A run whose test tau is that of its predictions."""
    tau = float(stats.kendalltau(prediction, label).statistic)
    return write_run(folder, predictor, seed, tau=tau, test=(keys, label, prediction), **more)
