"""Matrix products: the library is chosen by its error and speed, and every way to a product gives the same numbers."""

import json
import platform
from pathlib import Path

import pytest
import torch

from ff.learn import products
from ff.learn.products import DEFAULT, ONEDNN, Check, affine, cast, choose_library, library, linear, matmul


def onednn_allowed() -> bool:
    return torch.backends.mkldnn.matmul.fp32_precision == "bf16"


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """A user's cache folder that is empty, and a library that is chosen anew and given back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(products, "_library", DEFAULT)
    error = products.onednn_error
    error.cache_clear()
    yield tmp_path / "cache" / "ff"
    error.cache_clear()


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Speeds are made: oneDNN is three times as fast. Gives what was measured, as it happens."""
    calls: list[str] = []
    monkeypatch.setattr(products, "onednn_gain", lambda: calls.append("onednn") or 3.0)
    return calls


@pytest.fixture(params=[DEFAULT, ONEDNN])
def by(request, cache, measured, monkeypatch) -> str:
    """Each library in turn, whatever this machine would choose."""
    monkeypatch.setattr(products, "onednn_error", lambda: 0.0 if request.param == ONEDNN else 1.0)
    assert choose_library() == library() == request.param
    return request.param


# -- the choice ----


@pytest.mark.parametrize(
    ("error", "gain", "expected"),
    [
        (2e-7, 1.2, ONEDNN),
        (2e-7, 1.05, DEFAULT),
        (2e-7, 0.5, DEFAULT),
        # bfloat16's error, as of a processor with units for it.
        (3e-3, 5.0, DEFAULT),
        (2e-5, 5.0, DEFAULT),
        (float("nan"), 5.0, DEFAULT),
        (2e-7, float("nan"), DEFAULT),
    ],
)
def test_onednn_multiplies_where_its_error_is_float32s_and_it_is_faster(error, gain, expected):
    assert Check(error, gain).better == expected


