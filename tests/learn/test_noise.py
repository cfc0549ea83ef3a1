"""Shifts, flips and dropout: what is drawn is even, of each image and epoch its own, and follows from the key alone."""

import dataclasses
import itertools

import pytest
import torch
from scipy.stats import binomtest, chisquare

from ff.data.images import standardise
from ff.errors import FFError
from ff.learn.draws import draw_generator
from ff.learn.noise import Dropout, augment, draw_keys, moves
from ff.learn.recipes import RECIPES, make_run_config
from ff.learn.rules import RULES
from ff.learn.trainer import Trainer

COUNT = 40_000


def some_keys(count: int = COUNT, epoch: int = 1) -> torch.Tensor:
    return draw_keys(draw_generator(0, "keys", epoch), count)


@pytest.mark.parametrize("shift", [1, 2, 16])
def test_every_move_is_as_likely_as_any_other(shift):
    by = moves(some_keys(), shift, flip=True)
    number = 2 * shift + 1
    for one in (by.down, by.right):
        assert chisquare(torch.bincount(one + shift, minlength=number).tolist()).pvalue > 1e-3
    assert binomtest(int(by.flipped.sum()), COUNT).pvalue > 1e-3
    # Of each other they say nothing.
    both = (by.down + shift) * number * 2 + (by.right + shift) * 2 + by.flipped
    assert chisquare(torch.bincount(both, minlength=2 * number**2).tolist()).pvalue > 1e-3


def test_a_shift_of_nothing_moves_nothing_and_without_flip_nothing_is_mirrored():
    by = moves(some_keys(), 0, flip=False)
    assert not by.down.any() and not by.right.any() and not by.flipped.any()


