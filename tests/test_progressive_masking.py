"""Masks and orders: published counts, nesting, one total order."""
import numpy as np
import pytest
import torch

from stanhlic.progressive.file import RANKINGS, share_quality
from stanhlic.progressive.masking import coding_order, quality_mask, share_count, slice_mask


def sigma(shape, seed=0): return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 5 - 0.3


@pytest.mark.parametrize("quality, count", [(0, 0), (0.02, 10), (0.5, 246), (7.5, 3687), (50, 24_576), (99.9, 49_102), (100, 49_152)])
def test_counts_of_the_release(quality, count):
    assert share_count(quality, 49_152) == count
    assert int(slice_mask(torch.randperm(49_152).float().view(1, 32, 32, 48), quality, 1).sum()) == count


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ranking", RANKINGS)
def test_masks_are_nested(ranking, seed):
    scale, qualities = sigma((2, 8, 6, 10), seed), (0, 0.3, 2, 7.5, 30, 99, 100)
    masks = [quality_mask(scale, q, ranking, slices=4) for q in qualities]
    assert all((high | ~low).all() for low, high in zip(masks, masks[1:]))
    assert not masks[0].any() and masks[-1].all()


@pytest.mark.parametrize("ranking", RANKINGS)
def test_order_is_a_permutation_and_leaves_out_what_was_sent(ranking):
    scale = sigma((8, 6, 10))
    sent = scale > 3
    order = coding_order(scale, ranking, 4)
    assert np.array_equal(np.sort(order), np.arange(480))
    rest = coding_order(scale, ranking, 4, sent)
    assert np.array_equal(np.sort(rest), np.flatnonzero(~sent.numpy().ravel()))


def test_slices_send_equal_shares():
    mask = slice_mask(sigma((1, 8, 12, 16)), 25, slices=4)
    assert len(set(mask.view(4, -1).sum(1).tolist())) == 1


def test_global_order_does_not_depend_on_the_last_bit():
    scale = sigma((8, 6, 10)).abs() + 0.2
    nudged = scale * (1 + 1e-7)
    assert (coding_order(scale) == coding_order(nudged)).mean() > 0.99


def test_quality_of_a_count_gives_the_count():
    assert all(share_count(share_quality(n, 49_152), 49_152) == n for n in (0, 1, 2, 1000, 49_151, 49_152))
