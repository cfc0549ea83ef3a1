"""Made data sets and networks for tests of evaluation, early exit and measurement."""

from pathlib import Path

import torch
from torch import Tensor

from ff.data.images import Part, standardise
from ff.data.prepared import Prepared
from ff.data.registry import DATASETS
from ff.learn import checkpoint
from ff.learn.network import Network, initial_network
from ff.learn.recipes import make_run_config
from ff.learn.trainer import Trainer
from ff.settings import RunConfig


def made_prepared(
    dataset: str = "MNIST", train: int = 120, test: int = 60, classes: int = 10, seed: int = 0
) -> Prepared:
    """Random images whose label can be read off them: value 20 + 20 * label in the last row of pixels."""
    generator = torch.Generator().manual_seed(seed)
    return Prepared(dataset, *(_part(dataset, count, classes, generator) for count in (train, test)), "made", True, [])


def _part(dataset: str, count: int, classes: int, generator: torch.Generator) -> Part:
    labels = (torch.arange(count) % classes)[torch.randperm(count, generator=generator)].to(torch.uint8)
    shape = (count, *DATASETS[dataset].shape)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images[:, :, -1, :] = (20 + 20 * labels)[:, None, None]
    return Part(images, labels)


def labels_of_pixels(prepared: Prepared, pixels: Tensor) -> Tensor:
    """The labels that standardised pixels [n, D] of a made set carry in their last value."""
    facts = prepared.facts
    values = (pixels[:, -1].double() * facts.std[-1] + facts.mean[-1]) * 255
    return ((values - 20) / 20).round().long()


def made_network(config: RunConfig, channels: int = 1) -> Network:
    """An untrained network whose heads say different things at different depths."""
    network = initial_network(config, [config.seed], channels)
    generator = torch.Generator().manual_seed(config.seed + 1)
    noise = torch.randn(network.heads.shape, generator=generator, dtype=torch.float64)
    network.heads = noise.to(network.heads.dtype) * network.head_mask()
    return network


def made_config(layers: str = "784,30,20,10", **values) -> RunConfig:
    return make_run_config({"dataset": "MNIST", "layers": layers, "val_size": 40, **values})[0]


def made_run(folder: Path, prepared: Prepared, **values) -> tuple[Network, RunConfig]:
    """A run folder with the checkpoint of a made network."""
    config = made_config(**{"dataset": prepared.name, **values})
    network = made_network(config, prepared.facts.shape[0])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder / "model.safetensors", network, 0, config)
    return network, config


def trained_on_digits(folder: Path, prepared: Prepared, **values) -> tuple[Network, RunConfig]:
    """A run folder with the checkpoint of a network trained for a second."""
    settings = {"layers": "784,60,60,10", "rep_epochs": 6, "softmax_epochs": 6, "val_size": 300} | values
    config = make_run_config({"dataset": "DIGITS", **settings})[0]
    trainer = Trainer(config, [config.seed], standardise(prepared.train, prepared.facts, "cpu"))
    for phase, _ in trainer.schedule:
        for _ in trainer.epochs(phase):
            pass
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder / "model.safetensors", trainer.state.network, 0, config)
    return trainer.state.network, config


def schema_errors(document: dict, name: str) -> list[str]:
    """What a document does not do as workflow/schemas/{name}.schema.json asks."""
    from jsonschema import Draft202012Validator

    from ff.files import read_json

    schema = read_json(Path(__file__).parents[1] / "workflow" / "schemas" / f"{name}.schema.json")
    Draft202012Validator.check_schema(schema)
    return [f"{e.json_path}: {e.message}" for e in Draft202012Validator(schema).iter_errors(document)]
