"""Early exit as it is deployed, on a real run in real ONNX Runtime: accuracies by other code, times by a made clock."""

import json

import made_runs
import numpy as np
import pytest
import torch
from made_networks import made_prepared, made_run, schema_errors, trained_on_digits

pytest.importorskip("onnx", reason="onnx is not installed (extra edge)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra edge)")

from ff.assess.early_exit import run_early_exit
from ff.cli import main
from ff.errors import FFError
from ff.export.bundle import export_run
from ff.export.files import exits_of, open_bundle, sha256
from ff.export.runtimes import opened
from ff.export.sessions import OnnxNetwork
from ff.files import read_csv, read_json
from ff.layout import RunKey
from ff.learn import checkpoint
from ff.learn.inference import Inference
from ff.measure import deployed
from ff.measure.deployed import Way, run_deployed, time_ways
from ff.stamps import model_of
from ff.summary import tables
from ff.summary.figures import build

ALL = ("torch", "onnxruntime", "onnxruntime-int8", "tensorrt")


@pytest.fixture(scope="module")
def measured(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("results") / "DIGITS/784-60-60-10/ff/seed0"
    trained_on_digits(folder, digits)
    run_early_exit(folder, digits, repeats=1)
    export_run(folder, digits)
    run_deployed(folder, digits, ("cpu", "cuda"), ALL, [1], repeats=1)
    return folder


def document(folder):
    return read_json(folder / "export/deployed.json")


def ways_by_name(folder):
    return {(way["runtime"], way["path"], way["depth"], way["batch_size"]): way for way in document(folder)["ways"]}


def test_every_way_is_there_and_what_is_not_says_why(measured):
    found = document(measured)
    assert not schema_errors(found, "deployed")
    paths = [("cut", 1), ("cut", 2), ("cut", 3), ("exit", None)]
    expected = {(runtime, *path, size) for runtime in ALL[:3] for path in paths for size in (1, 32, 512)}
    assert set(ways_by_name(measured)) == expected
    assert found["run"]["model"] == model_of(measured)
    assert found["bundle"] == sha256(measured / "export/bundle.json")
    reasons = {(one["device"], one["runtime"]): one["reason"] for one in found["runtimes"]}
    assert [reasons["cpu", runtime] for runtime in ALL[:3]] == [None] * 3
    assert reasons["cpu", "tensorrt"] == "tensorrt computes on cuda only"
    if not torch.cuda.is_available():
        assert all("no CUDA device" in reasons["cuda", runtime] for runtime in ALL)


def test_accuracies_are_those_of_each_runtime(measured, digits):
    bundle, ways = open_bundle(measured), ways_by_name(measured)
    images, labels = digits.test.images, digits.test.labels
    inference = Inference(checkpoint.load(measured / "model.safetensors")[0], digits.facts)
    left = inference.answer(inference.pixels(images), exits_of(bundle))
    for size in (1, 32, 512):
        way = ways["torch", "exit", None, size]
        assert way["test_accuracy"] == pytest.approx(float((left.classes == labels).double().mean()))
        assert way["mean_layers"] == pytest.approx(float(left.layers.double().mean()))
    for runtime, number_format in (("onnxruntime", "float32"), ("onnxruntime-int8", "int8")):
        network = OnnxNetwork(measured / "export", 3, number_format, exits_of(bundle))
        scores = network.scores(images.numpy())
        for depth in (1, 2, 3):
            right = (scores[:, depth - 1].argmax(1) == labels.numpy()).mean()
            assert {ways[runtime, "cut", depth, size]["test_accuracy"] for size in (1, 32, 512)} == {right}
            assert ways[runtime, "cut", depth, 1]["mean_layers"] == depth
        one_by_one = [int(network.answer_one(image[None]).classes[0]) for image in images.numpy()]
        assert ways[runtime, "exit", None, 1]["test_accuracy"] == (np.array(one_by_one) == labels.numpy()).mean()


def test_the_reference_cut_is_the_cheapest_that_is_as_accurate_in_its_runtime(measured):
    ways = ways_by_name(measured)
    for runtime in ALL[:3]:
        for size in (1, 32, 512):
            cuts = [ways[runtime, "cut", depth, size] for depth in (1, 2, 3)]
            fit = [cut["val_accuracy"] >= cuts[-1]["val_accuracy"] - 0.001 - 1e-9 for cut in cuts]
            assert [cut["is_reference_cut"] for cut in cuts] == [int(i == fit.index(True)) for i in range(3)]
            assert ways[runtime, "exit", None, size]["is_reference_cut"] == 0


def test_the_reference_cut_is_chosen_on_validation(measured, digits, monkeypatch):
    """Where validation says that the first layer is enough, test has no say."""
    original = deployed._score

    def other(way, part, rows, size):
        made = 0.9 if part is digits.train else {1: 0.1}.get(way.depth, 0.9)
        return made, original(way, part, rows, size)[1]

    monkeypatch.setattr(deployed, "_score", other)
    run_deployed(measured, digits, ("cpu",), ("onnxruntime",), [1], repeats=1)
    assert {way["depth"] for way in document(measured)["ways"] if way["is_reference_cut"]} == {1}


def test_ratios_are_those_of_the_raw_times(measured, digits):
    run_deployed(measured, digits, ("cpu",), ALL, [1], repeats=1)
    times: dict = {}
    rows = read_csv(measured / "export/deployed.csv")
    assert {row["model"] for row in rows} == {model_of(measured)}
    for row in rows:
        key = row["runtime"], row["path"], int(row["depth"]) if row["depth"] else None, int(row["batch_size"])
        times.setdefault(key, {}).setdefault(int(row["repeat"]), []).append(float(row["time_ms"]))
    passes = {key: np.array([np.mean(values) for _, values in sorted(found.items())]) for key, found in times.items()}
    assert {len(values) for values in passes.values()} == {4}
    counts = {
        size: {len(v) for key, found in times.items() for v in found.values() if key[3] == size}
        for size in (1, 32, 512)
    }
    assert counts == {1: {48}, 32: {3}, 512: {1}}
    ways = ways_by_name(measured)
    for key, way in ways.items():
        runtime, _, _, size = key
        [cut] = [k for k, one in ways.items() if (k[0], k[3]) == (runtime, size) and one["is_reference_cut"]]
        assert way["time_ms"]["median"] == pytest.approx(np.median(passes[key]))
        assert way["time_vs_cut"]["estimate"] == pytest.approx(np.median(passes[key] / passes[cut]))
        full = passes[runtime, "cut", 3, size]
        assert way["time_vs_full"]["estimate"] == pytest.approx(np.median(passes[key] / full))


# -- the protocol of timing ----


class Clock:
    """Time that passes only while somebody answers: `cost` ms an image by way, and 100 ms for a first answer."""

    def __init__(self):
        self.now, self.seen = 0.0, []

    def __call__(self):
        return self.now

    def way(self, name, cost):
        def answer(images):
            first = not self.seen or self.seen[-1][:2] != (name, len(images))
            self.now += (100 if first else cost * len(images)) / 1000
            self.seen.append((name, len(images), int(images[0, 0, 0, 0])))
            return np.zeros(len(images)), np.ones(len(images))

        return Way("cpu", name, "cut", 1, answer)


def test_each_batch_is_timed_alone_after_an_untimed_one_and_passes_are_shuffled():
    clock = Clock()
    batches = {1: [np.full((1, 1, 1, 1), i) for i in (1, 2, 3)], 4: [np.full((4, 1, 1, 1), 4)]}
    times = time_ways([clock.way("a", 2), clock.way("b", 5)], batches, 6, 0, clock)
    for (way, _), passes in times.items():
        assert len(passes) == 6
        assert all(value == pytest.approx([2, 5][way]) for values in passes for value in values)
    assert {key: len(values[0]) for key, values in times.items()} == {(0, 1): 3, (0, 4): 1, (1, 1): 3, (1, 4): 1}
    order = [entry[:2] for i, entry in enumerate(clock.seen) if i == 0 or clock.seen[i - 1][:2] != entry[:2]]
    assert len({tuple(order[i : i + 4]) for i in range(0, len(order) - 3, 4)}) > 1


class Seen(Exception):
    """Enough was seen: two threads on a busy machine take long."""


def test_all_runtimes_have_the_same_number_of_threads(measured, digits, monkeypatch):
    seen = []

    def noting(place, folder, network, facts, bundle, threads):
        seen.append((place["runtime"], threads, torch.get_num_threads()))
        if len(seen) == 3:
            raise Seen
        return []

    monkeypatch.setattr(deployed, "ways_on", noting)
    before = torch.get_num_threads()
    with pytest.raises(Seen):
        run_deployed(measured, digits, ("cpu",), ALL, [2, 1], repeats=1)
    assert seen == [("torch", 2, 2), ("onnxruntime", 2, 2), ("onnxruntime-int8", 2, 2)]
    assert torch.get_num_threads() == before


def test_a_session_has_the_threads_that_it_was_given(measured):
    for threads in (1, 2):
        network = opened("onnxruntime", measured, open_bundle(measured), threads=threads)
        options = network.full.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)


