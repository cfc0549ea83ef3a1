"""Models of a W&B sweep become run folders; the client's boundary is replaced, everything behind it is real."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ff.errors import FFError
from ff.files import write_json, write_text
from ff.learn import checkpoint
from ff.learn.network import Network
from ff.learn.recipes import make_run_config
from ff.tracking import fetch

KEY = "0123456789abcdef0123456789abcdef01234567"
SPEC = "team/edgeff/sweeps/abc123"


def make_artifact(folder, seed=0, scale=1.0):
    """A model artifact's folder as ff uploads it, and its metadata."""
    config, _ = make_run_config({"dataset": "DIGITS", "layers": "784,6,4", "seed": seed})
    network = Network(
        weights=[torch.full((1, 6, 784), scale), torch.full((1, 4, 6), scale)],
        biases=[torch.zeros(1, 6), torch.zeros(1, 4)],
        heads=torch.zeros(1, 2, 10, 10),
        head_biases=torch.zeros(1, 2, 10),
        channels=1,
    )
    folder = Path(folder)
    folder.mkdir(parents=True)
    model = checkpoint.save(folder / "model.safetensors", network, 0, config)
    write_json(folder / "metrics.json", {"schema": 1, "run": {"name": config.name, "model": model}})
    write_text(folder / "history.csv", "phase,epoch\n")
    metadata = {"layers": list(config.layers), "dataset": "DIGITS", "recipe": "ff", "seed": seed}
    return folder, metadata


class Artifact:
    """The part of `wandb.Artifact` that fetching uses."""

    def __init__(self, folder, metadata=None, kind="model"):
        self.folder, self.metadata, self.type = folder, metadata, kind

    def download(self, root):
        if self.folder is None:
            raise ConnectionError(f"lost, with {KEY}")
        for path in self.folder.iterdir():
            (Path(root) / path.name).write_bytes(path.read_bytes())
        return root


class Api:
    """The part of `wandb.Api` that fetching uses."""

    def __init__(self, *runs):
        self.runs = [
            SimpleNamespace(id=f"run{index}", logged_artifacts=lambda artifacts=artifacts: list(artifacts))
            for index, artifacts in enumerate(runs)
        ]
        self.asked = []

    def sweep(self, path):
        self.asked.append(path)
        if path.endswith("absent"):
            raise ValueError(f"Could not find sweep, key {KEY}\nmore")
        return SimpleNamespace(runs=self.runs)

    def run(self, path):
        self.asked.append(path)
        return self.runs[0]


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (SPEC, ("team", "edgeff", "sweeps", "abc123")),
        ("https://wandb.ai/team/edgeff/sweeps/abc123", ("team", "edgeff", "sweeps", "abc123")),
        ("team/edgeff/runs/r1", ("team", "edgeff", "runs", "r1")),
    ],
)
def test_specs(spec, parts):
    assert fetch.parse_spec(spec) == parts


@pytest.mark.parametrize("spec", ["", "abc123", "team/edgeff/abc123", "team/edgeff/sweeps/", "a/b/c/d/e"])
def test_other_specs_are_refused(spec):
    with pytest.raises(FFError, match="ENTITY/PROJECT/sweeps/ID"):
        fetch.parse_spec(spec)


