"""What is random within a mini-batch: shifts and flips of its images, and dropout.

Each epoch gives each of its images a key, drawn on the host as all else is (`ff.learn.draws`). What happens to an image
in its step follows from the key alone, by a hash that is computed where the image lies. So there is no state to save,
the numbers are the same in a group as alone and on every device, and neither host nor CUDA graph has to wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ff.learn.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from ff.data.images import Augment
    from ff.learn.rule import SharedSettings

# Which numbers of a key are for what; the layers' dropout takes those that follow.
_DOWN, _RIGHT, _FLIP, _DROPOUT = range(4)
# 2^32 / golden ratio: multiples of it are far from each other.
_GOLDEN = 0x9E3779B9
# Dropout compares 16 bits, so that a hash serves two units; a rate is rounded to 1/65536.
_LEVELS = 1 << 16


def is_random(settings: SharedSettings) -> bool:
    """Whether a step needs keys."""
    return bool(settings.shift or settings.flip or settings.dropout)


def draw_keys(generator: Generator, count: int) -> Tensor:
    """Keys [count] (int32) of the images of an epoch."""
    return torch.randint(-(2**31), 2**31, (count,), generator=generator).int()


# -- images ----


def augment(settings: SharedSettings, shape: tuple[int, int, int]) -> Augment | None:
    """The shifts and flips of `settings` for images of `shape` C, H, W; None where there are none."""
    if not settings.shift and not settings.flip:
        return None
    return lambda values, keys: _moved(values, moves(keys, settings.shift, settings.flip), settings.shift, shape)


class Moves(NamedTuple):
    """By how many pixels images move down and right, and whether they are mirrored before, [...] each."""

    down: Tensor
    right: Tensor
    flipped: Tensor


def moves(keys: Tensor, shift: int, flip: bool) -> Moves:
    """What happens to images of `keys` [...]: each move from -shift to shift as likely as any other."""
    down, right = (
        (((_hash(keys, number) & (_LEVELS - 1)) * (2 * shift + 1)) >> 16) - shift for number in (_DOWN, _RIGHT)
    )
    return Moves(down, right, (_hash(keys, _FLIP) & 1).bool() if flip else torch.zeros_like(keys, dtype=torch.bool))


def _moved(values: Tensor, by: Moves, shift: int, shape: tuple[int, int, int]) -> Tensor:
    """Images uint8 [n, D] as they look after `by` ([n] each); what comes in at the border is 0."""
    channels, height, width = shape
    count = len(values)
    bordered = torch.nn.functional.pad(values.view(count, channels, height, width), (shift,) * 4).flatten(2)
    rows, columns = (torch.arange(size, device=values.device) for size in (height, width))
    # The pixel that comes to stand in each row and column.
    rows = rows + shift - by.down.unsqueeze(1)
    columns = columns + shift - by.right.unsqueeze(1)
    columns = torch.where(by.flipped.unsqueeze(1), width - 1 + 2 * shift - columns, columns)
    places = (rows * (width + 2 * shift)).unsqueeze(2) + columns.unsqueeze(1)
    return bordered.gather(2, places.view(count, 1, -1).expand(-1, channels, -1)).flatten(1)


# -- dropout ----


class Dropout(NamedTuple):
    """Dropout of one mini-batch (Srivastava et al. 2014, JMLR 15, in the inverted form: what is kept is scaled up, so
    that nothing changes at scoring). `keys` [S, B]: images of equal key lose the same units."""

    rate: float
    keys: Tensor

    def factors(self, index: int, like: Tensor) -> Tensor:
        """For values `like` [S, B, W], of layer `index` from 0: 0, or 1 / (share that is kept)."""
        dropped = round(self.rate * _LEVELS)
        width = like.shape[-1]
        # Of the hash of a key one more hash for each two units.
        bases = _hash(self.keys, _DROPOUT + index).unsqueeze(-1)
        numbers = _hash(bases, torch.arange((width + 1) // 2, device=like.device, dtype=torch.int32))
        kept = numbers.view(torch.int16)[..., :width] >= dropped - _LEVELS // 2
        return kept.to(like.dtype).mul_(_LEVELS / (_LEVELS - dropped))


def dropout(settings: SharedSettings, keys: Tensor | None) -> Dropout | None:
    """The dropout of a mini-batch with `keys` [S, B]; None where nothing is dropped."""
    return Dropout(settings.dropout, keys) if settings.dropout and keys is not None else None


def _hash(keys: Tensor, number: Tensor | int) -> Tensor:
    """A number of each key, int32: the finaliser of MurmurHash3 (A. Appleby, public domain) of key + number x golden
    ratio. int32 wraps around; its shifts keep the sign, so what they bring in is masked away."""
    x = keys + (_signed(number * _GOLDEN) if isinstance(number, int) else number * _signed(_GOLDEN))
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(_signed(0x85EBCA6B))
    x.bitwise_xor_((x >> 13).bitwise_and_(0x7FFFF)).mul_(_signed(0xC2B2AE35))
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def _signed(number: int) -> int:
    """The last 32 bits of a number as an int32 reads them."""
    return ((number + 2**31) % 2**32) - 2**31
