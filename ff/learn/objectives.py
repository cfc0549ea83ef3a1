"""Goodness losses and their closed-form gradients.

Each loss takes the goodness of positives and negatives [L, S, B] of L layers and gives the loss [L, S] (mean over the
mini-batch) with dL/dg of positives and negatives [L, S, B]. As g = mean(h^2) over W units and h = ReLU(z), the
gradient of the pre-activation is dL/dz = (2 dL/dg / W) h: h is 0 where the ReLU is off. No graph is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ff.learn.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class GoodnessLoss(NamedTuple):
    """Loss [L, S] and its derivatives by the goodness of positives and negatives, [L, S, B] each."""

    loss: Tensor
    by_positive: Tensor
    by_negative: Tensor


def symba(positive: Tensor, negative: Tensor, alpha: float) -> GoodnessLoss:
    """mean softplus(-alpha (g+ - g-)): the paired loss of SymBa (Lee & Song 2023, arXiv 2303.08418, equation 2)."""
    margin = (positive - negative) * -alpha
    slope = torch.sigmoid(margin) * (alpha / margin.shape[-1])
    return GoodnessLoss(torch.nn.functional.softplus(margin).mean(-1), -slope, slope)


def threshold(positive: Tensor, negative: Tensor, theta: float) -> GoodnessLoss:
    """mean over positives and negatives of softplus(theta - g+) and softplus(g- - theta) (Hinton 2022, section 2)."""
    below, above = theta - positive, negative - theta
    share = 1 / (2 * positive.shape[-1])
    softplus = torch.nn.functional.softplus
    loss = (softplus(below).sum(-1) + softplus(above).sum(-1)) * share
    return GoodnessLoss(loss, torch.sigmoid(below) * -share, torch.sigmoid(above) * share)


def activation_gradient(h: Tensor, by_goodness: Tensor) -> Tensor:
    """dL/dz [S, B, W] of a layer with outputs h [S, B, W], from dL/dg [S, B]; in the place of h."""
    return h.mul_((by_goodness * (2 / h.shape[-1])).unsqueeze(-1))


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax cross-entropy of logits [S, B, L, C] against labels [S, B]: loss [S, L] (mean over B), dL/dlogits."""
    log_probability = logits.log_softmax(-1)
    target = labels[:, :, None, None].expand(-1, -1, logits.shape[2], 1)
    batch = logits.shape[1]
    loss = -log_probability.gather(-1, target).squeeze(-1).mean(1)
    gradient = log_probability.exp().scatter_add_(-1, target, torch.full_like(target, -1, dtype=logits.dtype))
    return loss, gradient.div_(batch)


def normalisation_gradient(y: Tensor, scale: Tensor, by_y: Tensor, normalisation: str) -> Tensor:
    """dL/dx of y = norm(x) = scale * x [S, B, W] from dL/dy; `scale` [S, B].

    rms: scale = (mean(x^2) + eps)^(-1/2), so dL/dx = scale (dL/dy - y mean(y dL/dy)).
    unit: scale = 1 / (|x| + eps), so dL/dx = scale (dL/dy - y sum(y dL/dy) / (|x| scale)), where
    |x| scale = |y| is the length of y.
    """
    if normalisation == "rms":
        along = (y * by_y).mean(-1, keepdim=True)
    else:
        along = (y * by_y).sum(-1, keepdim=True) / torch.linalg.vector_norm(y, dim=-1, keepdim=True).clamp_min(1e-30)
    return torch.addcmul(by_y, y, along, value=-1).mul_(scale.unsqueeze(-1))
