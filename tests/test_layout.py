"""Where everything lies: runs by name, and the files of each stage."""

import subprocess
import sys
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff import layout
from ff.errors import FFError
from ff.layout import RunKey
from ff.learn.recipes import make_run_config

RUN = RunKey("DIGITS", "784-20", "ff", 0)


@given(
    dataset=st.sampled_from(["MNIST", "CIFAR10"]),
    sizes=st.lists(st.integers(1, 9999), min_size=2, max_size=5),
    recipe=st.from_regex(layout.RECIPE, fullmatch=True).filter(str.isascii),
    seed=st.integers(0, 2**63 - 1),
    file=st.sampled_from(["", "/", "/metrics.json", "/variance/cpu.csv"]),
)
def test_a_name_says_all_parts_of_its_run(dataset, sizes, recipe, seed, file):
    run = RunKey.of({"dataset": dataset, "layers": tuple(sizes), "recipe": recipe, "seed": seed})
    assert (run.sizes, run.depth) == (tuple(sizes), len(sizes) - 1)
    assert RunKey.parse(run.name + file) == run
    assert RunKey.of(run._asdict() | {"layers": ",".join(map(str, sizes)), "seed": str(seed)}) == run
    assert layout.results_of(run.folder("/disk/results")) == Path("/disk/results")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("", "names no run, such as"),
        ("MNIST/784-10/ff", "'MNIST/784-10/ff' names no run"),
        ("/784-10/ff/seed0", "there is no data set ''"),
        ("../784-10/ff/seed0", "there is no data set '..'"),
        ("MNIST/784/ff/seed0", "layers '784' must be numbers"),
        ("MNIST/784-/ff/seed0", "layers '784-' must be numbers"),
        ("MNIST/784-10/../seed0", "there is no recipe '..'"),
        ("MNIST/784-10/ff/seed01", "'seed01' must be 'seed' and a number"),
        ("MNIST/784-10/ff/7", "'7' must be 'seed' and a number"),
    ],
)
def test_nonsense_is_no_name_of_a_run(path, sentence):
    with pytest.raises(FFError) as caught:
        RunKey.parse(path)
    assert sentence in str(caught.value)
    assert layout.results_of(Path("/results", path)) is None


def test_settings_and_their_folder_have_one_name():
    config = make_run_config({"dataset": "SVHN", "layers": "784,20", "seed": 3})[0]
    assert config.key == RunKey("SVHN", "3072-20", "ff", 3)
    assert config.name == config.key.name == "SVHN/3072-20/ff/seed3"
    assert config.key.cell == "SVHN/3072-20/ff"


def test_runs_are_found_by_size_and_other_folders_are_passed_over(tmp_path):
    large, small, last = (
        RunKey("MNIST", layers, "ff", seed) for layers, seed in (("784-1000", 3), ("784-200", 10), ("784-200", 9))
    )
    for run in (large, small, last):
        run.folder(tmp_path).mkdir(parents=True)
    for other in (
        "summary",
        "MNIST/not-layers/ff/seed1",
        "MNIST/784-10/ff/seed",
        "MNIST/784-10/ff/seed01",
        "MNIST/784-10/.ff/seed1",
    ):
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / "MNIST/784-1000/ff/seed4").write_text("a file")
    assert layout.find_runs(tmp_path) == [last, small, large]


def test_files_of_a_run_are_those_of_its_stages():
    files = layout.run_files(["cpu", "cuda:1"])
    assert len(files) == len(set(files))
    assert {"model.safetensors", "hardware.json", "evaluation.json", "early_exit.csv"} <= set(files)
    assert [file for file in files if file.startswith("variance/")] == [
        *("variance/cpu.csv", "variance/cuda_1.csv", "variance/cpu.json", "variance/cuda_1.json"),
        *("variance/phases.csv", "variance/agreement.json", "variance/hardware.csv", "variance/hardware.json"),
    ]


def test_paths_of_a_results_folder():
    assert layout.tables("other", "demo/", ["runs"]) == ["other/demo/summary/runs.csv"]
    assert layout.figure("results", "", "accuracy", "svg") == "results/figures/accuracy.svg"
    assert layout.report("results", "demo/") == "results/demo/report.html"
    assert layout.prepared_set("MNIST") == "data/prepared/MNIST.safetensors"


@pytest.mark.parametrize(
    ("results", "logs"),
    [("results", "logs"), ("results/", "logs"), ("other", "other/logs"), ("/disk/results/", "/disk/results/logs")],
)
def test_each_results_folder_has_its_own_logs(results, logs):
    assert layout.logs_folder(results) == logs
    assert layout.hardware_log(results, RUN, "train") == f"{logs}/hardware/{RUN.name}/train.jsonl"
    assert layout.train_log(results, RUN) == f"{logs}/train/{RUN.name}.log"
    assert layout.train_log(results).format(**RUN._asdict()) == layout.train_log(results, RUN)
    assert layout.job_log(results, "measure", RUN) == f"{logs}/measure/{RUN.name}.log"


def test_a_hardware_log_is_of_the_folder_with_its_phases():
    for job, folder in (("train", f"{RUN.name}/"), ("measure", f"{RUN.name}/variance/")):
        log = PurePath(layout.hardware_log("results", RUN, job)).relative_to("logs/hardware")
        assert layout.watched_folder(log) == folder
    assert layout.watched_folder(PurePath(RUN.name, "other.jsonl")) is None
    assert layout.watched_folder(PurePath("train.jsonl")) is None


def test_the_layout_is_read_without_anything_heavy():
    code = "import sys, ff.layout; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pandas')))"
    subprocess.run([sys.executable, "-c", code], check=True)
