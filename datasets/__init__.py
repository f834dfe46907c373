"""Benchmarks: official files -> one columnar graph store -> batches; knows nothing of predictors."""
