"""Performance predictors: one file each; they know graphs, never a benchmark or its file format."""
