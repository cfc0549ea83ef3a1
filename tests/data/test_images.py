"""What training sees: standardised images without label pixels, of bytes that stay bytes."""

import pytest
import textbook
import torch
from made_raw_data import (
    made_images,
)

from ff.data.images import BLOCK, Images, Part, standardise
from ff.data.registry import DATASETS


def made(name: str, count: int, dtype: torch.dtype = torch.float64) -> tuple[Images, torch.Tensor]:
    """Images, and what a plain formula makes of the same ones, float64 [N, D]."""
    facts = DATASETS[name]
    part = Part(torch.from_numpy(made_images(count, *facts.shape)), (torch.arange(count) % 10).to(torch.uint8))
    plain = textbook.neutral(textbook.standardised(part, name), facts.shape[0], 0.0)
    return standardise(part, facts, "cpu", dtype), plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_standardised_images_are_those_of_the_plain_formula_without_label_pixels(name, dtype):
    images, plain = made(name, 6, dtype)
    # Each of two networks draws its own; one draws an image twice.
    rows = torch.tensor([[5, 0, 5], [1, 2, 3]])
    every = torch.arange(6).expand(3, -1)
    for block, expected in ((images.rows(rows), rows), (images.block(slice(0, 6), 3), every)):
        assert block.pixels.dtype == block.square.dtype == dtype
        assert torch.allclose(block.pixels.double(), plain[expected], atol=1e-5 if dtype == torch.float32 else 1e-12)
        assert torch.allclose(block.square.double(), (plain[expected] ** 2).sum(-1), rtol=1e-5)
        assert torch.equal(block.labels, expected)
        assert block.labels.dtype == torch.int64
    assert torch.equal(images.block(slice(2, 5), 1).labels, torch.tensor([[2, 3, 4]]))


def test_images_keep_the_size_of_their_bytes_and_the_order_of_their_squares():
    """Also where their sums of squares are taken in more than one block."""
    images, plain = made("MNIST", 2 * BLOCK + 100)
    assert images.values.dtype == torch.uint8
    assert images.values.nbytes == len(plain) * 784
    assert torch.allclose(images.square, (plain**2).sum(1), rtol=1e-12)


def test_standardising_leaves_the_prepared_bytes_alone(digits):
    before = digits.train.images.clone()
    images = standardise(digits.train, digits.facts, "cpu")
    images.rows(torch.arange(10).unsqueeze(0)).pixels.zero_()
    images.block(slice(0, 10), 1).pixels.zero_()
    assert torch.equal(digits.train.images, before)
