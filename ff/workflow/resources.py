"""What a training needs, estimated before it runs: memory and time, for the scheduler of a machine or a cluster."""

from itertools import pairwise

from ff.data.registry import DATASETS
from ff.settings import RunConfig

# Of outputs kept for the heads in one pass: ff.learn works on parts of this many numbers.
_KEPT = 2**29
_BASE_MB = 600  # torch itself
_MACS_PER_SECOND = 20e9  # a tenth of one desktop core in float32
_SHORT_MACS = 1_000_000_000_000


def train_memory_mb(run: RunConfig, seeds: int = 1, attempt: int = 1) -> int:
    """MB for the images in float32 and their gathered copies, the layers' outputs kept for the heads, and the weights;
    twice as much for every retry."""
    images = DATASETS[run.dataset].train_images
    numbers = images * (2 * run.layers[0] + min(seeds * sum(run.layers[1:]), _KEPT // images))
    weights = 4 * seeds * _weights(run)
    return (_BASE_MB + int((numbers + weights) * 4 / 2**20)) * 2 ** (attempt - 1)


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
