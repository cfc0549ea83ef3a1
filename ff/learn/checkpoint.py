"""Checkpoints: safetensors in and out, one network a file, no pickle.

Tensors: `layers.{l}.weight` [W_l, W_(l-1)], `layers.{l}.bias` [W_l], `heads.{l}.weight` [C, W_1 + ... + W_l],
`heads.{l}.bias` [C], l from 1, C classes; where a head sees its own layer alone, its weight is [C, W_l]. All else is
one JSON text under the metadata key `ff`, the model's stamp (`ff.stamps`) among it: a hash of config and tensors that
every file derived from the model repeats, and that tells a damaged file.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from ff import __version__
from ff.data.prepared import Prepared
from ff.errors import FFError
from ff.files import write_tensors
from ff.learn.network import Network, head_spans, network_settings
from ff.learn.recipes import run_config_of
from ff.settings import RunConfig

FORMAT = 2


def save(path: str | os.PathLike, network: Network, seed_index: int, config: RunConfig) -> str:
    """Write the network of one seed of `network`, with the config that made it; returns the model's stamp."""
    tensors = {}
    for layer, span in enumerate(network.head_spans()):
        tensors[f"layers.{layer + 1}.weight"] = network.weights[layer][seed_index]
        tensors[f"layers.{layer + 1}.bias"] = network.biases[layer][seed_index]
        tensors[f"heads.{layer + 1}.weight"] = network.heads[seed_index, layer, :, span]
        tensors[f"heads.{layer + 1}.bias"] = network.head_biases[seed_index, layer]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    meta: dict[str, Any] = {
        "format": FORMAT,
        "ff": __version__,
        "torch": torch.__version__,
        "channels": network.channels,
        "config": config.as_dict(),
        "model": stamp(tensors, config.as_dict()),
    }
    write_tensors(path, tensors, meta)
    return meta["model"]


def stamp(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> str:
    """SHA-256 (16 digits) over a config and the names, types, shapes and bytes of its model's tensors."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()[:16]


def load(path: str | os.PathLike, device: torch.device | str = "cpu") -> tuple[Network, dict[str, Any]]:
    """The network (S = 1) of a checkpoint and its metadata; `config(metadata)` gives the RunConfig.

    Raises FFError when the file is missing, is no ff checkpoint, was changed after it was written, or its tensors do
    not fit its config.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            meta = json.loads((file.metadata() or {})["ff"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if meta["model"] != stamp({name: tensor.cpu() for name, tensor in tensors.items()}, meta["config"]):
            raise ValueError("its content does not fit its hash: it was damaged or changed after it was written")
        run = config(meta)
        network = _assemble(tensors, run, int(meta["channels"]))
    except FileNotFoundError:
        raise FFError(f"there is no checkpoint {path}; train the run first") from None
    except (SafetensorError, FFError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise FFError(f"{path} is not an ff checkpoint ({error}); delete it and train the run again") from error
    return network, meta


def check_data(run: RunConfig, prepared: Prepared) -> None:
    """Raise FFError where `prepared` is another data set than the run was trained on."""
    if prepared.name != run.dataset:
        raise FFError(f"the run was trained on {run.dataset}, not on {prepared.name}; open the prepared {run.dataset}")


def config(meta: dict[str, Any]) -> RunConfig:
    """The RunConfig that a checkpoint's metadata holds."""
    return run_config_of(meta["config"])


def _assemble(tensors: dict[str, torch.Tensor], run: RunConfig, channels: int) -> Network:
    widths, settings = run.layers[1:], network_settings(run)
    spans = head_spans(widths, settings.get("heads_see", Network.heads_see))
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, span in enumerate(spans, 1):
        inputs, width = run.layers[layer - 1 : layer + 1]
        shapes[f"layers.{layer}.weight"], shapes[f"layers.{layer}.bias"] = (width, inputs), (width,)
        shapes[f"heads.{layer}.weight"] = (run.classes, span.stop - span.start)
        shapes[f"heads.{layer}.bias"] = (run.classes,)
    if set(tensors) != set(shapes):
        raise ValueError(f"its tensors are not those of layers {run.layers_name}: {sorted(set(tensors) ^ set(shapes))}")
    for name, shape in shapes.items():
        if tensors[name].shape != shape or not tensors[name].is_floating_point():
            raise ValueError(f"{name} is {tensors[name].dtype} {tuple(tensors[name].shape)}, its config says {shape}")
    depth = len(widths)
    weights = [tensors[f"layers.{layer}.weight"].unsqueeze(0) for layer in range(1, depth + 1)]
    biases = [tensors[f"layers.{layer}.bias"].unsqueeze(0) for layer in range(1, depth + 1)]
    heads = weights[0].new_zeros(1, depth, run.classes, sum(widths))
    head_biases = weights[0].new_zeros(1, depth, run.classes)
    for layer, span in enumerate(spans):
        heads[0, layer, :, span] = tensors[f"heads.{layer + 1}.weight"]
        head_biases[0, layer] = tensors[f"heads.{layer + 1}.bias"]
    return Network(weights, biases, heads, head_biases, channels, **settings)
