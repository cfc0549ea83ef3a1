"""What networks say of images, by every readout, kept on the CPU: the raw material of all scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ff.data.images import Images
from ff.learn.network import Network
from ff.learn.readouts import Readout, Seen

# Of the training split, readouts of many passes are scored on this many images.
TRAIN_SAMPLE = 2000


class Readings(NamedTuple):
    """What S networks of L layers say of n images of C classes."""

    said: Mapping[str, Tensor]  # by readout, [S, n, L, C]
    labels: Tensor  # int64 [S, n]
    neutral: Tensor | None = None  # goodness of each layer on neutral inputs, [S, n, L]
    active: Sequence[Tensor] = ()  # L x [S, W_l], of how many neutral inputs a unit is above 0


def read(
    network: Network,
    images: Images,
    rows: Tensor,
    readouts: Sequence[Readout],
    batch_size: int = 512,
    layers: bool = False,
) -> Readings:
    """Ask S networks for rows [S, n] of `images` by `readouts`, and with `layers` for what the layers say of neutral
    inputs, `batch_size` images at a time."""
    seeds, device = len(network.heads), network.heads.device
    parts: dict[str, list[Tensor]] = {readout.name: [] for readout in readouts}
    labels, neutral = [], []
    active = [torch.zeros(seeds, width, dtype=torch.int64, device=device) for width in network.widths if layers]
    for batch in rows.to(device).split(batch_size, 1):
        seen = Seen(network, images.rows(batch))
        labels.append(seen.block.labels)
        for readout in readouts:
            parts[readout.name].append(readout.said(seen))
        if layers:
            neutral.append(torch.stack(seen.neutral.goodness, -1))
            for count, h in zip(active, seen.neutral.outputs, strict=True):
                count += (h > 0).sum(1)
    return Readings(
        {name: torch.cat(part, 1).cpu() for name, part in parts.items()},
        torch.cat(labels, 1).cpu(),
        torch.cat(neutral, 1).cpu() if layers else None,
        [count.cpu() for count in active],
    )


def spread(rows: Tensor, count: int) -> Tensor:
    """`count` of rows [S, n], spread evenly over them: [S, count], or all where there are not more."""
    n = rows.shape[1]
    return rows if n <= count else rows[:, torch.arange(count) * n // count]


def read_splits(
    network: Network,
    splits: Mapping[str, tuple[Images, Tensor]],
    readouts: Sequence[Readout],
    batch_size: int = 512,
    known: Mapping[tuple[str, str], Readings] | None = None,
) -> dict[tuple[str, str], Readings]:
    """Ask S networks for all of `splits`, {split: (images, rows [S, n])}, by all `readouts`; {(split, readout): ...}.

    What is `known` already is not asked again. Of `train` some readouts see a sample (`Readout.sampled`), and no layers
    are read where there is a validation split. An empty split is left out.
    """
    found: dict[tuple[str, str], Readings] = {}
    unread = "train" if splits["val"][1].shape[1] else None
    for split, (images, rows) in splits.items():
        for part in (False, True):
            chosen = [
                readout
                for readout in readouts
                if (split == "train" and readout.sampled) == part and (split, readout.name) not in (known or {})
            ]
            some = spread(rows, TRAIN_SAMPLE) if part else rows
            if chosen and rows.shape[1]:
                seen = read(network, images, some, chosen, batch_size, layers=split != unread and not part)
                found |= {(split, readout.name): seen for readout in chosen}
    found |= known or {}
    # In the order of splits and readouts, whatever was known.
    every = [(split, readout.name) for split in splits for readout in readouts]
    return {key: found[key] for key in every if key in found}
