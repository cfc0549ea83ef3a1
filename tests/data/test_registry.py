"""What is fixed about the data sets, and that an entry in the registry is all that a new one needs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from made_raw_data import RAW, idx, made_images, made_labels, write_raw

from ff.cli import main
from ff.data.prepared import open_prepared, prepare
from ff.data.registry import DATASETS, Facts
from ff.data.torchvision_ops import declare_missing_operators
from ff.doctor import check_dataset
from ff.errors import FFError
from ff.files import read_json
from ff.layout import find_runs
from ff.learn import checkpoint
from ff.learn.recipes import make_run_config
from ff.summary.figures import build
from ff.summary.figures.style import MOST_LABELS
from ff.summary.tables import write_all


def test_the_facts_of_digits_are_those_of_its_training_part(digits):
    values = digits.train.images.double() / 255
    assert values.mean().item() == pytest.approx(DATASETS["DIGITS"].mean[0], abs=5e-5)
    assert values.std().item() == pytest.approx(DATASETS["DIGITS"].std[0], abs=5e-5)


def test_the_facts_of_the_real_sets_are_the_constants_in_common_use():
    """As in torchvision's and PyTorch's examples, of the training images."""
    assert {name: (DATASETS[name].mean, DATASETS[name].std) for name in RAW} == {
        "MNIST": ((0.1307,), (0.3081,)),
        "FMNIST": ((0.2860,), (0.3530,)),
        "KMNIST": ((0.1918,), (0.3483,)),
        "SVHN": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        "CIFAR10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "CIFAR100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    }


def test_the_sizes_of_the_real_sets_are_the_published_ones():
    """LeCun et al. 1998, Xiao et al. 2017, Clanuwat et al. 2018, Netzer et al. 2011 (without `extra`), Krizhevsky
    2009."""
    assert {
        name: (DATASETS[name].train_images, DATASETS[name].test_images, DATASETS[name].input_size) for name in RAW
    } == {
        "MNIST": (60_000, 10_000, 784),
        "FMNIST": (60_000, 10_000, 784),
        "KMNIST": (60_000, 10_000, 784),
        "SVHN": (73_257, 26_032, 3072),
        "CIFAR10": (50_000, 10_000, 3072),
        "CIFAR100": (50_000, 10_000, 3072),
    }


def test_files_checksums_and_classes_are_those_that_torchvision_knows():
    """Its checks are of what it unpacks (CIFAR), of what it fetches (KMNIST), or of both (SVHN)."""
    declare_missing_operators()
    from torchvision import datasets

    cifar100, kmnist = (DATASETS[name] for name in ("CIFAR100", "KMNIST"))
    folder, lists = datasets.CIFAR100.base_folder, datasets.CIFAR100.train_list + datasets.CIFAR100.test_list
    assert list(zip(cifar100.files, cifar100.md5, strict=True)) == [(f"{folder}/{file}", md5) for file, md5 in lists]
    assert [(f"KMNIST/raw/{file}", md5) for file, md5 in datasets.KMNIST.resources] == [
        *zip(kmnist.files, kmnist.md5, strict=True)
    ]
    assert list(kmnist.classes) == datasets.KMNIST.classes
    # Krizhevsky's list is in the order of the alphabet, as the labels are.
    assert len(set(cifar100.classes)) == 100
    assert sorted(cifar100.classes) == list(cifar100.classes)


@pytest.mark.parametrize(("name", "tolerance"), [("MNIST", 5e-4), ("FMNIST", 5e-4), ("CIFAR10", 1e-3)])
def test_the_facts_of_the_real_sets(real_data, tmp_path, name, tolerance):
    # The CIFAR10 at hand is in part rebuilt from JPEG.
    prepared = prepare(name, str(real_data), tmp_path, verify=name != "CIFAR10", download=False)
    facts = DATASETS[name]
    assert (len(prepared.train.labels), len(prepared.test.labels)) == (facts.train_images, facts.test_images)
    assert torch.bincount(prepared.test.labels.int()).tolist() == pytest.approx([1000] * 10, rel=0.15)
    values = prepared.train.images.transpose(0, 1).flatten(1)
    for channel, pixels in enumerate(values):
        pixels = pixels.double() / 255
        assert pixels.mean().item() == pytest.approx(facts.mean[channel], abs=tolerance)
        assert pixels.std().item() == pytest.approx(facts.std[channel], abs=tolerance)


# -- a new data set ----


@pytest.fixture
def toy(monkeypatch) -> str:
    """A data set of four classes and 8 x 8 pixels, in files as MNIST's, known to the registry alone."""
    files = tuple(f"TOY/{name}" for name in ("train-images", "train-labels", "test-images", "test-labels"))
    facts = Facts("idx", (1, 8, 8), 40, 20, (0.5,), (0.25,), tuple("abcd"), files, ("0" * 32,) * 4, "TOY")
    monkeypatch.setitem(DATASETS, "TOY", facts)
    return "TOY"


