"""How much faster than a plain autograd loop: Forward-Forward as public code usually writes it, beside ff.

    python benchmarks/plain_loop.py [--layers 784,200,200,10] [--steps 20] [--json FILE]

The plain loop: a DataLoader over PIL-style transforms of single images (torchvision's ToTensor and Normalize), labels
written into copies of the images, torch.nn.Linear layers, one torch.optim.Adam and one backward pass per layer, the
threshold loss, positives and negatives through each layer one after the other. ff: the recipe edgeff, which learns the
same. The data lie in memory on both sides; mini-batches of 256. In turns, medians. The third row leaves out the
DataLoader: mini-batches come from one tensor.
"""

import itertools
import sys
from collections.abc import Callable, Iterator

import torch
from alternate import arguments, begin, made_trainer, report, seconds
from products import steps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ff.data.torchvision_ops import declare_missing_operators

IMAGES, BATCH = 50_000, 256


class Digits(Dataset):
    """Random images of 28 x 28 with the transforms that are usual for MNIST."""

    def __init__(self, count: int):
        declare_missing_operators()
        from PIL import Image
        from torchvision import transforms

        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8).numpy()
        self.labels = torch.randint(0, 10, (count,), generator=generator).tolist()
        self.open = Image.fromarray
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,)), transforms.Lambda(torch.flatten)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.open(self.images[index])), self.labels[index]


class PlainLayer(nn.Linear):
    """A layer that learns by itself."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.optimiser = torch.optim.Adam(self.parameters(), lr=0.03)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x / (x.norm(2, 1, keepdim=True) + 1e-4)))

    def learn(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """One step; returns the layer's outputs, detached."""
        g_positive = self(positive).pow(2).mean(1)
        g_negative = self(negative).pow(2).mean(1)
        loss = torch.log(1 + torch.exp(torch.cat([2 - g_positive, g_negative - 2]))).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return self(positive).detach(), self(negative).detach()


def overlay(x: Tensor, labels: Tensor) -> Tensor:
    """A copy with the label in the first ten pixels."""
    x = x.clone()
    x[:, :10] = 0
    x[range(len(x)), labels] = x.max()
    return x


def plain(layers: list[int], batches: Callable[[], Iterator[tuple[Tensor, Tensor]]], count: int) -> Callable[[], None]:
    """`count` steps of the plain loop."""
    network = [PlainLayer(*sizes) for sizes in itertools.pairwise(layers)]

    def run() -> None:
        for _, (x, y) in zip(range(count), batches(), strict=False):
            positive = overlay(x, y)
            negative = overlay(x, (y + torch.randint(1, 10, y.shape)) % 10)
            for layer in network:
                positive, negative = layer.learn(positive, negative)

    return run


def main() -> int:
    """Command line; gives the exit status: 1 where ff is less than 20 times faster."""
    parser = arguments(__doc__)
    parser.add_argument("--layers", default="784,200,200,10")
    parser.add_argument("--steps", type=int, default=20, help="training steps of a turn (default: 20)")
    args = parser.parse_args()
    begin(args.threads)
    data = Digits(BATCH * (args.steps + 1))
    x = torch.stack([data[index][0] for index in range(len(data))])
    y = torch.tensor(data.labels)
    layers = [int(size) for size in args.layers.split(",")]
    sides = {
        "plain loop": plain(layers, lambda: iter(DataLoader(data, BATCH, shuffle=True)), args.steps),
        "plain loop, one tensor": plain(layers, lambda: zip(x.split(BATCH), y.split(BATCH), strict=True), args.steps),
        "ff, edgeff": steps(made_trainer(layers=args.layers, recipe="edgeff"), args.steps),
        "ff, ff": steps(made_trainer(layers=args.layers, recipe="ff"), args.steps),
    }
    took = seconds(sides, args.repeats)
    batches = -(-IMAGES // BATCH)
    rows = [
        {
            "layers": args.layers,
            "side": name,
            "step_ms": 1000 * value / args.steps,
            "epoch_s": batches * value / args.steps,
            "times_ff": value / took["ff, edgeff"],
        }
        for name, value in took.items()
    ]
    kinds = {"step_ms": ".2f", "epoch_s": ".2f", "times_ff": ".1f"}
    report(rows, {"steps": args.steps}, args.json, dict.fromkeys(rows[0], "") | kinds)
    return 0 if took["plain loop"] >= 20 * took["ff, edgeff"] else 1


if __name__ == "__main__":
    sys.exit(main())
