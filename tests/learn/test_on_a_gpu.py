"""On a CUDA device: the bytes of graphs, the numbers of the CPU, groups, and an epoch that waits for nothing.

`benchmarks/gpu.py` checks the same, and more, where there is no pytest.
"""

import pytest
import torch
from test_step import SETTINGS, same_bytes

from ff.data.images import standardise
from ff.learn.products import choose_library, matmul
from ff.learn.recipes import RECIPES, make_run_config
from ff.learn.step import GraphedStep, eager
from ff.learn.trainer import Trainer
from ff.workflow.resources import device_memory_mb

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def made(digits, seeds, device="cuda", cuda_graph=False, **values) -> Trainer:
    config = make_run_config(SETTINGS | values)[0]
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    return Trainer(config, seeds, standardise(digits.train, digits.facts, device, dtype), cuda_graph=cuda_graph)


def trained(*arguments, **values) -> Trainer:
    trainer = made(*arguments, **values)
    for phase, _ in trainer.schedule:
        list(trainer.epochs(phase))
    return trainer


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "tf32"])
@pytest.mark.parametrize("seeds", [[0], [0, 5, 3]], ids=str)
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_training_by_graphs_has_the_bytes_of_an_eager_one(digits, recipe, seeds, precision):
    values = {"recipe": recipe, "precision": precision}
    eagerly = trained(digits, seeds, **values)
    assert same_bytes(trained(digits, seeds, cuda_graph=True, **values), eagerly)
    assert same_bytes(trained(digits, seeds, **values), eagerly), "two trainings differ"


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_the_numbers_are_those_of_the_cpu(digits, recipe):
    here, there = (trained(digits, [0, 1], device, recipe=recipe, precision="float64") for device in ("cpu", "cuda"))
    for one, other in zip(here.state.history, there.state.history, strict=True):
        # Learning rates are float32 on the device.
        assert other.loss == pytest.approx(one.loss, rel=1e-5)


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_group_equals_its_runs_alone_to_rounding(digits, recipe):
    values = {"recipe": recipe, "precision": "float64"}
    group = trained(digits, [0, 1], **values)
    for index, seed in enumerate([0, 1]):
        for one, other in zip(group.state.history, trained(digits, [seed], **values).state.history, strict=True):
            assert one.loss[index] == pytest.approx(other.loss[0], rel=1e-9)


@pytest.mark.parametrize("step_of", [eager, GraphedStep])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_within_an_epoch_the_host_waits_for_nothing(digits, recipe, step_of):
    trainer = made(digits, [0, 1], recipe=recipe)
    for phase in trainer.phases.values():
        phase.begin(trainer.split.train.to("cuda"))
        step = step_of(phase)

        def epoch(number, phase=phase, step=step):
            sums = None
            for batch in trainer.batches(phase, number):
                for optimiser in phase.optimisers.values():
                    optimiser.begin_step(0.001)
                measured = step(batch)
                sums = measured.clone() if sums is None else sums.add_(measured)

        # The first one makes handles, buffers and the graph.
        epoch(1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            epoch(2)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_float32_is_float32_and_tf32_is_not():
    choose_library()
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 256, 256, generator=generator).sub_(0.5).cuda() for _ in range(2))
    exact = a.double() @ b.double()
    errors = {
        precision: ((matmul(a, b, precision).double() - exact).abs().max() / exact.abs().max()).item()
        for precision in ("float32", "tf32")
    }
    assert errors["float32"] < 1e-5
    if torch.cuda.get_device_capability() >= (8, 0):
        assert 1e-5 < errors["tf32"] < 1e-2


def test_the_estimate_of_memory_is_within_a_fifth_of_the_peak(digits):
    trainer = made(digits, [0], dataset="MNIST", layers="784,2000,2000,2000", train_batch_size=512)
    # As many images as MNIST has.
    images = standardise(digits.train, digits.facts, "cuda")
    repeat = -(-60_000 // len(images.labels))
    every = images._replace(
        **{name: torch.cat([getattr(images, name)] * repeat)[:60_000] for name in ("values", "square", "labels")}
    )
    config = trainer.config
    del trainer, images
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(config, [0], every)
    for phase, _ in trainer.schedule:
        next(trainer.epochs(phase))
    assert device_memory_mb(config) == pytest.approx(torch.cuda.max_memory_allocated() / 2**20, rel=0.2)
