"""Steps as CUDA graphs, with a recording of the same operations in the place of a graph: the bytes of eager steps."""

import re

import pytest
import torch
from recorded_operations import DeviceMemory, Graphs, Waits

from ff.data.images import Part, standardise
from ff.data.registry import DATASETS
from ff.errors import FFError
from ff.files import read_json
from ff.learn.devices import choose_device
from ff.learn.recipes import RECIPES, make_run_config
from ff.learn.run import train
from ff.learn.step import eager
from ff.learn.trainer import Trainer
from ff.settings import ExecutionConfig

SETTINGS = {"dataset": "DIGITS", "layers": "784,14,12", "rep_epochs": 2, "softmax_epochs": 2, "val_size": 200}
BATCHES = 5  # of 256: 1237 training images, so the last has 213
UNTIMED = {"seconds": 0.0, "validation_seconds": 0.0}


@pytest.fixture
def graphs(monkeypatch) -> Graphs:
    made = Graphs()
    monkeypatch.setattr("ff.learn.step.captured", made)
    return made


def trained(digits, seeds, cuda_graph, **values) -> Trainer:
    config = make_run_config(SETTINGS | values)[0]
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    images = standardise(digits.train, digits.facts, "cpu", dtype)
    trainer = Trainer(config, seeds, images, cuda_graph=cuda_graph)
    for phase, _ in trainer.schedule:
        list(trainer.epochs(phase))
    return trainer


def same_bytes(one: Trainer, other: Trainer) -> bool:
    for name, adam in one.state.optimisers.items():
        same = other.state.optimisers[name]
        pairs = [(getattr(adam, part), getattr(same, part)) for part in ("parameters", "mean", "square")]
        if adam.steps != same.steps or not all(torch.equal(a, b) for a, b in pairs):
            return False
    averages = zip(one.state.averages.values(), other.state.averages.values(), strict=True)
    networks = [[*trainer.state.network.weights, *trainer.state.network.biases] for trainer in (one, other)]
    if not all(torch.equal(a, b) for a, b in [*averages, *zip(*networks, strict=True)]):
        return False
    histories = [[epoch._replace(**UNTIMED) for epoch in trainer.state.history] for trainer in (one, other)]
    return histories[0] == histories[1]


