"""Summary tables from made run folders with known values."""

import json
import math
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from made_runs import BATCHES, KS, SEEDS, final_accuracy, latency_ms, make_grid, make_run, parameters, phases

from ff import statistics
from ff.assess.early_exit import TIMED_BATCHES
from ff.errors import FFError
from ff.layout import TABLES, RunKey, find_runs
from ff.summary import tables
from ff.summary.tables.accuracy import ACCURACY
from ff.summary.tables.early_exit import EXIT_BATCHES
from ff.summary.tables.rows import KEYS
from ff.summary.tables.run_files import files_of
from ff.summary.tables.runs import machine_name


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid") / "results"
    runs = make_grid(root, ["MNIST", "SVHN"], [(200, 200, 10)])
    return root, runs, tables.write_all(root, runs, root / "summary")


def test_every_table_is_written_and_reads_back_the_same(grid):
    root, _, written = grid
    assert set(written) == set(TABLES)
    for name, frame in written.items():
        back = tables.read_table(root / "summary", name)
        assert list(back.columns) == list(frame.columns)
        assert len(back) == len(frame)
    pd.testing.assert_frame_equal(
        tables.read_table(root / "summary", "accuracy"), written["accuracy"], check_dtype=False
    )


def test_columns_stand_beside_the_function_and_in_the_documentation(grid):
    text = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    for name, frame in grid[2].items():
        columns = getattr(sys.modules[getattr(tables, name).__module__], name.upper())
        further = frame.columns[len(columns) :]
        assert tuple(frame.columns) == (*columns, *further)
        assert all(column.startswith(("goodness_", "share_exit_")) for column in further), name
        assert f"## {name}.csv" in text
        section = text.split(f"## {name}.csv")[1].split("\n## ")[0]
        for column in frame.columns:
            stem = column.rstrip("0123456789")
            assert f"`{column}`" in section or f"`{stem}*`" in section or column in KEYS, (name, column)


def test_early_exit_is_timed_at_the_batch_sizes_that_have_columns():
    assert tuple(TIMED_BATCHES) == EXIT_BATCHES


def test_accuracy_of_each_run_split_readout_and_depth(grid):
    _, runs, written = grid
    frame = written["accuracy"]
    # 3 splits x 3 depths, two readouts for ff and edgeff, one for bp; 2 data sets x 3 seeds
    assert len(frame) == 2 * 3 * (2 * 18 + 9)
    run = runs[0]
    row = frame[(frame["seed"] == run.seed) & (frame["recipe"] == "ff") & (frame["dataset"] == "MNIST")]
    row = row[(row["split"] == "test") & (row["readout"] == "head") & (row["is_last"] == 1)]
    assert row["accuracy"].item() == pytest.approx(final_accuracy(run))
    assert row["depth"].item() == 3
    assert "goodness" not in set(frame[frame["recipe"] == "bp"]["readout"])