def test_the_made_runs_of_other_tests_look_like_this(tmp_path):
    folder = made_runs.make_run(tmp_path, RunKey("MNIST", "784-20-10", "ff", 0))
    errors = schema_errors(document(folder), "deployed")
    # Made runs have no real name.
    assert all(error.startswith("$.run") for error in errors), errors


# -- refusals, command, table, figure ----


def test_a_bundle_of_another_model_is_not_measured(tmp_path):
    prepared = made_prepared()
    made_run(tmp_path, prepared)
    with pytest.raises(FFError, match="there is no bundle in"):
        run_deployed(tmp_path, prepared)
    export_run(tmp_path, prepared, int8=False)
    run_deployed(tmp_path, prepared, ("cpu",), ("onnxruntime-int8",), repeats=1)
    [facts] = document(tmp_path)["runtimes"]
    assert facts["reason"] == "the bundle has no int8 graphs: not asked for"
    assert document(tmp_path)["ways"] == [] and read_csv(tmp_path / "export/deployed.csv") == []
    made_run(tmp_path, prepared, seed=3)
    with pytest.raises(FFError, match=r"it belongs to model .* export it again"):
        run_deployed(tmp_path, prepared)


def test_the_command_says_what_an_exit_is_worth(measured, prepared_dir, capsys):
    arguments = ["--deployed", "--devices", "cpu", "--threads", "1", "--early-exit-repeats", "1"]
    assert main(["measure", str(measured), *arguments, "--prepared-dir", str(prepared_dir)]) == 0
    text = capsys.readouterr().out
    assert "onnxruntime-int8 on cpu, batch 1: early exit: 9" in text
    assert text.count("x the time of the cheapest cut as accurate") == 9
    assert (
        main(["measure", str(measured), *arguments, "--runtimes", "tensorrt", "--prepared-dir", str(prepared_dir)]) == 0
    )
    assert "tensorrt on cpu: not measured: tensorrt computes on cuda only" in capsys.readouterr().out