@pytest.mark.parametrize("seeds", [[0], [0, 5, 3]], ids=str)
@pytest.mark.parametrize(
    "values",
    [
        {"recipe": "ff"},
        {"recipe": "edgeff"},
        {"recipe": "bp"},
        {"recipe": "mono"},
        {"recipe": "ff", "shift": 2, "flip": True, "dropout": 0.2, "weight_decay": 0.1},
        {"recipe": "bp", "shift": 2, "dropout": 0.2},
        {"recipe": "mono", "flip": True, "dropout": 0.2},
        {"recipe": "predsim"},
        {"recipe": "predsim", "shift": 1, "dropout": 0.2},
        {"recipe": "pred"},
        {"recipe": "ff", "precision": "bfloat16"},
        {"recipe": "ff", "precision": "float64", "schedule": "constant"},
        # A single mini-batch, smaller than asked for.
        {"recipe": "ff", "train_batch_size": 5000},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_a_training_by_graphs_has_the_bytes_of_an_eager_one(digits, graphs, seeds, values):
    by_graphs = trained(digits, seeds, True, **values)
    assert same_bytes(by_graphs, trained(digits, seeds, False, **values))
    # A graph for each phase; it runs for all mini-batches but the last of each epoch, which is smaller.
    each = 1 if "train_batch_size" in values else BATCHES - 1
    assert graphs.runs == [each * epochs for _, epochs in by_graphs.schedule]


def test_a_graph_reads_what_the_layers_outputs_are_computed_from(digits, graphs, monkeypatch):
    monkeypatch.setattr("ff.learn.heads.FEATURE_CACHE_BYTES", 0)
    assert same_bytes(trained(digits, [0, 1], True), trained(digits, [0, 1], False))


def test_a_phase_that_is_begun_again_is_recorded_again(digits, graphs):
    images = standardise(digits.train, digits.facts, "cpu")
    trainer = Trainer(make_run_config(SETTINGS)[0], [0], images, cuda_graph=True)
    list(trainer.epochs("representation"))
    next(trainer.epochs("softmax"))
    list(trainer.epochs("softmax"))
    assert graphs.runs == [2 * (BATCHES - 1), BATCHES - 1, BATCHES - 1]
    assert same_bytes(trainer, trained(digits, [0], False))


def test_without_the_setting_nothing_is_recorded(digits, graphs):
    trained(digits, [0], False)
    assert graphs.runs == []


def test_the_setting_reaches_the_trainer_and_metrics_json(prepared_dir, tmp_path, graphs, monkeypatch):
    monkeypatch.setattr("ff.learn.run.choose_device", lambda execution: torch.device("cpu"))
    config = make_run_config(SETTINGS | {"rep_epochs": 1, "softmax_epochs": 1})[0]
    where = {"prepared_dir": str(prepared_dir), "sidecar": "off", "idle_s": 0.0}
    for cuda_graph in (False, True):
        [folder] = train(config, ExecutionConfig(out=str(tmp_path / str(cuda_graph)), cuda_graph=cuda_graph, **where))
        assert read_json(folder / "metrics.json")["provenance"]["cuda_graph"] is cuda_graph
        assert len(graphs.runs) == (2 if cuda_graph else 0)


@pytest.mark.parametrize("place", [{"device": "cpu"}, {"device": "cuda", "no_cuda": True}], ids=str)
def test_a_graph_without_a_cuda_device_is_refused(place):
    message = "cuda_graph needs a CUDA device, and this run is on cpu: leave cuda_graph off"
    with pytest.raises(FFError, match=f"^{re.escape(message)}$"):
        choose_device(ExecutionConfig(cuda_graph=True, **place))


# -- what holds for a GPU and can be seen without one ----


NOISE = {"shift": 1, "flip": True, "dropout": 0.2, "weight_decay": 0.1}


@pytest.mark.parametrize("noise", [{}, NOISE], ids=["", "noisy"])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_within_an_epoch_the_host_waits_for_nothing(digits, recipe, noise):
    config = make_run_config(SETTINGS | {"recipe": recipe} | noise)[0]
    trainer = Trainer(config, [0, 1], standardise(digits.train, digits.facts, "cpu"))
    for phase, epochs in trainer.schedule:
        updates = BATCHES * len(trainer.phases[phase].optimisers)
        running = trainer.epochs(phase)
        for _ in range(epochs):
            with Waits() as waits:
                next(running)
            # The losses are read after the last update of the epoch, and that is seen.
            assert waits.found[:updates] == ["_fused_adamw_"] * updates
            assert "_local_scalar_dense" in waits.found[updates:]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64", "tf32"])
@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10"])
@pytest.mark.parametrize("noise", [{}, NOISE], ids=["", "noisy"])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_step_asks_a_device_for_no_number_and_leaves_nothing_on_the_host(recipe, dataset, precision, noise):
    settings = {"recipe": recipe, "dataset": dataset, "precision": precision, "layers": "784,30,20", "val_size": 10}
    config, facts = make_run_config(settings | {"train_batch_size": 64} | noise)[0], DATASETS[dataset]
    part = Part(torch.zeros(210, *facts.shape, dtype=torch.uint8), torch.zeros(210, dtype=torch.uint8))
    with DeviceMemory():
        dtype = torch.float64 if precision == "float64" else torch.float32
        trainer = Trainer(config, [0, 1], standardise(part, facts, "meta", dtype))
        for phase in trainer.phases.values():
            phase.begin(trainer.split.train.to("meta"))
            for batch in trainer.batches(phase, 1):
                for optimiser in phase.optimisers.values():
                    optimiser.begin_step(0.1)
                assert eager(phase)(batch).is_meta
            for optimiser in phase.optimisers.values():
                parts = (optimiser.parameters, optimiser.gradient, optimiser.mean, optimiser.square)
                assert all(tensor.is_meta for tensor in parts)