def test_summary_holds_mean_interval_and_its_method(grid):
    frame = grid[2]["accuracy_summary"]
    row = frame[(frame["dataset"] == "MNIST") & (frame["recipe"] == "ff") & (frame["split"] == "test")]
    row = row[row["readout"] == "head"].iloc[0]
    expected = statistics.share_interval([0.977, 0.978, 0.979])
    assert (row["n_seeds"], row["n_images"], row["method"]) == (3, 10_000, "Wilson with Student t")
    assert row["mean"] == pytest.approx(0.978)
    assert (row["low"], row["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert row["low"] < row["bootstrap_low"] <= row["mean"] <= row["bootstrap_high"] < row["high"]


def test_recipes_are_compared_in_pairs_on_test(grid):
    frame = grid[2]["recipes"]
    rows = frame[(frame["dataset"] == "MNIST") & (frame["readout"] == "head")]
    assert list(zip(rows["recipe_a"], rows["recipe_b"], strict=True)) == [
        ("ff", "edgeff"),
        ("ff", "bp"),
        ("edgeff", "bp"),
    ]
    assert rows["difference_points"].tolist() == pytest.approx([5.3 - 0.05 / 3, -0.2, -5.5 + 0.05 / 3])
    assert rows["n_pairs"].tolist() == [3, 3, 3]
    assert set(rows["seeds_left_out"]) == {0}


def test_training_costs_and_energy(grid):
    written = grid[2]
    row = written["training"].iloc[0]
    sizes = [784, 200, 200, 10]
    marks = phases(sizes)
    assert row["parameters"] == parameters(sizes)
    assert row["seconds_total"] == pytest.approx(marks[-1][2])
    assert row["peak_memory_mb"] == 812.5
    assert pd.isna(row["peak_memory_device_mb"])
    busy = {"load": 6000, "representation": 9000, "softmax": 7500, "evaluation": 8000}
    gross = sum(busy[name] * (end - start) for name, start, end in marks)
    assert row["energy_gross_mj"] == pytest.approx(gross)
    assert row["energy_net_mj"] == pytest.approx(gross - 5000 * marks[-1][2])
    assert row["energy_seconds"] == pytest.approx(marks[-1][2])
    reach = 0.01 * max(busy[name] * (end - start) for name, start, end in marks)
    assert row["energy_gross_low_mj"] == pytest.approx(gross - reach)
    assert row["energy_net_high_mj"] == pytest.approx(row["energy_net_mj"] + reach)
    assert (row["energy_method"], row["shared"]) == ("Student t", 0)


def changed_hardware(folder, change):
    """Rewrite the folder's hardware.json as `change(document)` leaves it."""
    document = json.loads((folder / "hardware.json").read_text())
    change(document)
    (folder / "hardware.json").write_text(json.dumps(document))


def test_a_run_with_a_phase_that_was_not_measured_has_no_energy(tmp_path):
    """And no part of one: the phases that were measured would pass for the whole run."""
    run = RunKey("MNIST", "784-50-10", "ff", 42)

    def gap(document):
        numbers = dict.fromkeys(("gross_mj", "net_mj"))
        document["energy"]["load"] |= {"total": None, "rails": {"VDD_IN": numbers}}
        document["run_energy"]["total"] = None

    changed_hardware(make_run(tmp_path, run), gap)
    written = tables.write_all(tmp_path, [run], tmp_path / "summary")
    row = written["training"].iloc[0]
    energy = [name for name in written["training"] if name.startswith("energy_")]
    assert row[[*energy, "shared"]].isna().all()
    assert (written["energy"]["phase"] == "softmax").any()
    reasons = written["missing"].set_index("file")["reason"]
    assert reasons["hardware.json"] == "the run's energy is not known: it was not measured of the phases load"


def test_energy_of_a_device_that_was_shared_is_marked(tmp_path):
    runs = make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"])

    def share(document):
        document["run_energy"]["total"]["shared"] = True
        for part in (document["energy"]["softmax"]["total"], document["energy"]["softmax"]["rails"]["VDD_IN"]):
            part["shared"] = True
        document["energy"]["load"]["rails"]["VDD_CPU"]["shared"] = None

    changed_hardware(runs[1].folder(tmp_path), share)
    written = tables.write_all(tmp_path, runs, tmp_path / "summary")
    assert written["training"]["shared"].tolist() == [0, 1, 0]
    assert (tmp_path / "summary/training.csv").read_text().splitlines()[2].endswith(",1"), "a flag, not 1.0 or True"
    energy = pd.read_csv(tmp_path / "summary/energy.csv")
    marked = energy[energy["shared"] == 1]
    assert set(zip(marked["phase"], marked["rail"], marked["is_total"], strict=True)) == {
        ("softmax", "VDD_IN", 0),
        ("softmax", "VDD_IN", 1),
    }
    assert energy.loc[energy["shared"].isna(), ["phase", "rail"]].values.tolist() == [["load", "VDD_CPU"]]


def test_energy_rails_and_totals_are_told_apart(grid):
    frame = grid[2]["energy"]
    run = frame[(frame["dataset"] == "MNIST") & (frame["recipe"] == "ff") & (frame["seed"] == 42)]
    softmax = run[(run["job"] == "train") & (run["phase"] == "softmax")]
    assert softmax[softmax["is_total"] == 0].set_index("rail")["gross_mj"].to_dict() == {
        "VDD_IN": pytest.approx(7500 * 5),
        "VDD_CPU": pytest.approx(2250 * 5),
    }
    assert softmax[softmax["is_total"] == 1]["net_mj"].item() == pytest.approx(2500 * 5)
    total = softmax[softmax["is_total"] == 1].iloc[0]
    assert (total["rail"], total["gross_low_mj"]) == ("VDD_IN", pytest.approx(0.99 * 7500 * 5))
    assert total["net_high_mj"] == pytest.approx(2500 * 5 + 0.01 * 7500 * 5)
    assert set(run[run["job"] == "measure"]["phase"]) == {"energy:cpu:1:1", "energy:cpu:1:512"}


def test_history_layers_and_early_exit_are_stacked(grid):
    written = grid[2]
    assert len(written["history"]) == 18 * 10
    assert written["history"].loc[written["history"]["recipe"] == "bp", "goodness_positive_1"].isna().all()
    assert len(written["layers"]) == 18 * 3
    assert len(written["early_exit"]) == 18 * (3 + len(KS) * 2) * 2


def test_operating_points_stand_beside_the_cut_and_full_depth(grid):
    """The made law: the cut after layer 2 of 784-200-200-10 loses 0.05 points, k = 1 loses 0.03125."""
    point = grid[2]["operating_points"].iloc[0]
    assert (point["rule"], point["k"], point["cut_depth"]) == ("logit", 1.0, 2)
    full = final_accuracy(RunKey("MNIST", "784-200-200-10", "ff", 42))
    for split, shift in (("test", 0.0), ("val", 0.003)):
        assert point[f"{split}_full_accuracy"] == pytest.approx(full + shift)
        assert point[f"{split}_cut_accuracy"] == pytest.approx(full + shift - 0.0005)
        assert point[f"{split}_accuracy"] == pytest.approx(full + shift - 0.005 / 16)
    assert point["change_points_vs_full"] == pytest.approx(-100 * 0.005 / 16)
    assert point["change_points_vs_cut"] == pytest.approx(100 * (0.0005 - 0.005 / 16))
    cuts = [784 * 200 + 10 * 200, 784 * 200 + 200 * 200 + 10 * 400, 784 * 200 + 200 * 200 + 200 * 10 + 10 * 410]
    left = 0.9 * (1 - math.exp(-1))
    total = left * cuts[0] + (1 - left) * cuts[2]
    assert point["macs_total"] == pytest.approx(total)
    assert point["macs_saved_share_vs_cut"] == pytest.approx(1 - total / cuts[1])
    assert point["macs_saved_share_vs_full"] == pytest.approx(1 - total / cuts[2])
    for batch, part in ((1, 0.5), (32, 0.8), (512, 0.9)):
        time, cut_time = (1 - part * (1 - macs / cuts[2]) for macs in (total, cuts[1]))
        assert point[f"time_saved_share_vs_cut_batch_{batch}"] == pytest.approx(1 - time / cut_time)
        assert point[f"time_saved_share_vs_full_batch_{batch}"] == pytest.approx(1 - time)


def test_full_depth_accuracy_of_an_operating_point_is_that_of_the_same_file(grid, tmp_path):
    """Not that of metrics.json, which another process measured and another training may have left."""
    _, (run, *_), _ = grid
    shutil.copytree(run.folder(grid[0]), run.folder(tmp_path))
    before = tables.write_all(tmp_path, [run], tmp_path / "summary")["operating_points"]
    metrics = run.folder(tmp_path) / "metrics.json"
    content = json.loads(metrics.read_text())
    for result in content["results"]:
        result["accuracy"] = 0.5
    metrics.write_text(json.dumps(content))
    after = tables.write_all(tmp_path, [run], tmp_path / "summary")["operating_points"]
    pd.testing.assert_frame_equal(after, before)


def test_runtimes_stand_beside_torch_with_memory_size_accuracy_and_energy(grid):
    _, runs, written = grid
    table = written["runtimes"]
    one = table[(table["layers"] == runs[0].layers) & (table["recipe"] == "ff") & (table["seed"] == runs[0].seed)]
    cell = one[(one["device"] == "cpu") & (one["threads"] == 4) & (one["batch_size"] == 64)].set_index("runtime")
    latency = written["latency"].merge(pd.DataFrame([runs[0]._asdict()]))
    latency = latency[(latency["device"] == "cpu") & (latency["threads"] == 4) & (latency["path"] == "end_to_end")]
    torch = latency[latency["batch_size"] == 64].iloc[0]
    assert cell.loc["torch", "median_ms"] == torch["median_ms"]
    for runtime, share in (("onnxruntime", 0.5), ("onnxruntime-int8", 0.25)):
        assert cell.loc[runtime, "median_ms"] == pytest.approx(share * torch["median_ms"])
        rate = cell.loc[runtime, "throughput_synchronised_per_s"]
        assert rate == pytest.approx(torch["throughput_synchronised_per_s"] / share)
    assert cell.loc["onnxruntime", "file_mb"] == pytest.approx(4 * cell.loc["onnxruntime-int8", "file_mb"])
    energy = written["inference_energy"].merge(pd.DataFrame([runs[0]._asdict()]))
    energy = energy[(energy["is_total"] == 1) & (energy["device"] == "cpu") & (energy["batch_size"] == 64)]
    expected = energy[energy["threads"] == 4]["gross_mj_per_sample"].iloc[0]
    assert (cell.loc["torch", "gross_mj_per_sample"], cell.loc["torch", "energy_path"]) == (expected, "deploy")
    assert cell.loc[["onnxruntime"], "gross_mj_per_sample"].isna().all()
    gone = one[one["available"] == 0]
    assert gone[["device", "runtime", "reason"]].values.tolist() == [
        ["cpu", "tensorrt", "tensorrt computes on cuda only"]
    ]
    # The tables of devices are of torch alone.
    assert set(written["latency"]["device"]) == set(written["devices"]["device"]) == {"cpu", "cuda"}


def test_early_exit_without_validation_has_no_operating_point(grid, tmp_path):
    _, (run, *_), _ = grid
    shutil.copytree(run.folder(grid[0]), run.folder(tmp_path))
    path = run.folder(tmp_path) / "early_exit.json"
    content = json.loads(path.read_text())
    nothing = {"available": False, "reason": "no validation split", "operating_point": None, "reference_cut": None}
    path.write_text(json.dumps({"schema": 2, "run": content["run"], "calibration": None, **nothing}))
    written = tables.write_all(tmp_path, [run], tmp_path / "summary")
    assert written["operating_points"].empty
    assert "no validation split" in set(written["missing"]["reason"])


def test_rule_8_devices_never_share_a_statistic(grid):
    frame = grid[2]["latency"]
    sizes = [784, 200, 200, 10]
    rows = frame[(frame["dataset"] == "MNIST") & (frame["path"] == "deploy") & (frame["batch_size"] == 64)]
    for device, threads in (("cpu", 1), ("cpu", 4), ("cuda", 1)):
        median = rows[(rows["device"] == device) & (rows["threads"] == threads)]["median_ms"]
        assert len(median) == 9 and median.tolist() == pytest.approx([latency_ms(device, 64, sizes, threads)] * 9)
    assert len(frame) == 18 * 3 * 2 * len(BATCHES)


def test_the_two_throughputs_are_told_apart(grid):
    frame = grid[2]["latency"]
    deploy = frame[frame["path"] == "deploy"]
    synchronised = 1000 * deploy["batch_size"] / deploy["median_ms"]
    assert deploy["throughput_synchronised_per_s"].tolist() == pytest.approx(synchronised.tolist())
    assert deploy["throughput_queued_per_s"].tolist() == pytest.approx((2 * synchronised).tolist())
    for kind in ("synchronised", "queued"):
        low, middle, high = (deploy[f"throughput_{kind}_{end}per_s"] for end in ("low_", "", "high_"))
        assert ((low < middle) & (middle < high)).all()
    assert set(deploy["n_queued_windows"]) == {5}
    rest = frame[frame["path"] == "end_to_end"]
    assert rest["throughput_queued_per_s"].isna().all() and rest["throughput_synchronised_per_s"].notna().all()


def test_energy_of_inference_by_rail_with_its_interval(grid):
    frame = grid[2]["inference_energy"]
    cell = frame[(frame["dataset"] == "MNIST") & (frame["recipe"] == "ff") & (frame["seed"] == 42)]
    cell = cell[(cell["device"] == "cpu") & (cell["threads"] == 4) & (cell["batch_size"] == 8)]
    gross = 9 * latency_ms("cpu", 8, [784, 200, 200, 10], 4) / 8
    assert sorted(zip(cell["rail"], cell["is_total"], strict=True)) == [("VDD_CPU", 0), ("VDD_IN", 0), ("VDD_IN", 1)]
    total = cell[cell["is_total"] == 1].iloc[0]
    assert total["gross_mj_per_sample"] == pytest.approx(gross) and total["n_windows"] == 3
    assert [total["gross_low"], total["gross_high"]] == pytest.approx([0.9 * gross, 1.1 * gross])
    assert total["net_mj_per_sample"] == pytest.approx(4 / 9 * gross) and total["idle_mw"] == 5000
    assert [total["net_low"], total["net_high"]] == pytest.approx([0.4 * gross, 4.4 / 9 * gross])
    assert [total["idle_low_mw"], total["idle_high_mw"]] == [4500, 5500] and total["power_mw"] == 9000
    part = cell[cell["rail"] == "VDD_CPU"].iloc[0]
    assert part["gross_mj_per_sample"] == pytest.approx(gross / 3)


def test_speedup_and_where_the_gpu_starts_to_win_against_each_number_of_threads(grid):
    written, sizes = grid[2], [784, 200, 200, 10]
    frame, wins = written["speedup"], written["gpu_wins"]
    for threads in (1, 4):
        cell = frame[(frame["dataset"] == "MNIST") & (frame["path"] == "deploy") & (frame["cpu_threads"] == threads)]
        row = cell[cell["batch_size"] == 512].iloc[0]
        expected = latency_ms("cpu", 512, sizes, threads) / latency_ms("cuda", 512, sizes)
        assert row["speedup"] == pytest.approx(expected) and expected > 1 and row["n"] == 3
        first = min(b for b in BATCHES if latency_ms("cpu", b, sizes, threads) > latency_ms("cuda", b, sizes))
        cell = wins[(wins["dataset"] == "MNIST") & (wins["path"] == "deploy") & (wins["cpu_threads"] == threads)]
        assert set(cell["batch_size"]) == {first}
    assert len(frame) == 6 * 2 * 2 * len(BATCHES)


def test_speedup_of_a_single_seed_is_a_bootstrap_over_repeats(tmp_path):
    runs = make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"], seeds=[42])
    frame = tables.speedup(tmp_path, tables.latency(files_of(tmp_path, runs)))
    frame = frame[(frame["path"] == "deploy") & (frame["batch_size"] == 128)].set_index("cpu_threads")
    for threads, row in frame.iterrows():
        assert row["method"] == "bootstrap percentile over repeats of one seed"
        assert row["n"] == 50
        expected = latency_ms("cpu", 128, [784, 50, 10], threads) / latency_ms("cuda", 128, [784, 50, 10])
        assert row["low"] < row["speedup"] < row["high"] and row["speedup"] == pytest.approx(expected, rel=0.01)


def test_gpu_wins_needs_every_larger_batch_and_a_clear_interval():
    cell = {"dataset": "MNIST", "layers": "784-10", "recipe": "ff", "path": "deploy", "device": "cuda"}
    cell |= {"cpu_threads": 1}
    values = [(1, 2.0, 1.5), (2, 0.9, 0.8), (8, 1.2, 0.95), (16, 1.3, 1.1), (32, 2.0, 1.8)]
    frame = pd.DataFrame([{**cell, "batch_size": b, "speedup": s, "low": low} for b, s, low in values])
    latency = pd.DataFrame([cell])
    assert tables.gpu_wins(frame, latency)["batch_size"].tolist() == [16]
    never = frame.assign(low=0.5)
    row = tables.gpu_wins(never, latency).iloc[0]
    assert pd.isna(row["batch_size"]) and "not faster" in row["reason"]
    assert tables.gpu_wins(frame.iloc[:0], latency)["reason"].tolist() == ["no second device was measured"]


def test_a_missing_run_is_named_with_the_last_error_and_breaks_nothing(tmp_path):
    runs = make_grid(tmp_path / "results", hidden=[(50, 10)], recipes=["ff", "bp"])
    lost, silent = RunKey("MNIST", "784-50-10", "ff", 7), RunKey("MNIST", "784-50-10", "bp", 8)
    log = tmp_path / "logs" / "MNIST-784-50-10-ff-7.log"
    log.parent.mkdir()
    log.write_text("ff: epoch 1\nff: error: the loss is not finite after epoch 3 in layer 2; lower --lr\n\n")
    pattern = str(tmp_path / "logs" / "{dataset}-{layers}-{recipe}-{seed}.log")
    written = tables.write_all(tmp_path / "results", [*runs, lost, silent], tmp_path / "summary", train_log=pattern)
    missing = written["missing"]
    assert missing["file"].tolist() == ["metrics.json", "metrics.json"]
    assert missing["reason"].iloc[0] == "training failed: the loss is not finite after epoch 3 in layer 2; lower --lr"
    assert "not trained" in missing["reason"].iloc[1]
    assert written["runs"]["finished"].tolist() == [1] * 6 + [0, 0]
    assert set(written["accuracy_summary"]["n_seeds"]) == {3}
    assert set(written["recipes"]["seeds_left_out"]) == {0}


def test_files_that_a_run_need_not_have_are_reported_and_not_zero(tmp_path):
    run = RunKey("MNIST", "784-50-10", "ff", 1)
    make_run(tmp_path, run, hardware=False, evaluation=False, early_exit=False, variance=False)
    written = tables.write_all(tmp_path, [run], tmp_path / "summary")
    assert set(written["missing"]["file"]) == {
        "hardware.json",
        "evaluation.json",
        "early_exit.json",
        "variance/cpu.json",
    }
    for name in (
        "early_exit",
        "operating_points",
        "latency",
        "devices",
        "speedup",
        "agreement",
        "energy",
        "layers",
    ):
        assert written[name].empty
    assert written["training"]["energy_gross_mj"].isna().all()
    cell = (tmp_path / "summary" / "training.csv").read_text().splitlines()[1]
    assert cell.endswith(",,,")


def test_no_sensor_and_no_cuda_give_their_reasons(tmp_path):
    run = RunKey("MNIST", "784-50-10", "ff", 42)
    make_run(tmp_path, run, devices=("cpu",), power=False)
    written = tables.write_all(tmp_path, [run], tmp_path / "summary")
    reasons = written["missing"].set_index("file")["reason"]
    assert "nvml: no NVIDIA driver" in reasons["hardware.json"]
    assert reasons["variance/cuda.json"] == "no CUDA device on this machine"
    cuda = written["devices"].set_index("device").loc["cuda"]
    assert (cuda["available"], cuda["reason"]) == (0, "no CUDA device on this machine")
    assert written["inference_energy"].empty and len(written["latency"]) == 2 * 2 * len(BATCHES)
    assert written["agreement"]["same_predictions_share"].isna().all()


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", "null"])
def test_damaged_files_are_named_and_do_not_stop_the_tables(tmp_path, damage):
    runs = make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"], seeds=[42, 123])
    folder = runs[0].folder(tmp_path)
    (folder / "evaluation.json").write_text(damage)
    (folder / "history.csv").write_text("")
    (folder / "variance" / "cpu.csv").write_text("\x00\x01")
    written = tables.write_all(tmp_path, runs, tmp_path / "summary")
    assert set(written["layers"]["seed"]) == {123}
    assert set(written["history"]["seed"]) == {123}
    assert {"evaluation.json", "history.csv"} <= set(written["missing"]["file"])


def test_no_run_at_all_gives_empty_tables_with_their_columns(tmp_path):
    written = tables.write_all(tmp_path, [], tmp_path / "summary")
    assert all(frame.empty for frame in written.values())
    assert list(tables.read_table(tmp_path / "summary", "accuracy").columns) == list(ACCURACY)


def test_find_runs_sorts_by_size_and_ignores_other_folders(tmp_path):
    runs = make_grid(tmp_path, hidden=[(1000, 10), (200, 10)], recipes=["ff"], seeds=[3])
    (tmp_path / "summary").mkdir()
    (tmp_path / "MNIST" / "not-layers" / "ff" / "seed1").mkdir(parents=True)
    assert find_runs(tmp_path) == [runs[1], runs[0]]


def test_a_run_that_vanishes_later_leaves_the_tables_when_they_are_written_again(tmp_path):
    runs = make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"])
    tables.write_all(tmp_path, runs, tmp_path / "summary")
    shutil.rmtree(runs[0].folder(tmp_path))
    written = tables.write_all(tmp_path, runs, tmp_path / "summary")
    assert set(written["accuracy"]["seed"]) == set(SEEDS[1:])
    assert len(written["missing"]) == 1


def test_a_table_that_the_layout_does_not_name_is_a_mistake(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "TABLES", TABLES[:-1])
    with pytest.raises(AssertionError, match="names other tables"):
        tables.write_all(tmp_path, [], tmp_path / "summary")


def test_reading_a_table_that_is_not_there_says_which(tmp_path):
    with pytest.raises(FFError, match=r"accuracy\.csv"):
        tables.read_table(tmp_path, "accuracy")


def test_machine_names_come_from_board_cpu_and_gpus():
    machine = json.loads('{"model": null, "cpu": {"model": "Some CPU"}, "gpus": [{"name": "A"}, {"name": "A"}]}')
    assert machine_name(machine) == "Some CPU, A, A"
    assert machine_name({"cpu": None, "gpus": []}) is None
