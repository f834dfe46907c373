"""Blocks shared by predictors."""
