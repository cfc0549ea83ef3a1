"""Labels in images: where they stand, and how wrong ones are chosen."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ff.learn.labels import (
    clear_label_pixels,
    hard_wrong_labels,
    label_offsets,
    neutral_overlay,
    overlay,
    uniform_wrong_labels,
)

DRAWS = 40_000


def made_images(count: int, size: int) -> torch.Tensor:
    return torch.arange(1.0, count * size + 1).view(count, size)


def test_labels_stand_at_the_beginning_of_each_channel():
    assert label_offsets(784, 1) == [0]
    assert label_offsets(3072, 3) == [0, 1024, 2048]


@pytest.mark.parametrize(("size", "channels"), [(784, 1), (3072, 3)])
def test_an_overlay_sets_the_labels_pixel_and_clears_the_nine_others(size, channels):
    images, labels = made_images(4, size), torch.tensor([0, 3, 9, 3])
    before = images.clone()
    found = overlay(images, labels, channels, 10.0)
    assert torch.equal(images, before)
    for row, label in enumerate(labels.tolist()):
        for channel in range(channels):
            start = channel * size // channels
            pixels = found[row, start : start + 10].tolist()
            assert pixels == [10.0 if pixel == label else 0.0 for pixel in range(10)]
            rest = slice(start + 10, start + size // channels)
            assert torch.equal(found[row, rest], before[row, rest])


@pytest.mark.parametrize(("size", "channels"), [(784, 1), (3072, 3)])
def test_a_neutral_overlay_gives_all_ten_pixels_one_value(size, channels):
    images = made_images(3, size)
    before = images.clone()
    found = neutral_overlay(images, channels, 0.1)
    assert torch.equal(images, before)
    changed = found != before
    expected = torch.zeros(size, dtype=torch.bool)
    for start in label_offsets(size, channels):
        expected[start : start + 10] = True
    assert torch.equal(changed, expected.expand(3, -1))
    assert found[changed].unique().tolist() == [torch.tensor(0.1).item()]


def test_clearing_the_label_pixels_changes_nothing_else():
    images = made_images(2, 3072)
    cleared = clear_label_pixels(images.clone(), 3)
    assert (cleared == 0).sum() == 2 * 30
    assert torch.equal(cleared[cleared != 0], images[cleared != 0])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 2**31), st.floats(0.01, 1e6))
@settings(max_examples=60, deadline=None)
def test_the_true_label_is_never_a_negative(labels, seed, hardness):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(labels)
    uniform = uniform_wrong_labels(labels, torch.randint(1, 10, labels.shape, generator=generator))
    # The true label has by far the highest goodness, where that of the others may be anything.
    goodness = torch.rand(*labels.shape, 10, generator=generator).scatter_(-1, labels.unsqueeze(-1), 1e9)
    noise = torch.empty_like(goodness).exponential_(generator=generator).log_().neg_()
    hard = hard_wrong_labels(goodness, labels, noise, hardness)
    for wrong in (uniform, hard):
        assert (wrong != labels).all()
        assert ((wrong >= 0) & (wrong <= 9)).all()


def test_uniform_negatives_are_even_over_the_nine_wrong_labels():
    shift = torch.randint(1, 10, (DRAWS,), generator=torch.Generator().manual_seed(1))
    wrong = uniform_wrong_labels(torch.full((DRAWS,), 4), shift)
    counts = torch.bincount(wrong, minlength=10)
    assert counts[4] == 0
    others = [count for label, count in enumerate(counts.tolist()) if label != 4]
    assert chisquare(others).pvalue > 1e-3


def test_hard_negatives_follow_the_softmax_of_the_goodness_over_the_wrong_labels():
    goodness = torch.linspace(-0.4, 0.5, 10).double()
    hardness, label = 3.0, 7
    generator = torch.Generator().manual_seed(2)
    noise = torch.empty(DRAWS, 10, dtype=torch.float64).exponential_(generator=generator).log_().neg_()
    wrong = hard_wrong_labels(goodness.expand(DRAWS, 10).clone(), torch.full((DRAWS,), label), noise, hardness)
    counts = torch.bincount(wrong, minlength=10)
    assert counts[label] == 0
    weights = torch.exp(hardness * goodness)
    weights[label] = 0
    expected = weights / weights.sum() * DRAWS
    kept = [k for k in range(10) if k != label]
    assert chisquare(counts[kept].tolist(), expected[kept].tolist()).pvalue > 1e-3
    # The test can tell a wrong temperature from the right one.
    milder = torch.exp(0.8 * hardness * goodness)
    milder[label] = 0
    milder *= DRAWS / milder.sum()
    assert chisquare(counts[kept].tolist(), milder[kept].tolist()).pvalue < 1e-6
