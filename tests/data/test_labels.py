"""Labels in images: where they stand."""

import pytest
import torch

from ff.data.labels import (
    clear_label_pixels,
    label_slices,
    neutral_overlay,
    overlay,
)


def made_images(count: int, size: int) -> torch.Tensor:
    return torch.arange(1.0, count * size + 1).view(count, size)


def test_labels_stand_at_the_beginning_of_each_channel():
    assert label_slices(784, 1, 10) == [slice(0, 10)]
    assert label_slices(3072, 3, 10) == [slice(0, 10), slice(1024, 1034), slice(2048, 2058)]
    assert label_slices(3072, 3, 100) == [slice(0, 100), slice(1024, 1124), slice(2048, 2148)]


@pytest.mark.parametrize(("size", "channels"), [(784, 1), (3072, 3)])
def test_an_overlay_sets_the_labels_pixel_and_clears_the_nine_others(size, channels):
    images, labels = made_images(4, size), torch.tensor([0, 3, 9, 3])
    before = images.clone()
    found = overlay(images, labels, channels, 10, 10.0)
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
    found = neutral_overlay(images, channels, 10, 0.1)
    assert torch.equal(images, before)
    changed = found != before
    expected = torch.zeros(size, dtype=torch.bool)
    for part in label_slices(size, channels, 10):
        expected[part] = True
    assert torch.equal(changed, expected.expand(3, -1))
    assert found[changed].unique().tolist() == [torch.tensor(0.1).item()]


def test_clearing_the_label_pixels_changes_nothing_else():
    images = made_images(2, 3072)
    cleared = clear_label_pixels(images.clone(), 3, 10)
    assert (cleared == 0).sum() == 2 * 30
    assert torch.equal(cleared[cleared != 0], images[cleared != 0])
