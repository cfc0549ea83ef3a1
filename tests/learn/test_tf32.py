"""TF32: which products a GPU may round, shown by tensors without numbers, and where the setting is refused."""

import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ff.errors import FFError
from ff.learn.inference import Inference
from ff.learn.precision import choose
from ff.learn.products import affine, choose_library, linear, matmul
from ff.learn.recipes import make_run_config
from ff.learn.run import train
from ff.settings import ExecutionConfig

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear"}


class Rounding(TorchDispatchMode):
    """Lists what float32 products on a GPU would be rounded to, product by product."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation.overloadpacket.__name__ in PRODUCTS:
            self.found.append(torch.backends.cuda.matmul.fp32_precision)
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_only_a_product_of_precision_tf32_on_a_device_may_be_rounded(precision, device, seeds):
    choose_library()
    x, weight, bias = (torch.ones(size, device=device) for size in ((seeds, 4, 6), (seeds, 5, 6), (seeds, 5)))
    with Rounding() as rounding:
        matmul(x, weight.mT, precision)
        affine(x, weight, bias, precision)
        linear(x[0], weight[0], bias[0], precision)
    assert rounding.found == ["tf32" if (precision, device) == ("tf32", "meta") else "ieee"] * 3
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_an_environment_that_allows_tf32_does_not_round_float32(monkeypatch):
    # As torch starts with TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1.
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    choose_library()
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_tf32_is_refused_on_a_cpu(tmp_path):
    message = "precision tf32 needs a CUDA device, and this run is on cpu: take float32 or bfloat16"
    with pytest.raises(FFError, match=f"^{re.escape(message)}$"):
        train(make_run_config({"precision": "tf32"})[0], ExecutionConfig(device="cpu", out=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True), ((8, 7), True), ((10, 0), True)])
def test_tf32_is_refused_on_a_device_that_has_none(monkeypatch, capability, there):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    config, device = make_run_config({"precision": "tf32"})[0], torch.device("cuda:1")
    if there:
        assert choose(config, device).precision == "tf32"
        return
    with pytest.raises(FFError, match=r"^precision tf32 needs a CUDA device of .* 8.0, and Old GPU is older: take"):
        choose(config, device)
    assert choose(make_run_config({})[0], device).precision == "float32"


def test_a_network_trained_in_tf32_is_deployed_in_it():
    from made_networks import made_config, made_network

    from ff.data.registry import DATASETS

    choose_library()
    for precision in ("float32", "tf32"):
        network = made_network(made_config(precision=precision)).to("meta")
        inference = Inference(network, DATASETS["MNIST"])
        with Rounding() as rounding:
            inference.logits(torch.zeros(7, 784, device="meta"))
        # Three layers, and the first part of the head; its other parts are added to that in float32.
        expected = "tf32" if precision == "tf32" else "ieee"
        assert rounding.found.count(expected) >= 4
        assert rounding.found[:4] == [expected] * 4
