"""What training sees: standardised images without label pixels."""

import pytest
import textbook
import torch
from made_raw_data import (
    made_images,
)

from ff.data.images import Part, standardise
from ff.data.registry import DATASETS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_standardised_images_are_those_of_the_plain_formula_without_label_pixels(name, dtype):
    facts = DATASETS[name]
    part = Part(torch.from_numpy(made_images(6, *facts.shape)), torch.arange(6, dtype=torch.uint8))
    images = standardise(part, facts, "cpu", dtype)
    expected = textbook.neutral(textbook.standardised(part, name), facts.shape[0], 0.0)
    assert images.pixels.dtype == dtype
    assert torch.allclose(images.pixels.double(), expected, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert torch.allclose(images.square.double(), (expected**2).sum(1), rtol=1e-5)
    assert images.labels.tolist() == list(range(6))
    assert images.labels.dtype == torch.int64
    rows = torch.tensor([[5, 0, 5], [1, 2, 3]])
    pixels, square, labels = images.rows(rows)
    assert torch.equal(pixels[0, 2], images.pixels[5])
    assert torch.equal(labels, rows)
    assert torch.equal(square, images.square[rows])


def test_standardising_leaves_the_prepared_bytes_alone(digits):
    before = digits.train.images.clone()
    standardise(digits.train, digits.facts, "cpu")
    assert torch.equal(digits.train.images, before)
