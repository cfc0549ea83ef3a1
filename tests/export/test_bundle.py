"""The bundle of a real run: what it holds, that it answers as torch does, and when it is refused."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_networks import made_prepared, made_run, schema_errors, trained_on_digits

pytest.importorskip("onnx", reason="onnx is not installed (extra edge)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")

import onnx

from ff.assess.early_exit import run_early_exit
from ff.assess.exit_rules import chosen_exits
from ff.cli import main
from ff.errors import FFError
from ff.export import graphs, parity
from ff.export.bundle import check_run, export_run
from ff.export.files import open_bundle, sha256
from ff.export.runtimes import opened
from ff.files import read_csv, read_json, write_json
from ff.learn import checkpoint
from ff.learn.inference import Inference
from ff.learn.recipes import RECIPES
from ff.stamps import model_of, stamp_of, stamp_of_rows


def test_what_a_bundle_holds(exported, digits):
    bundle, point = open_bundle(exported), read_json(exported / "early_exit.json")["operating_point"]
    assert not schema_errors(bundle, "bundle")
    assert not schema_errors(read_json(exported / "export/parity.json"), "parity")
    graphs_of = {
        f"{graph}{kind}" for graph in ("full", "early_exit", "stage1", "stage2", "stage3") for kind in ("", ".int8")
    }
    there = {path.name for path in (exported / "export").iterdir()}
    assert there == {f"{name}.onnx" for name in graphs_of} | {
        *("bundle.json", "parity.json", "run.py", "images.npy", "answers.csv")
    }
    assert {entry["file"] for entry in bundle["files"]} == there - {"bundle.json", "parity.json"}
    for entry in bundle["files"]:
        path = exported / "export" / entry["file"]
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, sha256(path))
    assert bundle["macs"] == {"layers": [47040, 3600, 600], "cuts": [47640, 51840, 52540]}
    assert bundle["parameters"] == sum((784 * 60 + 60, 60 * 60 + 60, 60 * 10 + 10, 610, 1210, 1310))
    assert bundle["labels"] == list("0123456789")
    assert bundle["normalisation"] == {"mean": [0.3049], "std": [0.3244]}
    assert bundle["early_exit"]["exits"]["thresholds"] == point["thresholds"]
    assert bundle["config"]["layers"] == "784,60,60,10"
    images, rows = np.load(exported / "export/images.npy"), bundle["examples"]["rows"]
    assert images.shape == (8, 1, 28, 28)
    np.testing.assert_array_equal(images, digits.test.images.numpy()[rows])
    assert bundle["examples"]["labels"] == digits.test.labels[rows].tolist()


def test_every_file_names_the_model(exported):
    model = model_of(exported)
    export = exported / "export"
    assert stamp_of(read_json(export / "bundle.json")) == stamp_of(read_json(export / "parity.json")) == model
    assert stamp_of_rows(read_csv(export / "answers.csv")) == model
    for path in export.glob("*.onnx"):
        assert {one.key: one.value for one in onnx.load(path).metadata_props}["model"] == model


def test_answers_are_those_of_the_deployed_network(exported, digits):
    network, _ = checkpoint.load(exported / "model.safetensors")
    inference = Inference(network, digits.facts)
    exits = chosen_exits(read_json(exported / "early_exit.json"))
    full = inference.answer(inference.pixels(digits.test.images))
    left = inference.answer(inference.pixels(digits.test.images), exits)
    rows = read_csv(exported / "export/answers.csv")
    assert [int(row["answer"]) for row in rows] == full.classes.tolist()
    assert [int(row["exit_answer"]) for row in rows] == left.classes.tolist()
    assert [int(row["exit_layer"]) for row in rows] == left.layers.tolist()
    assert len(set(left.layers.tolist())) > 1
    found = read_json(exported / "export/parity.json")
    by_path = {(path["path"], path["number_format"]): path for path in found["paths"]}
    assert len(by_path) == 6
    for (path, number_format), row in by_path.items():
        expected = (full if path == "full" else left).classes.eq(digits.test.labels).double().mean()
        assert row["n"] == len(rows) == 360
        assert row["accuracy_torch"] == pytest.approx(float(expected))
        if number_format == "float32":
            assert row["different"] == []
            assert row["accuracy_loss"]["low"] < row["accuracy_loss"]["estimate"] == 0 < row["accuracy_loss"]["high"]


def test_what_int8_costs_is_counted_image_by_image(exported, digits):
    bundle = open_bundle(exported)
    images, labels = digits.test.images.numpy(), digits.test.labels.numpy()
    exact, rounded = (opened(name, exported, bundle).answer(images) for name in ("onnxruntime", "onnxruntime-int8"))
    [row] = [
        path
        for path in read_json(exported / "export/parity.json")["paths"]
        if (path["path"], path["number_format"]) == ("full", "int8")
    ]
    assert {one["row"] for one in row["different"]} == set(np.flatnonzero(exact != rounded).tolist())
    assert row["accuracy"] == pytest.approx((rounded == labels).mean())
    assert row["accuracy_loss"]["estimate"] == pytest.approx((exact == labels).mean() - (rounded == labels).mean())
    # Rounding to 8 bits changes the answers of images that were undecided.
    margins = np.array([float(one["margin"]) for one in read_csv(exported / "export/answers.csv")])
    assert all(one["margin"] == pytest.approx(margins[one["row"]]) for one in row["different"])
    assert max((one["margin"] for one in row["different"]), default=0) < np.median(margins)


@pytest.mark.parametrize("options", [[], ["--int8"], ["--early-exit"], ["--int8", "--early-exit"]])
def test_the_program_needs_nothing_but_onnxruntime_and_numpy(exported, tmp_path, options):
    """The bundle alone, elsewhere, in a process that can import neither ff nor what else is installed."""
    place = (exported / "export").rename(tmp_path / "elsewhere")
    code = (
        "import runpy, sys\n"
        "for name in ('ff', 'torch', 'onnx', 'pandas', 'safetensors', 'scipy', 'sklearn'): sys.modules[name] = None\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-I", "-c", code, place / "run.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [name] = {("early_exit" if "--early-exit" in options else "full") + (".int8" if "--int8" in options else "")}
    bundle = json.loads((place / "bundle.json").read_text())
    assert [int(line) for line in done.stdout.split()] == bundle["examples"]["answers"][f"{name}.onnx"]
    bundle["examples"]["answers"][f"{name}.onnx"][3] += 1
    (place / "bundle.json").write_text(json.dumps(bundle))
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "expected" in done.stderr


def test_the_program_answers_other_images(exported, digits):
    images = digits.test.images[:20].numpy()
    np.save(exported / "own.npy", images)
    done = subprocess.run(
        [sys.executable, exported / "export/run.py", exported / "own.npy"], capture_output=True, text=True
    )
    expected = opened("onnxruntime", exported, open_bundle(exported)).answer(images)
    assert [int(line) for line in done.stdout.split()] == expected.tolist()


# -- what is refused ----


def test_the_bundle_of_another_model_is_refused(exported, digits):
    before = model_of(exported)
    trained_on_digits(exported, digits, seed=1)
    with pytest.raises(
        FFError, match=f"it belongs to model {before}, the run now holds model {model_of(exported)}; exp"
    ):
        open_bundle(exported)
    with pytest.raises(FFError, match="stale"):
        check_run(exported, digits)
    with pytest.raises(FFError, match=r"early_exit\.json is stale.* ff evaluate --early-exit"):
        export_run(exported, digits)


@pytest.mark.parametrize("name", ["full.onnx", "stage2.int8.onnx", "answers.csv", "run.py"])
def test_a_file_that_was_changed_or_removed_is_refused(exported, name):
    path = exported / "export" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FFError, match=f"{name} was changed after it was exported; export it again: ff export"):
        open_bundle(exported)
    path.unlink()
    with pytest.raises(FFError, match=f"lacks its file {name}"):
        open_bundle(exported)


def test_a_bundle_that_is_not_there_is_asked_for(exported):
    (exported / "export/bundle.json").unlink()
    with pytest.raises(FFError, match=r"there is no bundle in .*; run: ff export"):
        open_bundle(exported)


def test_a_graph_that_answers_otherwise_leaves_no_bundle(exported, digits, monkeypatch):
    right = graphs.full

    def wrong(source, **options):
        network = source.network.with_tensors(torch.clone)
        network.weights[1][0, 0] += 3
        return right(replace(source, network=network), **options)

    monkeypatch.setattr(graphs, "full", wrong)
    with pytest.raises(FFError, match=r"\(full\) answers \d+ of 360 test images otherwise than the trained one, image"):
        export_run(exported, digits)
    with pytest.raises(FFError, match="there is no bundle"):
        open_bundle(exported)


@pytest.mark.parametrize("column", ["answer", "exit_answer", "exit_layer"])
def test_a_bundle_is_checked_against_its_own_answers(exported, digits, column):
    """Without the checkpoint's tensors: what the trained network said lies in the bundle."""
    check_run(exported, digits)
    bundle, path = read_json(exported / "export/bundle.json"), exported / "export/answers.csv"
    rows = read_csv(path)
    clear = max(rows, key=lambda row: min(float(row["margin"]), float(row["exit_margin"])))
    clear[column] = str((int(clear[column]) + 1) % (3 if column == "exit_layer" else 10))
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n")
    [entry] = [entry for entry in bundle["files"] if entry["file"] == "answers.csv"]
    entry["sha256"] = sha256(path)
    write_json(exported / "export/bundle.json", bundle)
    with pytest.raises(
        FFError, match=f"answers 1 of 360 test images otherwise than the trained one, image {clear['row']}"
    ):
        check_run(exported, digits)


