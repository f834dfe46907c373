"""Sweeps: an Optuna study over a predictor's configuration, run by several processes."""
