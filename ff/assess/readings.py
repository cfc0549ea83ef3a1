"""What a trained run's network says of the images when it is asked again."""

import torch

from ff.data.images import Images, standardise
from ff.data.prepared import Prepared
from ff.learn.checkpoint import check_data
from ff.learn.draws import Split, split_rows
from ff.learn.network import Network
from ff.learn.readings import keep, read_splits
from ff.learn.readings_file import Kept
from ff.learn.recipes import rule_of
from ff.settings import RunConfig


def drawn_rows(config: RunConfig, prepared: Prepared) -> Split:
    """The rows [1, n] of the official training set that the run drew for training and for validation.

    Raises FFError when the data set is not the one `config` names.
    """
    check_data(config, prepared)
    return split_rows(len(prepared.train.labels), config.val_size, [config.seed])


def splits_of(
    config: RunConfig, prepared: Prepared, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, tuple[Images, torch.Tensor]]:
    """For train, val and test: the official part's images and the rows [1, n] of it, as the run drew them.

    Raises FFError when the data set is not the one `config` names.
    """
    rows = drawn_rows(config, prepared)
    train, test = (standardise(part, prepared.facts, device, dtype) for part in (prepared.train, prepared.test))
    every = torch.arange(len(prepared.test.labels)).unsqueeze(0)
    return {"train": (train, rows.train), "val": (train, rows.val), "test": (test, every)}


def ask(network: Network, prepared: Prepared, config: RunConfig, batch_size: int = 512) -> Kept:
    """Ask a network (S = 1) that was trained with `config` for all splits, by all its readouts."""
    readouts = rule_of(config).READOUTS
    splits = splits_of(config, prepared, network.heads.device, network.heads.dtype)
    return keep(read_splits(network, splits, readouts, batch_size), readouts, config.seed)
