"""Seeds that were trained as one group share its seconds and energy in equal parts; nothing else is divided."""

import pandas as pd
import pytest
from made_runs import make_grid, parameters, phases

from ff.files import read_json, write_json
from ff.summary import tables
from ff.summary.report import sections
from ff.summary.report.sentences import energy_sentences
from ff.summary.tables.run_files import files_of

SIZES = [784, 50, 10]
BUSY_MW = {"load": 6000.0, "representation": 9000.0, "softmax": 7500.0, "evaluation": 8000.0}


def set_metrics(root, run, **values):
    path = run.folder(root) / "metrics.json"
    write_json(path, {**read_json(path), **values})


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """Three seeds that were trained together, each with the files of the whole group, and their tables."""
    root = tmp_path_factory.mktemp("group")
    runs = make_grid(root, hidden=[(50, 10)], recipes=["ff"])
    for run in runs:
        set_metrics(root, run, shared_by_seeds=3)
    return root, runs, tables.write_all(root, runs, root / "summary")


def test_the_parts_of_a_group_add_up_to_what_it_took(group):
    root, runs, written = group
    frame, whole = written["training"], read_json(runs[0].folder(root) / "metrics.json")["seconds"]
    assert frame["shared_by_seeds"].tolist() == [3, 3, 3]
    for part in ("load", "representation", "softmax", "evaluation", "total"):
        assert frame[f"seconds_{part}"].sum() == pytest.approx(whole[part])
        assert frame[f"seconds_{part}"].nunique() == 1
    lasted = {name: end - start for name, start, end in phases(SIZES)}
    gross = sum(BUSY_MW[name] * seconds for name, seconds in lasted.items())
    assert frame["energy_gross_mj"].sum() == pytest.approx(gross)
    assert frame["energy_net_mj"].sum() == pytest.approx(gross - 5000 * sum(lasted.values()))
    assert frame["energy_seconds"].sum() == pytest.approx(sum(lasted.values()))


def test_memory_and_speed_stay_those_of_the_group(group):
    for row in group[2]["training"].itertuples():
        assert (row.peak_memory_mb, row.samples_per_s_representation) == (812.5, 25_000.0)
        assert (row.parameters, row.macs_train_step) == (parameters(SIZES), 3 * (784 * 50 + 50 * 10))
        assert pd.isna(row.peak_memory_device_mb) and pd.isna(row.seconds_backprop)


def test_epochs_and_energy_rows_are_shared_out_too_but_measurements_are_not(group):
    _, _, written = group
    history = written["history"]
    assert history["seconds"].tolist() == pytest.approx([2.0 / 3] * len(history))
    assert set(history["shared_by_seeds"]) == {3}
    assert history["validation_seconds"].tolist() == pytest.approx([0.5 / 3] * len(history))
    energy = written["energy"]
    softmax = energy[(energy["job"] == "train") & (energy["phase"] == "softmax") & (energy["rail"] == "VDD_IN")]
    for row in softmax.itertuples():
        assert (row.gross_mj, row.net_mj) == (pytest.approx(7500 * 5 / 3), pytest.approx(2500 * 5 / 3))
        assert (row.seconds, row.shared_by_seeds) == (pytest.approx(5 / 3), 3)
    measured = energy[(energy["job"] == "measure") & (energy["rail"] == "VDD_IN")]
    assert set(measured["gross_mj"]) == {90_000.0} and set(measured["seconds"]) == {10.0}
    assert set(measured["shared_by_seeds"]) == {1}


def test_a_run_of_its_own_bears_all_of_its_cost(tmp_path):
    (run,) = make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"], seeds=[42])
    seconds = read_json(run.folder(tmp_path) / "metrics.json")["seconds"]
    path = run.folder(tmp_path) / "metrics.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "shared_by_seeds"})
    row = tables.training(files_of(tmp_path, [run])).iloc[0]
    assert (row["shared_by_seeds"], row["seconds_total"]) == (1, seconds["total"])
    assert tables.history(files_of(tmp_path, [run]))["seconds"].tolist() == [2.0] * 10


def test_the_page_gives_mean_costs_over_seeds_in_seconds_and_joules(tmp_path):
    runs = make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"])
    for run, times in zip(runs, (1, 2, 6), strict=True):
        set_metrics(tmp_path, run, seconds={"total": 100.0 * times}, peak_memory_mb={"host": 100.0 * times})
        document = read_json(run.folder(tmp_path) / "hardware.json")
        document["run_energy"]["total"] |= {"gross_mj": 8e6 * times, "net_mj": 2e6 * times}
        write_json(run.folder(tmp_path) / "hardware.json", document)
    (shown,) = sections.training(tables.write_all(tmp_path, runs, tmp_path / "summary"))
    numbers = [text for column, text in zip(shown.columns, shown.rows[0], strict=True) if column.is_number]
    assert numbers == ["3", "1", f"{parameters(SIZES):,}", "300.0", "25,000", "300", "24,000.0", "6,000.0"]


def test_energy_above_idle_is_unknown_where_idle_was_not_measured(tmp_path):
    (run,) = make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"], seeds=[42])
    document = read_json(run.folder(tmp_path) / "hardware.json")
    document["run_energy"]["total"]["net_mj"] = None
    write_json(run.folder(tmp_path) / "hardware.json", document)
    frame = tables.training(files_of(tmp_path, [run]))
    row = frame.iloc[0]
    assert pd.isna(row["energy_net_mj"]) and row["energy_gross_mj"] > 0
    (shown,) = sections.training(tables.write_all(tmp_path, [run], tmp_path / "summary"))
    cells = dict(zip((column.header for column in shown.columns), shown.rows[0], strict=True))
    assert cells["net energy (J)"] == "–"


def test_backprop_has_its_own_phase_in_the_table_and_its_speed_in_the_page(tmp_path):
    (run,) = make_grid(tmp_path, hidden=[(50, 10)], recipes=["bp"], seeds=[42])
    seconds = {"import": 1.0, "load": 0.5, "backprop": 30.0, "validation": 2.0, "evaluation": 1.5}
    seconds |= {"write": 0.25, "idle": 10.0, "other": 0.75, "total": 46.0}
    set_metrics(tmp_path, run, seconds=seconds, samples_per_s={"backprop": 12_345.0})
    frame = tables.training(files_of(tmp_path, [run]))
    assert {part: frame[f"seconds_{part}"].item() for part in seconds} == seconds
    assert frame["seconds_representation"].isna().all()
    assert frame["samples_per_s_backprop"].item() == 12_345.0
    (shown,) = sections.training(tables.write_all(tmp_path, [run], tmp_path / "summary"))
    assert "12,345" in shown.rows[0]


def test_the_page_says_how_many_seeds_shared_a_cost(group):
    _, _, written = group
    (shown,) = sections.training(written)
    cells = dict(zip((column.header for column in shown.columns), shown.rows[0], strict=True))
    total = phases(SIZES)[-1][2]
    assert (cells["seeds"], cells["trained together"]) == ("3", "3")
    assert (cells["parameters"], cells["time (s)"]) == (f"{parameters(SIZES):,}", f"{total / 3:,.1f}")
    assert cells["peak memory (MB)"] == "812"
    (sentence,) = energy_sentences(written)
    gross = sum(BUSY_MW[name] * (end - start) for name, start, end in phases(SIZES)) / 1000
    assert f"a training run takes {gross / 3:,.0f} J gross" in sentence
    assert sentence.endswith("its equal part of what the 3 seeds trained together took.")
