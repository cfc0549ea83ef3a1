"""A learning rule that nobody needs: layers shrink for a while, then the heads learn. It shows what a rule holds."""

from dataclasses import dataclass

from ff.learn.heads import Heads
from ff.learn.lazy import torch
from ff.learn.network import layer_macs
from ff.learn.optimiser import Layers
from ff.learn.readouts import HEAD
from ff.learn.rule import LearningPhase, SharedSettings
from ff.settings import setting

NAME = "shrink"
IS_CONTROL = False
PHASES = ("shrinking", "softmax")
READOUTS = (HEAD,)


@dataclass(frozen=True)
class Settings(SharedSettings):
    method: str = setting(NAME, "how layers learn", choices=(NAME,))
    normalisation: str = setting("rms", "scale of each layer's input", choices=("rms",))
    strength: float = setting(0.5, "how strongly weights shrink", above=0)
    learning_rate: float = setting(0.001, "of the layers", above=0)
    head_learning_rate: float = setting(0.01, "of the heads", above=0)
    neutral_value: float = setting(0.2, "value of the label pixels", above=0)


RECIPES = {"toy": Settings()}


def training_macs(config):
    return sum(layer_macs(config.layers))


def numbers_held(config):
    return 0, 0


def remarks(config, given):
    return ["rep_epochs is 0: nothing shrinks"] if config.rep_epochs == 0 else []


class Learner:
    def __init__(self, network, images, config, seeds):
        self.network, self.strength = network, config.settings.strength
        self.layers, self.heads = Layers(network), Heads(network, images, config)
        self.optimisers = {"layers": self.layers.optimiser, "heads": self.heads.optimiser}
        optimisers = {"learning_rate": self.layers.optimiser}
        shrinking = LearningPhase("shrinking", config.rep_epochs, self.gradients, optimisers, HEAD)
        self.phases = [shrinking, self.heads.phase(config.softmax_epochs)]

    def gradients(self, batch):
        for weight, gradient in zip(self.network.weights, self.layers.weight_gradients, strict=True):
            torch.mul(weight, self.strength, out=gradient)
        return torch.stack([weight.square().mean((1, 2)) for weight in self.network.weights], 1).unsqueeze(0)
