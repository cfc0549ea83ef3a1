"""A run's numbers computed again from model.safetensors alone, with plain numpy: nothing of the engine is used.

n images, L layers; images are uint8 [n, C, H, W].
"""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open


class Weights:
    """The network that a model.safetensors holds, in float64."""

    def __init__(self, path: Path):
        with safe_open(path, framework="np") as file:
            about = json.loads(file.metadata()["ff"])
            tensors = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
        self.config, self.channels = about["config"], about["channels"]
        self.settings = self.config["recipe_settings"]
        self.normalisation = self.settings.get(
            "normalisation", {"class-prototypes": "rms"}.get(self.settings["method"])
        )
        self.slope = {"local-similarity": 0.01}.get(self.settings["method"], 0.0)
        depth = len(self.config["layers"].split(",")) - 1
        self.layers = [(tensors[f"layers.{k}.weight"], tensors[f"layers.{k}.bias"]) for k in range(1, depth + 1)]
        self.heads = [(tensors[f"heads.{k}.weight"], tensors[f"heads.{k}.bias"]) for k in range(1, depth + 1)]

    def norm(self, x: np.ndarray) -> np.ndarray:
        """Each row of x [n, W] with mean square 1 (rms) or length 1 (unit), or as it is."""
        if self.normalisation is None:
            return x
        square = (x**2).sum(1, keepdims=True)
        if self.normalisation == "rms":
            return x / np.sqrt(square / x.shape[1] + 1e-8)
        return x / (np.sqrt(square) + 1e-4)

    def outputs(self, x: np.ndarray) -> list[np.ndarray]:
        """Outputs of all layers, L x [n, W_l], for inputs [n, D] with their label pixels set."""
        outputs = []
        for weight, bias in self.layers:
            x = self.norm(x) @ weight.T + bias
            x = np.where(x > 0, x, self.slope * x)
            outputs.append(x)
        return outputs

    def first_products(self, images: np.ndarray, mean: tuple, std: tuple) -> np.ndarray:
        """W norm(x) of the first layer, without its bias, for neutral images: [n, W_1]."""
        x = with_pixels(images, mean, std, [self.settings.get("neutral_value", 0.0)] * 10)
        return self.norm(x) @ self.layers[0][0].T

    def neutral_outputs(self, images: np.ndarray, mean: tuple, std: tuple) -> list[np.ndarray]:
        """Outputs of all layers, L x [n, W_l], with the neutral label in the images."""
        return self.outputs(with_pixels(images, mean, std, [self.settings.get("neutral_value", 0.0)] * 10))

    def logits(self, outputs: list[np.ndarray]) -> np.ndarray:
        """Logits of heads 1..L, [n, L, 10]; head k sees the normalised outputs of layers 1..k, or of the last of them
        as many as it has weights for."""
        seen = [self.norm(h) for h in outputs]
        return np.stack(
            [np.hstack(seen[: k + 1])[:, -w.shape[1] :] @ w.T + b for k, (w, b) in enumerate(self.heads)], 1
        )

    def goodness(self, images: np.ndarray, mean: tuple, std: tuple) -> np.ndarray:
        """Goodness of each layer with each label in the images, [n, L, 10]."""
        under = []
        for label in range(10):
            pixels = [self.settings.get("overlay_value", 0.0) if pixel == label else 0.0 for pixel in range(10)]
            outputs = self.outputs(with_pixels(images, mean, std, pixels))
            under.append(np.stack([(h**2).mean(1) for h in outputs], 1))
        return np.stack(under, 2)


def with_pixels(images: np.ndarray, mean: tuple, std: tuple, values: list[float]) -> np.ndarray:
    """Standardised images [n, D] whose first ten pixels of each channel are `values`."""
    pixels = images.astype(np.float64) / 255
    pixels = (pixels - np.reshape(mean, (1, -1, 1, 1))) / np.reshape(std, (1, -1, 1, 1))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels[:, :, :10] = values
    return pixels.reshape(len(pixels), -1)


def probability(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Mean over samples of |accuracy - mean confidence| of the sample's bin (low, high]."""
    total = 0.0
    for place in range(bins):
        inside = (confidence > place / bins) & (confidence <= (place + 1) / bins)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    return total / len(right)


def moments(values: np.ndarray) -> dict[str, float] | None:
    """Mean, deviation and percentiles, as the documents give them."""
    if not len(values):
        return None
    low, middle, high = np.percentile(values, [5, 50, 95])
    return {"mean": values.mean(), "std": values.std(), "p5": low, "p50": middle, "p95": high}