def test_the_bundle_of_another_data_set_is_not_checked(exported):
    with pytest.raises(FFError, match="is of DIGITS, not of MNIST"):
        check_run(exported, made_prepared())


# -- margins ----


def test_a_margin_is_how_far_an_answer_was_from_another():
    from ff.learn.inference import Exits

    scores = torch.tensor([[[4.0, 1, 0], [5, 3, 0]], [[1.0, 3.5, 0], [0, 9, 1]], [[2.0, 0, 0], [0, 0, 0.5]]])
    layers = np.array([1, 1, 2])
    distances = torch.stack(list(parity.distances(scores, Exits((3.0,)), layers))).T
    assert distances.tolist() == [[3.0, 1.0], [2.5, 0.5], [0.5, 1.0]]
    softened = torch.stack(list(parity.distances(scores, Exits((0.5,), (2.0,)), layers))).T
    share = np.exp(2.0) / (np.exp(2.0) + np.exp(0.5) + 1)
    assert softened[0].tolist() == pytest.approx([3.0, 2 * (np.log(share) - np.log(0.5))], rel=1e-5)


# -- what may be missing ----


@pytest.mark.parametrize("recipe", RECIPES)
def test_networks_of_every_recipe_are_exported_with_their_exits(tmp_path, recipe):
    prepared = made_prepared()
    made_run(tmp_path, prepared, recipe=recipe)
    run_early_exit(tmp_path, prepared, repeats=1)
    export_run(tmp_path, prepared)
    bundle = open_bundle(tmp_path)
    assert not schema_errors(bundle, "bundle")
    assert bundle["macs"]["cuts"] == read_json(tmp_path / "early_exit.json")["macs"]["cuts"]


