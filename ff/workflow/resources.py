"""What a training needs, estimated before it runs: memory and time, for the scheduler of a machine or a cluster."""

from itertools import pairwise

from ff.data.registry import DATASETS
from ff.settings import RunConfig

# As `ff.learn.heads` has it: above this, the layers' outputs are not kept for the heads.
_KEPT_BYTES = 2 * 2**30
_BASE_MB = 300  # torch itself
_MACS_PER_SECOND = 20e9  # a tenth of one desktop core in float32
_SHORT_MACS = 1_000_000_000_000


def train_memory_mb(run: RunConfig, seeds: int = 1, attempt: int = 1) -> int:
    """MB for the images as bytes, the layers' outputs kept for the heads, the weights with Adam's three tensors of the
    same size, and a block of images under each label; twice as much for every retry."""
    facts = DATASETS[run.dataset]
    widths, number = run.layers[1:], 8 if run.precision == "float64" else 4
    kept = seeds * max(0, facts.train_images - run.val_size) * sum(widths) * number
    block = seeds * max(run.train_batch_size, run.test_batch_size) * run.classes * max(widths)
    bytes_ = (facts.train_images + facts.test_images) * run.layers[0]
    bytes_ += kept if kept <= _KEPT_BYTES else 0
    bytes_ += number * (4 * seeds * _weights(run) + 4 * block)
    return (_BASE_MB + bytes_ // 2**20) * 2 ** (attempt - 1)


def train_minutes(run: RunConfig, seeds: int = 1, attempt: int = 1) -> int:
    """Minutes at `_MACS_PER_SECOND` plus five; twice as long for every retry."""
    minutes = 5 + int(seeds * _training_macs(run) / _MACS_PER_SECOND / 60)
    return minutes * 2 ** (attempt - 1)


def gains_together(run: RunConfig, gpu: bool = False) -> bool:
    """Whether seeds of this run are trained sooner by one process, as one batched problem, than each by its own.

    On a GPU, which one small network leaves idle, they are. On a CPU (benchmarks/group_seeds.py) groups of 3 and 4 take
    0.7 to 1.1 times the time for each seed; so what is gained is the start of Python and torch, a second for each, and
    worth it where the training itself is of a few seconds: at most `_SHORT_MACS` by the count of `train_minutes`.
    """
    return gpu or _training_macs(run) <= _SHORT_MACS


def _training_macs(run: RunConfig) -> int:
    return DATASETS[run.dataset].train_images * (run.rep_epochs + run.softmax_epochs) * 4 * _weights(run)


def _weights(run: RunConfig) -> int:
    return sum(a * b for a, b in pairwise(run.layers))
