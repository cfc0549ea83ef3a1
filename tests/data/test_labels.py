"""Labels in images: where they stand."""

import torch

from ff.data.labels import clear_label_pixels, label_slices


def test_labels_stand_at_the_beginning_of_each_channel():
    assert label_slices(784, 1, 10) == [slice(0, 10)]
    assert label_slices(3072, 3, 10) == [slice(0, 10), slice(1024, 1034), slice(2048, 2058)]
    assert label_slices(3072, 3, 100) == [slice(0, 100), slice(1024, 1124), slice(2048, 2148)]


def test_clearing_the_label_pixels_changes_nothing_else():
    images = torch.arange(1.0, 2 * 3072 + 1).view(2, 3072)
    cleared = clear_label_pixels(images.clone(), 3, 10)
    assert (cleared == 0).sum() == 2 * 30
    assert all((cleared[:, part] == 0).all() for part in label_slices(3072, 3, 10))
    assert torch.equal(cleared[cleared != 0], images[cleared != 0])