# Of a checkpoint `auto` is never the precision: a training decides it first.
@pytest.mark.parametrize("precision", ["bfloat16", "float64", "tf32"])
def test_networks_of_every_precision_are_exported(tmp_path, precision):
    prepared = made_prepared()
    made_run(tmp_path, prepared, precision=precision)
    export_run(tmp_path, prepared, int8=False)
    assert (open_bundle(tmp_path)["tolerance"] > 0.01) == (precision == "bfloat16")


def test_without_validation_there_is_neither_int8_nor_an_exit(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared, val_size=0, recipe="bp")
    run_early_exit(tmp_path, prepared, repeats=1)
    export_run(tmp_path, prepared)
    bundle = open_bundle(tmp_path)
    assert not schema_errors(bundle, "bundle")
    assert not bundle["int8"]["available"] and "no validation split" in bundle["int8"]["reason"]
    assert not bundle["early_exit"]["available"] and "no validation split" in bundle["early_exit"]["reason"]
    assert {path.name for path in (tmp_path / "export").glob("*.onnx")} == {
        *("full.onnx", "stage1.onnx", "stage2.onnx", "stage3.onnx")
    }
    assert [path["path"] for path in read_json(tmp_path / "export/parity.json")["paths"]] == ["full", "stages"]
    check_run(tmp_path, prepared)


def test_int8_is_calibrated_on_validation_images(tmp_path):
    """Neither training nor test images enter, and not more than the first thousand."""
    prepared = made_prepared(train=1400, test=40)
    _, config = made_run(tmp_path, prepared, val_size=1200)
    export_run(tmp_path, prepared)
    before = open_bundle(tmp_path)["int8"]
    assert before["images"] == 1000

    from ff.assess.readings import drawn_rows

    seen = drawn_rows(config, prepared).val[0, :1000]
    others = torch.ones(1400, dtype=torch.bool).index_fill(0, seen, False)
    prepared.train.images[others], prepared.test.images[:] = 0, 0
    prepared.train.images[others, :, 20] = 255
    export_run(tmp_path, prepared)
    assert open_bundle(tmp_path)["int8"] == before
    prepared.train.images[seen] = prepared.train.images[others][:1]
    export_run(tmp_path, prepared)
    assert open_bundle(tmp_path)["int8"]["largest_inputs"] != before["largest_inputs"]


# -- the command ----


def call(*arguments):
    return main(["export", *map(str, arguments)])


def test_the_command_exports_and_checks(exported, prepared_dir, capsys):
    place = ["--prepared-dir", prepared_dir]
    assert call(exported, *place) == 0
    text = capsys.readouterr().out
    assert "no int8: not asked for" in text
    assert "full float32: 0 of 360 test answers differ from torch's; accuracy 9" in text
    # What an earlier export left is gone.
    assert not list((exported / "export").glob("*.int8.onnx"))
    assert call(exported, "--int8", *place) == 0
    assert "early_exit int8: " in capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in (exported / "export").iterdir()}
    assert call(exported, "--check", *place) == 0
    assert {path.name for path, time in times.items() if path.stat().st_mtime_ns != time} == {"parity.json"}


def test_a_run_without_early_exit_is_exported_and_says_what_to_do(exported, prepared_dir, capsys):
    (exported / "early_exit.json").unlink()
    assert call(exported, "--prepared-dir", prepared_dir) == 0
    assert (
        f"no early exit: there is no early_exit.json; run: ff evaluate --early-exit {exported}"
        in capsys.readouterr().out
    )


def test_a_missing_package_is_one_sentence(exported, prepared_dir, capsys, monkeypatch):
    monkeypatch.setattr("ff.export.packages.find_spec", lambda name: None if name == "onnx" else object())
    assert call(exported, "--prepared-dir", prepared_dir) == 1
    assert capsys.readouterr().err == (
        'ff: onnx is not installed, which exported networks need; run: pip install -c constraints.txt -e ".[edge]"\n'
    )
