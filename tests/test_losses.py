"""Terms of the losses that need no golden vectors."""

import pytest
import torch

from predictors.losses import mean_squared_error, pair_terms, random_permutation

TARGET = torch.tensor([0.1, 0.35, 0.5, 0.7, 0.95, 1.6])


def ranking(seed, prediction):
    torch.manual_seed(seed)
    return pair_terms(prediction, TARGET, ("mse", 1.0, mean_squared_error), 0.3, 0.5)["ranking"].item()


def test_ranking_compares_different_graphs_drawn_anew():
    """Constant predictions of unequal labels: the differences of the labels remain, of other pairs with another seed."""
    values = [ranking(seed, torch.zeros(12)) for seed in range(5)]
    assert min(values) > 0
    assert len(set(values)) > 2
    assert ranking(0, torch.zeros(12)) == values[0]


def test_ranking_compares_graphs_with_augmentations_of_others():
    """Predictions that are off by a constant in the second half have differences only between the halves."""
    prediction = TARGET.repeat(2) + torch.tensor([0.0, 1.0]).repeat_interleave(6)
    for seed in range(5):
        torch.manual_seed(seed)
        crossing = ((random_permutation(prediction) < 6) != (torch.arange(12) < 6)).sum().item()
        assert crossing > 0
        assert ranking(seed, prediction) == pytest.approx(0.3 * crossing / 12)


def test_permutations_are_of_the_whole_batch():
    drawn = torch.stack([random_permutation(torch.zeros(8)) for _ in range(400)])
    assert (drawn.sort(1).values == torch.arange(8)).all()
    assert ((drawn == 7).sum(0) > 20).all()