def test_an_entry_is_all_that_a_new_data_set_needs(toy, official, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    official(toy, write_raw(tmp_path / "data", toy))
    assert "the official files are in data" in check_dataset(toy)[0].detail
    assert main(["prepare", toy]) == 0
    assert "TOY: 40 training and 20 test images" in capsys.readouterr().out
    prepared = open_prepared(tmp_path / "data/prepared/TOY.safetensors")
    assert torch.equal(prepared.test.images, torch.from_numpy(made_images(20, 1, 8, 8, seed=1)))
    assert prepared.test.labels.tolist() == (made_labels(20, 1) % 4).tolist()
    assert check_dataset(toy)[0].detail == "prepared, verified"
    assert main(["prepare", "NONE"]) == 1
    assert "DIGITS, TOY" in capsys.readouterr().err
    short = "--rep-epochs 1 --softmax-epochs 1 --val-size 8 --train-batch-size 8 --enable-hw-monitor false --no-wandb"
    assert main(["train", "--dataset", toy, "--layers", "784,12", *short.split()]) == 0
    assert main(["evaluate", "results/TOY/64-12/ff/seed0"]) == 0
    assert "TOY/64-12/ff/seed0: test head: accuracy" in capsys.readouterr().out
    scores = read_json("results/TOY/64-12/ff/seed0/evaluation.json")["readouts"]
    assert {len(row["confusion"]) for row in scores if row["split"] == "test"} == {4}


def test_a_hundred_classes_have_a_hundred_label_pixels_heads_and_rows(official, tmp_path, monkeypatch, capsys):
    """CIFAR100, from its files to its scores and the figure of its confusion."""
    monkeypatch.chdir(tmp_path)
    official("CIFAR100", write_raw(tmp_path / "data", "CIFAR100", train=300, test=200))
    short = (
        "--rep-epochs 1 --softmax-epochs 1 --val-size 100 --train-batch-size 50 --enable-hw-monitor false --no-wandb"
    )
    assert main(["train", "--dataset", "CIFAR100", "--layers", "3072,12,12", *short.split()]) == 0
    assert main(["evaluate", "results/CIFAR100/3072-12-12/ff/seed0", "--early-exit"]) == 0
    folder = tmp_path / "results/CIFAR100/3072-12-12/ff/seed0"
    network, _ = checkpoint.load(folder / "model.safetensors")
    assert network.classes == 100
    assert network.label_slices() == [slice(0, 100), slice(1024, 1124), slice(2048, 2148)]
    scores = read_json(folder / "evaluation.json")
    assert scores["classes"] == list(DATASETS["CIFAR100"].classes)
    for row in scores["readouts"]:
        counts = np.array(row["confusion"])
        assert counts.shape == (100, 100)
        assert (counts.sum(), np.trace(counts)) == (row["n"], round(row["accuracy"] * row["n"]))
        if row["split"] == "test":
            true = torch.bincount(torch.tensor(made_labels(200, 1, 100)), minlength=100)
            assert counts.sum(1).tolist() == true.tolist()
    # A pass for each label, of which the first layer's pixels are taken once.
    assert read_json(folder / "metrics.json")["macs_per_sample"]["goodness_readout"] == 3072 * 12 + 100 * (12 * 12 + 12)
    summary = tmp_path / "results/summary"
    write_all("results", find_runs("results"), summary)
    drawn = build("confusion", summary, tmp_path / "results")
    assert drawn.axes[0].images[0].get_array().shape == (100, 100)
    # Names and numbers would lie on each other.
    assert len(drawn.axes[0].get_yticks()) <= MOST_LABELS
    assert not drawn.axes[0].texts


def test_its_labels_are_those_of_its_own_classes(toy, tmp_path):
    write_raw(tmp_path, toy)[1].write_bytes(idx(made_labels(40) % 5))
    with pytest.raises(FFError, match="TOY: label 4 is none of the 4 classes"):
        prepare(toy, str(tmp_path), tmp_path / "prepared", verify=False, download=False)


def test_its_input_size_is_that_of_its_images(toy):
    assert make_run_config({"dataset": toy, "layers": "64,10"})[0].name == "TOY/64-10/ff/seed0"
    # As with a colour data set: the layers are written for the default data set, MNIST.
    config, [warning] = make_run_config({"dataset": toy, "layers": "784,10"})
    assert config.layers == (64, 10)
    assert warning == "TOY images have 64 values: the input size 784 of the layers became 64"
    for dataset, layers, right in ((toy, "3072,10", "64,10"), ("MNIST", "64,10", "784,10")):
        with pytest.raises(FFError, match=f'write layers as "{right}"'):
            make_run_config({"dataset": dataset, "layers": layers})


def test_its_files_are_fetched_by_the_class_that_its_entry_names(toy, tmp_path, monkeypatch):
    """With the reader's way to ask for them."""
    asked = []

    class Fetching:
        def __init__(self, root, **options):
            asked.append((root, options))

    monkeypatch.setattr("torchvision.datasets.TOY", Fetching, raising=False)
    for reader, folder, splits in (
        ("idx", tmp_path, [{}]),
        ("mat", tmp_path / "TOY", [{"split": "train"}, {"split": "test"}]),
    ):
        monkeypatch.setitem(DATASETS, toy, DATASETS[toy]._replace(reader=reader))
        with pytest.raises(FFError, match="TOY/train-images"):
            prepare(toy, str(tmp_path), tmp_path / "prepared")
        assert asked == [(folder, {"download": True, **split}) for split in splits]
        asked.clear()


def test_the_readme_says_where_each_data_set_comes_from():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    fetched = re.search(r"^(.*) are fetched through torchvision", text, re.MULTILINE)[1]
    assert re.split(", | and ", fetched) == list(RAW)
    for name, facts in DATASETS.items():
        assert not facts.package or f"{name} comes with {facts.package} " in text