def test_table_and_figure_hold_what_was_measured(measured, digits):
    root = measured.parents[3]
    run_deployed(measured, digits, ("cpu",), ALL, [1], repeats=1)
    run = RunKey.parse(measured.relative_to(root).as_posix())
    frame = tables.deployed(tables.files_of(root, [run]))
    ways = ways_by_name(measured)
    assert len(frame) == len(ways) + 1
    gone = frame[frame["available"] == 0]
    assert gone[["runtime", "reason"]].values.tolist() == [["tensorrt", "tensorrt computes on cuda only"]]
    for row in frame[frame["available"] == 1].itertuples():
        way = ways[row.runtime, row.path, None if np.isnan(row.depth) else int(row.depth), row.batch_size]
        assert (row.time_ms, row.test_accuracy) == (way["time_ms"]["median"], way["test_accuracy"])
        assert (row.time_vs_cut, row.time_vs_full_high) == (way["time_vs_cut"]["estimate"], way["time_vs_full"]["high"])
        assert row.threads == 1
    # A run whose model is another has no rows: its file is stale.
    stale = document(measured)
    stale["run"]["model"] = "0" * 16
    kept = (measured / "export/deployed.json").read_text()
    (measured / "export/deployed.json").write_text(json.dumps(stale))
    assert tables.deployed(tables.files_of(root, [run])).empty
    (measured / "export/deployed.json").write_text(kept)
    frame.to_csv(root / "deployed.csv", index=False)
    tables.write_table(tables.runs(tables.files_of(root, [run])), root / "runs.csv")
    figure = build("deployed", root, root)
    for ax, size in zip(figure.axes, (1, 512), strict=True):
        drawn = {
            (round(float(x), 9), round(float(y), 6)) for line in ax.lines for x, y in zip(*line.get_data(), strict=True)
        }
        expected = {
            (round(way["time_ms"]["median"], 9), round(100 * way["test_accuracy"], 6))
            for (_, _, _, batch), way in ways.items()
            if batch == size
        }
        assert expected <= drawn
        assert "ms" in ax.get_xlabel()
