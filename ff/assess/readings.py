"""What one network says about images, kept on the CPU: the raw material of every assessment."""

from typing import NamedTuple

import torch
from torch import Tensor

from ff.data.images import Part, standardise
from ff.data.prepared import Prepared
from ff.data.registry import Facts
from ff.learn.checkpoint import check_data
from ff.learn.draws import split_rows
from ff.learn.network import Network
from ff.settings import RunConfig


class Readings(NamedTuple):
    """What one network of L layers says about n images of C classes."""

    logits: Tensor  # [n, L, C], of head 1..L on neutral inputs
    goodness: Tensor | None  # [n, L, C], of each layer under each label; None where goodness was never trained
    neutral: Tensor  # [n, L], goodness of each layer on neutral inputs
    active: list[Tensor]  # L x [W_l], how many of the images a unit is above 0 for (neutral inputs)
    labels: Tensor  # [n]


def split_of(config: RunConfig, prepared: Prepared) -> dict[str, tuple[Part, Tensor]]:
    """For train, val and test: the official part and the rows [n] of it, as training drew them.

    Raises FFError when the data set is not the one `config` names.
    """
    check_data(config, prepared)
    rows = split_rows(len(prepared.train.labels), config.val_size, [config.seed])
    every = torch.arange(len(prepared.test.labels))
    return {
        "train": (prepared.train, rows.train[0]),
        "val": (prepared.train, rows.val[0]),
        "test": (prepared.test, every),
    }


def read(
    network: Network, part: Part, rows: Tensor, facts: Facts, batch_size: int = 512, goodness: bool = True
) -> Readings:
    """Pass rows [n] of `part` through a network (S = 1) on its own device, `batch_size` at a time."""
    device, dtype = network.heads.device, network.heads.dtype
    logits, by_label, neutral, labels = [], [], [], []
    active = [torch.zeros(width, dtype=torch.int64) for width in network.widths]
    for batch in rows.split(batch_size) if len(rows) else ():
        images = standardise(Part(part.images[batch], part.labels[batch]), facts, device, dtype)
        block = images.block(slice(None), 1)
        outputs = network.neutral_outputs(block.pixels, block.square)
        for count, h in zip(active, outputs, strict=True):
            count += (h[0] > 0).sum(0).cpu()
        neutral.append(torch.stack([network.goodness(h)[0] for h in outputs], -1).cpu())
        logits.append(network.all_head_logits(network.features(outputs))[0].cpu())
        if goodness:
            by_label.append(network.goodness_by_label(block.pixels, block.square)[0].cpu())
        labels.append(images.labels.cpu())
    empty = torch.empty(0, network.depth, network.classes, dtype=dtype)
    return Readings(
        torch.cat([empty, *logits]),
        torch.cat([empty, *by_label]) if goodness else None,
        torch.cat([empty[:, :, 0], *neutral]),
        active,
        torch.cat([torch.empty(0, dtype=torch.int64), *labels]),
    )