def test_models_become_run_folders(tmp_path):
    sources = [make_artifact(tmp_path / f"a{seed}", seed) for seed in (0, 1)]
    code = Artifact(tmp_path, kind="code")
    api = Api(*[[code, Artifact(*source)] for source in sources])
    folders = fetch.fetch_models(SPEC, "results", api)
    assert folders == [Path(f"results/DIGITS/784-6-4/ff/seed{seed}") for seed in (0, 1)]
    assert api.asked == ["team/edgeff/abc123"]
    for folder, (source, _) in zip(folders, sources, strict=True):
        assert sorted(path.name for path in folder.iterdir()) == [
            "history.csv",
            "metrics.json",
            "model.safetensors",
        ]
        assert (folder / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
        network, _ = checkpoint.load(folder / "model.safetensors")
        assert network.widths == [6, 4]
    assert not list(Path("results").glob(".fetch-*"))


def test_fetching_again_leaves_the_folder_alone(tmp_path):
    api = Api([Artifact(*make_artifact(tmp_path / "a"))])
    (folder,) = fetch.fetch_models(SPEC, "results", api)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert fetch.fetch_models(SPEC, "results", api) == [folder]
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_two_models_of_one_cell_keep_folders_of_their_own(tmp_path):
    sources = [make_artifact(tmp_path / name, scale=scale) for name, scale in (("a", 1.0), ("b", 2.0))]
    api = Api(*[[Artifact(*source)] for source in sources])
    folders = fetch.fetch_models(SPEC, "results", api)
    assert folders == [Path("results/DIGITS/784-6-4/ff/seed0"), Path("results/run1/DIGITS/784-6-4/ff/seed0")]
    for folder, (source, _) in zip(folders, sources, strict=True):
        assert (folder / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert fetch.fetch_models(SPEC, "results", api) == folders


class Bomb:
    """A pickle that would leave a file behind when loaded."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_pickled_models_are_refused_and_never_loaded(tmp_path, capsys):
    published = tmp_path / "published"
    published.mkdir()
    (published / "temp_").write_bytes(pickle.dumps(Bomb()))
    good = Artifact(*make_artifact(tmp_path / "a"))
    folders = fetch.fetch_models(SPEC, "results", Api([Artifact(published, {"seed": 0})], [good]))
    assert len(folders) == 1
    assert "run run0 is passed over: its model is a pickle (temp_)" in capsys.readouterr().err
    with pytest.raises(FFError, match="has a model that ff can use"):
        fetch.fetch_models(SPEC, "others", Api([Artifact(published)]))
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder, metadata: metadata.update(seed=7), "its metadata says seed 7, its model 0"),
        (lambda folder, metadata: metadata.update(layers=[784, 5]), "its metadata says layers"),
        (lambda folder, metadata: (folder / "metrics.json").unlink(), "lacks metrics.json"),
        (lambda folder, metadata: (folder / "model.safetensors").write_bytes(b"x" * 99), "damaged"),
        (lambda folder, metadata: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder, metadata: write_text(folder / "metrics.json", "{"), "damaged"),
        (
            lambda folder, metadata: write_json(folder / "metrics.json", {"run": {"model": "0" * 16}}),
            "metrics.json is stale: it belongs to model 0000000000000000",
        ),
    ],
)
def test_what_does_not_fit_together_is_passed_over(tmp_path, capsys, change, sentence):
    folder, metadata = make_artifact(tmp_path / "a")
    change(folder, metadata)
    with pytest.raises(FFError, match="has a model that ff can use"):
        fetch.fetch_models(SPEC, "results", Api([Artifact(folder, metadata)]))
    assert sentence in capsys.readouterr().err
    assert not list(Path("results").rglob("*.safetensors"))


def test_runs_without_models_and_lost_downloads_are_passed_over(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    api = Api([], [Artifact(None)], [Artifact(*make_artifact(tmp_path / "a"))])
    assert len(fetch.fetch_models(SPEC, "results", api)) == 1
    err = capsys.readouterr().err
    assert "run0 is passed over: it has no artifact of type model" in err
    assert "run1 is passed over: its model cannot be fetched" in err
    assert KEY not in err


def test_a_single_run_can_be_fetched(tmp_path):
    api = Api([Artifact(*make_artifact(tmp_path / "a"))])
    assert len(fetch.fetch_models("team/edgeff/runs/r1", "results", api)) == 1
    assert api.asked == ["team/edgeff/r1"]


def test_an_unknown_sweep_is_one_sentence_without_the_key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(FFError) as caught:
        fetch.fetch_models("team/edgeff/sweeps/absent", "results", Api())
    assert str(caught.value).endswith("Could not find sweep, key (key)")


def test_fetching_needs_a_key_and_a_server(monkeypatch):
    with pytest.raises(FFError, match="needs WANDB_API_KEY"):
        fetch.fetch_models(SPEC, "results")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(FFError, match="cannot be reached"):
        fetch.fetch_models(SPEC, "results")