@pytest.mark.parametrize("rate", [0.025, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [7, 400])
def test_dropout_takes_its_share_of_every_unit_and_scales_the_rest(rate, width):
    count = COUNT // 10
    factors = Dropout(rate, some_keys(count).view(1, -1)).factors(0, torch.zeros(1, count, width))[0]
    assert factors.unique().tolist() == [0.0, pytest.approx(1 / (1 - rate), rel=1e-3)]
    lost = factors == 0
    assert binomtest(int(lost.sum()), count * width, rate).pvalue > 1e-3
    expected = [count * rate, count * (1 - rate)]
    by_unit = [chisquare([n, count - n], expected).statistic for n in lost.sum(0).tolist()]
    # The sum of independent chi-squares of one degree each is one of as many.
    assert abs(sum(by_unit) - width) < 5 * (2 * width) ** 0.5


def test_images_units_layers_and_epochs_lose_independently():
    def lost(epoch: int, layer: int) -> torch.Tensor:
        keys = some_keys(2000, epoch).view(1, -1)
        return Dropout(0.5, keys).factors(layer, torch.zeros(1, 2000, 200))[0] == 0

    first = lost(1, 0)
    others = {"layer": lost(1, 1), "epoch": lost(2, 0), "image": first.roll(1, 0), "unit": first.roll(1, 1)}
    others |= {"two units on": first.roll(2, 1)}
    for name, other in others.items():
        assert binomtest(int((first == other).sum()), first.numel()).pvalue > 1e-3, name


def test_what_happens_follows_from_the_key_alone():
    keys = some_keys(12).view(3, 4)
    like = torch.zeros(3, 4, 31)
    whole = Dropout(0.3, keys).factors(2, like)
    for seed, image in itertools.product(range(3), range(4)):
        alone = Dropout(0.3, keys[seed : seed + 1, image : image + 1]).factors(2, like[:1, :1])
        assert torch.equal(alone[0, 0], whole[seed, image])
    assert torch.equal(moves(keys, 4, True).down[1], moves(keys[1], 4, True).down)


def test_the_hash_is_murmurs():
    """Against plain numbers: another hash would change what a resumed run sees."""

    def murmur(x: int) -> int:
        x &= 0xFFFFFFFF
        x = (x ^ (x >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
        x = (x ^ (x >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
        return x ^ (x >> 16)

    golden, numbers = 0x9E3779B9, [n * 1_000_003 for n in range(-3, 4)]
    by = moves(torch.tensor(numbers, dtype=torch.int32), 16, True)
    for found, place in ((by.down, 0), (by.right, 1)):
        assert found.tolist() == [((murmur(n + place * golden) & 0xFFFF) * 33 >> 16) - 16 for n in numbers]
    assert by.flipped.tolist() == [bool(murmur(n + 2 * golden) & 1) for n in numbers]
    factors = Dropout(0.25, torch.tensor([[5]], dtype=torch.int32)).factors(1, torch.zeros(1, 1, 15)).flatten()
    hashes = [murmur(murmur(5 + 4 * golden) + unit * golden) for unit in range(8)]
    # 16 bits with a sign: those below a quarter of their range are dropped.
    signed = [(half + 0x8000) % 0x10000 - 0x8000 for h in hashes for half in (h & 0xFFFF, h >> 16)]
    assert (factors > 0).tolist() == [number >= -0x4000 for number in signed[:15]]


def test_keys_are_drawn_for_each_epoch_phase_and_seed_and_only_where_they_are_read(digits):
    def keys(epoch: int, phase: str, **values) -> torch.Tensor | None:
        config = make_run_config({"dataset": "DIGITS", "layers": "784,6", "val_size": 200} | values)[0]
        trainer = Trainer(config, [0, 1], standardise(digits.train, digits.facts, "cpu"))
        parts = [batch.keys for batch in trainer.batches(trainer.phases[phase], epoch)]
        return None if parts[0] is None else torch.cat(parts, 1)

    assert keys(1, "representation") is None
    assert keys(1, "representation", weight_decay=0.1) is None
    first = keys(1, "representation", dropout=0.1)
    assert torch.equal(first, keys(1, "representation", shift=1))
    assert torch.equal(first, keys(1, "representation", flip=True))
    others = [first[1], keys(2, "representation", flip=True)[0], keys(1, "softmax", flip=True)[0]]
    for other in others:
        assert (first[0] == other).float().mean() < 0.01


def test_images_stay_bytes_and_the_stored_ones_what_they_are(digits):
    settings = make_run_config({"dataset": "DIGITS", "layers": "784,6", "shift": 3, "flip": True})[0].settings
    images = standardise(digits.train, digits.facts, "cpu")
    before = images.values.clone()
    change = augment(settings, digits.facts.shape)
    moved = change(images.values[:50], some_keys(50))
    assert moved.dtype == torch.uint8 and not torch.equal(moved, before[:50])
    assert torch.equal(images.values, before)
    # Without keys, as readouts ask, images are those that are stored.
    moving, rows = images._replace(augment=change), torch.arange(50).view(1, -1)
    for one, other in zip(moving.rows(rows), images.rows(rows), strict=True):
        assert torch.equal(one, other)
    block = moving.rows(rows, some_keys(50).view(1, -1))
    assert not torch.equal(block.pixels, images.rows(rows).pixels)
    # Label pixels are 0 whatever is moved there.
    assert not block.pixels[..., :10].any()
    assert torch.allclose(block.square, block.pixels.square().sum(-1))


# -- settings ----


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_rule_has_the_shared_settings(recipe):
    given = {"shift": 2, "flip": True, "dropout": 0.25, "weight_decay": 0.125, "schedule": "step"}
    config, warnings = make_run_config({"recipe": recipe} | given)
    assert warnings == []
    shown = config.as_dict()["recipe_settings"]
    assert {name: shown[name] for name in given} == given
    quiet = dataclasses.asdict(RULES[config.settings.method].Settings())
    assert [quiet[name] for name in given][:4] == [0, False, 0.0, 0.0]


def test_dropout_that_nothing_sees_is_said():
    alone = {"layers": "784,30", "dropout": 0.1}
    assert make_run_config({"recipe": "mono"} | alone)[1] == [
        "dropout has no effect on recipe mono with a single layer: its own scores see all outputs"
    ]
    assert make_run_config({"recipe": "ff"} | alone)[1] == []
    assert make_run_config({"recipe": "mono", "layers": "784,30,20", "dropout": 0.1})[1] == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropout": 1.0}, "'dropout' (recipe ff) is 1.0; it must be at most 0.9"),
        ({"dropout": -0.1}, "'dropout' (recipe ff) is -0.1; it must be at least 0"),
        ({"shift": 17}, "'shift' (recipe ff) is 17; it must be at most 16"),
        ({"shift": 0.5}, "'shift' (recipe ff) must be of type int, not 0.5"),
        ({"flip": "maybe"}, "'flip' (recipe ff) must be of type bool, not 'maybe'"),
        ({"weight_decay": -1}, "'weight_decay' (recipe ff) is -1.0; it must be at least 0"),
        ({"weight_decay": float("nan")}, "'weight_decay' (recipe ff) is nan; it must be at least 0"),
        ({"schedule": "cosine"}, "'schedule' (recipe ff) is 'cosine'; allowed: linear, constant, step"),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(values, message):
    with pytest.raises(FFError) as raised:
        make_run_config(values)
    assert str(raised.value) == f"setting {message}"