def test_a_processor_that_rounds_where_it_may_keeps_the_default_library(cache, measured, monkeypatch):
    exact = torch.Tensor.__matmul__

    def rounding(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """As matrix units do: factors in bfloat16, sums in float32."""
        if onednn_allowed() and a.dtype == torch.float32:
            return exact(a.bfloat16().float(), b.bfloat16().float())
        return exact(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    assert choose_library() == library() == DEFAULT
    assert 1e-4 < products.onednn_error() < 1e-1


def test_the_error_is_looked_at_by_a_product_of_onednns(cache, monkeypatch):
    allowed, exact = [], torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: allowed.append((a.dtype, onednn_allowed())) or exact(a, b)
    )
    assert products.onednn_error() < 1e-2
    assert set(allowed) == {(torch.float64, False), (torch.float32, True)}
    assert not onednn_allowed()


class Clock:
    """Stands in for the module `time`; products take what the test says."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_a_gain_is_the_time_without_over_the_time_with(cache, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(products, "time", clock)
    first = []

    def product(*_, **__) -> None:
        # The first call of each makes kernels.
        kind = onednn_allowed()
        clock.now += (1.0 if kind else 4.0) + (0.0 if kind in first else 100.0)
        first.append(kind)

    monkeypatch.setattr(torch, "mm", product)
    assert products.onednn_gain() == 4
    assert not onednn_allowed()

    def by_precision(a: torch.Tensor, b: torch.Tensor, precision: str) -> None:
        clock.now += {"float32": 3.0, "bfloat16": 2.0}[precision]

    monkeypatch.setattr(products, "matmul", by_precision)
    assert products.bfloat16_gain() == 1.5


def test_the_speed_is_measured_once_on_a_machine_and_kept(cache, measured, monkeypatch):
    monkeypatch.setattr(products, "onednn_error", lambda: 0.0)
    assert [choose_library() for _ in range(3)] == [ONEDNN] * 3
    assert measured == ["onednn"]
    [kept] = cache.iterdir()
    assert json.loads(kept.read_text()) == {"gain": 3.0}
    # What is kept is what counts.
    kept.write_text(json.dumps({"gain": 1.0}))
    assert choose_library() == library() == DEFAULT
    assert measured == ["onednn"]
    # Of another processor, with another number of threads or another PyTorch nothing is known yet.
    changes = [(platform, "machine", lambda: "another"), (torch, "get_num_threads", lambda: 77)]
    for number, change in enumerate([*changes, (torch, "__version__", "77")]):
        with monkeypatch.context() as patch:
            patch.setattr(*change)
            assert choose_library() == ONEDNN
        assert len(measured) == number + 2
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"gain": "fast"}', '{"gain": null}'])
def test_a_kept_speed_that_cannot_be_read_is_measured_again(cache, measured, monkeypatch, content):
    monkeypatch.setattr(products, "onednn_error", lambda: 0.0)
    choose_library()
    [kept] = cache.iterdir()
    kept.write_text(content)
    assert choose_library() == ONEDNN
    assert measured == ["onednn"] * 2
    assert json.loads(kept.read_text()) == {"gain": 3.0}


def test_a_home_folder_that_cannot_be_written_is_measured_in_by_each_process(cache, measured, monkeypatch):
    monkeypatch.setattr(products, "onednn_error", lambda: 0.0)
    cache.parent.write_text("a file where the folder would be")
    assert [choose_library() for _ in range(2)] == [ONEDNN] * 2
    assert measured == ["onednn"] * 2


def test_without_a_cache_folder_of_its_own_it_lies_in_the_home_folder(cache, measured, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    choose_library()
    assert len(list((tmp_path / "home/.cache/ff").iterdir())) == 1


# -- which library a product is of ----

# Rows, inner, columns, and whether it is worth a call of oneDNN.
SIZES = [
    (64, 784, 100, True),
    (8, 784, 1000, True),
    # A few rows, as at inference with one sample.
    (7, 784, 1000, False),
    (1, 4000, 4000, False),
    (64, 100, 100, False),
]


@pytest.fixture
def allowed(monkeypatch) -> list[bool]:
    """Whether oneDNN was allowed in each product, as it happens."""
    seen: list[bool] = []
    for place, name in [(torch, n) for n in ("mm", "addmm", "bmm", "baddbmm")] + [(torch.nn.functional, "linear")]:
        product = getattr(place, name)
        monkeypatch.setattr(
            place, name, lambda *a, product=product, **k: seen.append(onednn_allowed()) or product(*a, **k)
        )
    return seen


@pytest.mark.parametrize(("rows", "inner", "columns", "large"), SIZES)
def test_only_large_products_are_onednns(by, allowed, rows, inner, columns, large):
    x, weight, bias = torch.ones(1, rows, inner), torch.ones(1, columns, inner), torch.ones(1, columns)
    matmul(x, weight.mT, "float32")
    affine(x, weight, bias, "float32")
    linear(x[0], weight[0], bias[0], "float32")
    assert allowed == [large and by == ONEDNN] * 3
    assert not onednn_allowed()


def test_the_seeds_of_a_group_count_together(by, allowed):
    x, weight, bias = torch.ones(4, 16, 100), torch.ones(4, 400, 100), torch.ones(4, 400)
    matmul(x, weight.mT, "float32")
    affine(x, weight, bias, "float32")
    matmul(x[:1], weight[:1].mT, "float32")
    assert allowed == [by == ONEDNN] * 2 + [False]


def test_after_a_product_that_failed_other_code_multiplies_as_always(by):
    with pytest.raises(RuntimeError):
        matmul(torch.ones(1, 64, 784), torch.ones(1, 785, 100), "float32")
    assert not onednn_allowed()


# -- the numbers ----


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference as a share of the largest number."""
    return ((found.double() - expected.double()).abs().max() / expected.abs().max()).item()


SHAPES = [(64, 784, 100), (128, 700, 200), (7, 40, 30)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("rows", "inner", "columns"), SHAPES)
def test_products_are_those_of_float64(by, rows, inner, columns, seeds, dtype):
    x, weight = drawn(seeds, rows, inner, dtype=dtype), drawn(seeds, columns, inner, seed=1, dtype=dtype)
    bias, precision = drawn(seeds, columns, seed=2, dtype=dtype), str(dtype).removeprefix("torch.")
    within = 1e-5 if dtype == torch.float32 else 1e-13
    expected = torch.einsum("sni,sci->snc", x.double(), weight.double())
    found = matmul(x, weight.mT, precision)
    assert found.dtype == dtype
    assert difference(found, expected) < within
    assert difference(affine(x, weight, bias, precision), expected + bias.double().unsqueeze(1)) < within
    assert difference(linear(x[0], weight[0], bias[0], "float32"), expected[0] + bias[0].double()) < within
    assert difference(linear(x[0], weight[0], None, "float32"), expected[0]) < within
    # A group of seeds is so many products.
    for seed in range(seeds):
        alone = matmul(x[seed : seed + 1], weight[seed : seed + 1].mT, precision)
        assert difference(found[seed : seed + 1], alone) < within


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_product_is_written_where_it_is_asked_to_be(by, seeds, precision):
    a, b = drawn(seeds, 64, 784), drawn(seeds, 784, 100, seed=1)
    whole = torch.full((seeds, 2, 64, 100), 7.0)
    target = whole[:, 1]
    result = matmul(a, b, precision, out=target)
    assert result.data_ptr() == target.data_ptr()
    assert torch.equal(target, matmul(a, b, precision))
    assert (whole[:, 0] == 7).all()


@pytest.mark.parametrize("seeds", [1, 2])
def test_bfloat16_factors_are_rounded_once_and_the_result_is_float32(by, seeds):
    a, b = drawn(seeds, 64, 784), drawn(seeds, 784, 100, seed=1)
    rounded = torch.bmm(a.bfloat16().double(), b.bfloat16().double())
    found = matmul(a, b, "bfloat16")
    assert found.dtype == torch.float32
    # The result is rounded to 8 bits, the sum is not.
    assert ((found - rounded).abs() <= 2**-8 * rounded.abs() + 1e-3).all()
    assert difference(found, torch.bmm(a.double(), b.double())) > 1e-4
    # What takes part in two products may be cast beforehand.
    assert torch.equal(matmul(cast(a, "bfloat16"), cast(b, "bfloat16"), "bfloat16"), found)
    assert cast(a, "float32") is a


def test_bfloat16_products_are_added_up_in_float32():
    """Added up in bfloat16, a sum of ones stays at 256."""
    found = matmul(torch.ones(1, 16, 4096), torch.ones(1, 4096, 16), "bfloat16")
    assert (found == 4096).all()
