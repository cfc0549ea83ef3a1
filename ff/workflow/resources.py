"""What a training needs, estimated before it runs: memory and time, for the scheduler of a machine or a cluster."""

from itertools import pairwise

from ff.data.registry import DATASETS
from ff.learn.heads import FEATURE_CACHE_BYTES
from ff.learn.recipes import rule_of
from ff.settings import RunConfig

_BASE_MB = 300  # torch itself
_MACS_PER_SECOND = 20e9  # a tenth of one desktop core in float32
_SHORT_MACS = 1_000_000_000_000


def train_memory_mb(run: RunConfig, seeds: int = 1, attempt: int = 1) -> int:
    """MB of a training on the CPU: torch and all tensors; twice as much for every retry."""
    return (_BASE_MB + tensor_bytes(run, seeds) // 2**20) * 2 ** (attempt - 1)


def device_memory_mb(run: RunConfig, seeds: int = 1) -> int:
    """MB of a training on a GPU, as `peak_memory_mb` of metrics.json counts them: all tensors, and neither the CUDA
    context nor what the allocator holds in reserve."""
    return tensor_bytes(run, seeds) // 2**20


def tensor_bytes(run: RunConfig, seeds: int = 1) -> int:
    """Peak of the bytes of all tensors of a training of S seeds: images, networks, and the largest of what a step, a
    readout, and the phase that keeps the layers' outputs for the heads need beside them.

    Of D inputs, L layers (together `width` units), C classes, evaluation batches of T images.
    """
    facts, rule, widths = DATASETS[run.dataset], rule_of(run), run.layers[1:]
    inputs, first, depth, width = run.layers[0], widths[0], len(widths), sum(widths)
    test, classes = run.test_batch_size, run.classes
    count, number = max(0, facts.train_images - run.val_size), 8 if run.precision == "float64" else 4
    # Bytes of an image, its label and its sum of squares.
    images = (facts.train_images + facts.test_images) * (inputs + 8 + number)
    # Weights, their gradients and both moments; all heads are one matrix.
    networks = 4 * number * (_weights(run) + width + depth * classes * (width + 1))
    passes = classes if any(readout.sampled for readout in rule.READOUTS) else 1
    held, step = (number * count for count in rule.numbers_held(run))
    # Of each pass the outputs of a layer and of the one above it, beside the pixels' product.
    pair = max((sum(both) for both in pairwise(widths)), default=first)
    readout = number * test * (inputs + 2 * first + passes * pair)
    said = 2 * number * count * depth * classes
    kept = count * width * (2 if run.precision == "bfloat16" else number)
    block = 3 * number * test * width
    moving = run.settings.shift or run.settings.flip
    if run.softmax_epochs == 0 or "softmax" not in rule.PHASES or moving or seeds * kept > FEATURE_CACHE_BYTES:
        kept = 0
    else:
        # With the place of each image among them.
        kept += 8 * facts.train_images
    return images + seeds * (networks + held + max(step, readout, said, kept + max(block, said)))


def train_minutes(run: RunConfig, seeds: int = 1, attempt: int = 1) -> int:
    """Minutes at `_MACS_PER_SECOND` plus five; twice as long for every retry."""
    minutes = 5 + int(seeds * _training_macs(run) / _MACS_PER_SECOND / 60)
    return minutes * 2 ** (attempt - 1)


def gains_together(run: RunConfig, gpu: bool = False) -> bool:
    """Whether seeds of this run are trained sooner by one process, as one batched problem, than each by its own.

    On a GPU, which one small network leaves idle, they are. On a CPU (benchmarks/seeds.py) groups of 3 and 4 take
    0.7 to 1.0 times the time for each seed up to width 200, and 1.0 to 1.15 times at 500 and 1000. So wide networks
    gain only the start of Python and torch, a second for each, which is more than a group loses where the training
    itself is of a few seconds: at most `_SHORT_MACS` by the count of `train_minutes`.
    """
    return gpu or _training_macs(run) <= _SHORT_MACS


def _training_macs(run: RunConfig) -> int:
    return DATASETS[run.dataset].train_images * (run.rep_epochs + run.softmax_epochs) * 4 * _weights(run)


def _weights(run: RunConfig) -> int:
    return sum(a * b for a, b in pairwise(run.layers))
