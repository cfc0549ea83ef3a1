"""Negatives: how wrong labels are drawn and chosen."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ff.learn.negatives import Hard, Uniform

DRAWS = 40_000


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 2**31), st.floats(0.01, 1e6))
@settings(max_examples=60, deadline=None)
def test_the_true_label_is_never_a_negative(labels, seed, hardness):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(labels)
    evenly = Uniform(10)
    uniform = evenly.choose(labels, evenly.draw(generator, len(labels)))
    # The true label has by far the highest goodness, where that of the others may be anything.
    goodness = torch.rand(*labels.shape, 10, generator=generator).scatter_(-1, labels.unsqueeze(-1), 1e9)
    by_goodness = Hard(10, hardness)
    hard = by_goodness.choose(labels, by_goodness.draw(generator, len(labels)), goodness)
    for wrong in (uniform, hard):
        assert (wrong != labels).all()
        assert ((wrong >= 0) & (wrong <= 9)).all()


def test_uniform_negatives_are_even_over_the_nine_wrong_labels():
    drawn = Uniform(10).draw(torch.Generator().manual_seed(1), DRAWS)
    wrong = Uniform(10).choose(torch.full((DRAWS,), 4), drawn)
    counts = torch.bincount(wrong, minlength=10)
    assert counts[4] == 0
    others = [count for label, count in enumerate(counts.tolist()) if label != 4]
    assert chisquare(others).pvalue > 1e-3


def test_hard_negatives_follow_the_softmax_of_the_goodness_over_the_wrong_labels():
    goodness = torch.linspace(-0.4, 0.5, 10).double()
    hardness, label = 3.0, 7
    generator = torch.Generator().manual_seed(2)
    negatives = Hard(10, hardness)
    drawn = negatives.draw(generator, DRAWS).double()
    wrong = negatives.choose(torch.full((DRAWS,), label), drawn, goodness.expand(DRAWS, 10).clone())
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
