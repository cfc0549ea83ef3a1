"""Adam, and the flat parameters of layers and heads that it works on.

All parameters of a kind are one [S, P] tensor, so that a step is one pass over memory whatever the number of layers and
seeds, its state is three tensors to save and restore, and the schedule gives the learning rate of each step. The step
is the kernel beneath torch.optim.Adam(fused=True), which itself imports a compiler, at half a second, to take its
first step; it is the oracle in the tests. Weight decay is that of AdamW, apart from the gradient (Loshchilov & Hutter
2019, arXiv 1711.05101, algorithm 2).

What changes from step to step, its number and the learning rate, lies on the device: an update takes no number from the
host, so that a CUDA graph of it (`ff.learn.step`) serves all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ff.learn.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ff.learn.network import Network

# Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1, with the constants given there.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam on one flat parameter tensor [S, P] and a gradient of the same shape."""

    def __init__(self, parameters: Tensor):
        self.parameters = parameters
        self.gradient = torch.zeros_like(parameters)
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)
        self.steps = 0
        self.weight_decay = 0.0
        self._step = torch.zeros((), device=parameters.device)
        # The CUDA kernel reads a float32. The CPU's takes float64 too, and with it gives the bytes of a plain number.
        kind = torch.float32 if parameters.is_cuda else torch.float64
        self._rate = torch.zeros((), device=parameters.device, dtype=kind)

    def begin_step(self, learning_rate: float) -> None:
        """Count the step whose update comes next, and hand its learning rate to the device, which nobody waits for."""
        self.steps += 1
        self._step.fill_(self.steps)
        self._rate.fill_(learning_rate)

    def update(self) -> None:
        """Update the parameters by `gradient`, in the step that was begun."""
        torch._fused_adamw_(
            *([self.parameters], [self.gradient], [self.mean], [self.square], []),
            [self._step],
            lr=self._rate,
            beta1=BETA1,
            beta2=BETA2,
            eps=EPSILON,
            weight_decay=self.weight_decay,
            amsgrad=False,
            maximize=False,
        )


class Flat:
    """Tensors [S, ...] as views of one flat [S, P] tensor, their gradients, and the Adam that steps all of them."""

    def __init__(self, tensors: Sequence[Tensor]):
        self.optimiser = Adam(torch.cat([tensor.flatten(1) for tensor in tensors], 1))
        self.tensors = _views(self.optimiser.parameters, tensors)
        self.gradients = _views(self.optimiser.gradient, tensors)


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat [S, P] tensor with the shapes of the tensors `like`, one after the other."""
    parts = flat.split([tensor[0].numel() for tensor in like], 1)
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


class Layers:
    """The layers of a network as they learn: the network's weights and biases become views of one flat tensor."""

    def __init__(self, network: Network):
        flat = Flat([tensor for pair in zip(network.weights, network.biases, strict=True) for tensor in pair])
        network.weights, network.biases = flat.tensors[0::2], flat.tensors[1::2]
        self.optimiser = flat.optimiser
        self.weight_gradients, self.bias_gradients = flat.gradients[0::2], flat.gradients[1::2]
