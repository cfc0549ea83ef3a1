"""Every figure on made data: what is plotted, its units, its legend, its reasons, and its bytes."""

import functools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from made_runs import BATCHES, deployed_ms, latency_ms, make_grid, phases
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ff import statistics
from ff.errors import FFError
from ff.layout import TABLES, RunKey
from ff.summary import tables
from ff.summary.figures import CAPTIONS, FAMILIES, FIGURES, accuracy, build, energy, hardware, latency, save, style
from ff.summary.tables.accuracy import ACCURACY

UNITS = (
    "(%)",
    "(ms)",
    "(s)",
    "(J)",
    "(MB)",
    "(W)",
    "(samples)",
    "(samples/s)",
    "(count)",
    "(°C)",
    "(0 to 1)",
    "(10⁹)",
    "(% of full depth)",
)
NO_UNIT = (
    "class",
    "network (layers",
    "width W (units)",
    "epoch",
    "layers used",
    "power rail",
    "(no unit)",
    "activity)",
)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid") / "results"
    runs = make_grid(root, ["MNIST", "SVHN"], [(200, 200, 10), (500, 500, 10)])
    tables.write_all(root, runs, root / "summary")
    return root


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """One run on a machine without GPU and power sensor."""
    root = tmp_path_factory.mktemp("bare") / "results"
    runs = make_grid(root, ["MNIST"], [(50, 10)], ["ff"], [0], devices=("cpu",), power=False)
    tables.write_all(root, runs, root / "summary")
    return root


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    """A grid of which no run has finished."""
    root = tmp_path_factory.mktemp("nothing") / "results"
    tables.write_all(root, [RunKey("MNIST", "784-50-10", "ff", 0)], root / "summary")
    return root


@functools.cache
def drawn(name, root):
    """A figure, drawn once: most tests only look at it."""
    return build(name, root / "summary", root)


def words(figure: Figure) -> str:
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    extra = [text.get_text() for text in (figure._suptitle, figure._supxlabel) if text is not None]
    return " ".join(" ".join([*texts, *extra]).split())


def panels(figure: Figure) -> list:
    return [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_has_a_label_with_its_unit_and_the_note_states_n(grid, name):
    figure = drawn(name, grid)
    assert panels(figure)
    for ax in panels(figure):
        for label in (ax.get_xlabel(), ax.get_ylabel()):
            shared = not label and (ax.get_shared_x_axes() or ax.get_shared_y_axes())
            assert shared or any(unit in label for unit in (*UNITS, *NO_UNIT)), (name, label)
    note = figure._supxlabel.get_text()
    assert "n = " in note, name
    assert "interval" in note.lower() or "bands" in note or "percentile" in note or "seeds" in note, name


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_runs_out_of_the_figure(grid, name):
    figure = drawn(name, grid)
    with matplotlib.rc_context(style.RC):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
    width, height = figure.bbox.size
    labels = [ax.xaxis.label for ax in panels(figure)] + [ax.yaxis.label for ax in panels(figure)]
    labels += [ax._left_title for ax in panels(figure)] + [
        figure._suptitle,
        figure._supxlabel,
        *figure.legends,
    ]
    for label in labels:
        box = label.get_window_extent(renderer)
        inside = box.x0 >= -3 and box.y0 >= -3 and box.x1 <= width + 3 and box.y1 <= height + 3
        assert inside, (name, getattr(label, "get_text", lambda: "legend")())


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_data_says_why(nothing, name):
    figure = drawn(name, nothing)
    assert any(part in words(figure) for part in ("no ", "nothing "))


@pytest.mark.parametrize(
    "name", ["energy_rails", "energy_accuracy", "energy_heatmap", "power_heatmap", "hardware_trace"]
)
def test_rule_7_no_sensor_is_said_and_not_drawn_as_zero(bare, name):
    assert "no power sensor could be read on this machine" in words(drawn(name, bare))


@pytest.mark.parametrize("name", ["latency_violins", "throughput", "speedup", "latency_heatmap", "latency_histogram"])
def test_a_missing_device_gets_a_panel_with_its_reason(bare, name):
    assert "cuda: no CUDA device on this machine" in words(drawn(name, bare))


@pytest.mark.parametrize("name", ["accuracy", "confusion", "goodness_distributions", "throughput", "hardware_trace"])
def test_the_same_data_give_the_same_bytes(bare, tmp_path, name):
    first, second = (save(build(name, bare / "summary", bare), tmp_path / folder / name) for folder in "ab")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first[0].suffix == ".png" and first[1].suffix == ".svg"
    assert b"<dc:date>" not in first[1].read_bytes()


def test_the_catalogue_is_complete():
    families = ("scoreboard", "accuracy", "training", "distributions", "early_exit", "latency", "energy", "hardware")
    assert families == FAMILIES
    for spec in FIGURES.values():
        assert spec.caption.endswith(".") and spec.alt.endswith(".")
        assert set(spec.tables) <= set(TABLES)


def test_an_unknown_figure_is_named():
    with pytest.raises(FFError, match="no figure called 'acuracy'"):
        build("acuracy", ".", ".")


def test_drawing_leaves_the_users_settings_alone(bare, tmp_path):
    before = {name: matplotlib.rcParams[name] for name in style.RC}
    save(build("accuracy", bare / "summary", bare), tmp_path / "accuracy")
    assert before == {name: matplotlib.rcParams[name] for name in style.RC}


def test_recipes_differ_in_more_than_colour():
    looks = list(style.recipe_looks(["bp", "ff", "mine", "edgeff"]).items())
    assert [name for name, _ in looks] == ["ff", "mine", "edgeff", "bp"]
    for field in ("colour", "marker", "line"):
        assert len({str(getattr(look, field)) for _, look in looks}) == 4


def test_accuracy_shows_seeds_mean_and_interval(grid):
    figure = drawn("accuracy", grid)
    ax = next(ax for ax in figure.axes if ax.get_title(loc="left") == "MNIST")
    assert ax.get_ylabel() == "test accuracy (%)"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["200", "500"]
    assert ax.get_xlabel() == "width W (units) in the network input-W-W-10"
    seeds = [line for line in ax.lines if len(line.get_ydata()) == 3 and line.get_marker() == "o"]
    assert sorted(seeds[0].get_ydata()) == pytest.approx([97.7, 97.8, 97.9])
    means = [line for line in ax.lines if len(line.get_ydata()) == 1 and line.get_marker() == "o"]
    assert means[0].get_ydata()[0] == pytest.approx(97.8)
    interval = statistics.share_interval([0.977, 0.978, 0.979])
    bars = ax.containers[0].lines[2][0].get_segments()[0]
    assert bars[:, 1].tolist() == pytest.approx([100 * interval.low, 100 * interval.high])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["ff", "edgeff", "bp"]
    assert "n = 3 seeds" in words(figure) and "Wilson with Student t" in words(figure)


def test_one_seed_has_no_bar_over_seeds_but_a_line_over_images(bare):
    figure = drawn("accuracy", bare)
    assert not figure.axes[0].containers
    assert "one seed has no interval over seeds" in words(figure)
    assert "thin lines: 95 % interval over seeds and images (Wilson over images)" in words(figure)
    (line,) = figure.axes[0].collections[0].get_segments()
    assert line[:, 1].tolist() == pytest.approx([97.387, 97.976], abs=1e-3)


def test_confusion_counts_are_shares_of_the_true_class():
    rows = [("a", "a", 9), ("a", "b", 1), ("b", "b", 20), ("b", "a", 0)]
    frame = pd.DataFrame(rows, columns=["true", "predicted", "count"])
    frame = frame.assign(dataset="MNIST", layers="784-10", recipe="ff", seeds=1, readout="head")
    image = accuracy.confusion(frame).axes[0].images[0].get_array()
    assert image.tolist() == [[90.0, 10.0], [0.0, 100.0]]


def test_a_class_without_samples_leaves_its_row_empty():
    frame = pd.DataFrame([("a", "a", 5), ("a", "b", 0), ("b", "a", 0), ("b", "b", 0)])
    frame.columns = ["true", "predicted", "count"]
    frame = frame.assign(dataset="MNIST", layers="784-10", recipe="ff", seeds=1, readout="head")
    assert np.isnan(np.asarray(accuracy.confusion(frame).axes[0].images[0].get_array()[1], float)).all()


def test_goodness_gap_is_positive_minus_negative(grid):
    figure = drawn("goodness_gap", grid)
    line = figure.axes[0].lines[0]
    assert line.get_ydata()[-1] == pytest.approx((1 + 1.2 * (1 - 0.5**5)) - (1 - 0.5 * (1 - 0.5**5)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["layer 1", "layer 2", "layer 3"]


def test_early_exit_axes_are_per_cent_of_full_depth(grid):
    figure = drawn("early_exit", grid)
    assert [ax.get_xlabel() for ax in figure.axes[:3]] == [
        "MACs (% of full depth)",
        "time at batch 1 (% of full depth)",
        "time at batch 512 (% of full depth)",
    ]
    frame = tables.read_table(grid / "summary", "early_exit")
    cell = frame[(frame["dataset"] == "MNIST") & (frame["layers"] == "784-200-200-10") & (frame["recipe"] == "ff")]
    cell = cell[(cell["split"] == "test") & (cell["rule"] == "logit") & (cell["seed"] == 42)].sort_values("k")
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx(100 * (1 - cell["macs_saved_share_vs_full"].to_numpy()))
    assert figure.axes[2].lines[0].get_xdata() == pytest.approx(
        100 * (1 - cell["time_saved_share_vs_full_batch_512"].to_numpy())
    )


def test_early_exit_curves_have_the_network_cuts_beside_them(grid):
    figure = drawn("early_exit", grid)
    frame = tables.read_table(grid / "summary", "early_exit")
    cell = frame[(frame["dataset"] == "MNIST") & (frame["layers"] == "784-200-200-10") & (frame["recipe"] == "ff")]
    cuts = cell[(cell["split"] == "test") & (cell["rule"] == "static")].groupby("depth")
    columns = ["macs_saved_share_vs_full", "time_saved_share_vs_full_batch_1", "time_saved_share_vs_full_batch_512"]
    for ax, column in zip(figure.axes[:3], columns, strict=True):
        costs = 100 * (1 - cuts[column].median())
        squares = {tuple(line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "s"}
        expected = zip(costs, 100 * cuts["accuracy"].mean(), strict=True)
        assert sorted(squares) == [pytest.approx(place) for place in sorted(expected)]
        assert {text.get_text() for text in ax.texts} == {"1", "2", "3"}
        # The dashed line goes through the reference, the cut after layer 2 in these runs, and through it alone.
        dashed = [
            line for line in ax.lines if line.get_linestyle() == "--" and line.get_xdata()[0] == line.get_xdata()[1]
        ]
        assert [line.get_xdata()[0] for line in dashed] == [pytest.approx(costs[2])]
    assert "network cut after layer" in [text.get_text() for text in figure.legends[0].get_texts()]


PLACES = {
    "cpu (Made cpu), 1 thread": ("cpu", 1),
    "cpu (Made cpu), 4 threads": ("cpu", 4),
    "cuda (Made cuda)": ("cuda", 1),
}


def test_throughput_is_the_queued_one_of_each_place(grid):
    figure = drawn("throughput", grid)
    sizes = [784, 200, 200, 10]
    for ax, (title, (device, threads)) in zip(figure.axes, PLACES.items(), strict=False):
        assert ax.get_title(loc="left") == f"MNIST, {title}"
        line = ax.lines[0]
        assert line.get_xdata().tolist() == list(BATCHES)
        expected = [2 * 1000 * b / latency_ms(device, b, sizes, threads) for b in BATCHES]
        assert line.get_ydata() == pytest.approx(expected)
    assert figure.axes[0].get_ylabel() == "queued throughput (samples/s)"
    assert "handed over back to back" in words(figure)


def test_heat_maps_hold_the_known_latency_and_energy(grid):
    sizes = [784, 200, 200, 10]
    for name, factor in (("latency_heatmap", lambda b: 1), ("energy_heatmap", lambda b: 4 / b)):
        for ax, (title, (device, threads)) in zip(drawn(name, grid).axes, PLACES.items(), strict=False):
            assert ax.get_title(loc="left") == f"MNIST, {title}"
            values = ax.images[0].get_array()[0].tolist()
            assert values == pytest.approx([factor(b) * latency_ms(device, b, sizes, threads) for b in BATCHES])


def test_the_speed_up_says_how_many_cpu_threads_it_is_against(grid):
    sizes = [784, 200, 200, 10]
    figure = drawn("speedup", grid)
    titles = [ax.get_title(loc="left") for ax in panels(figure)]
    assert titles == [
        f"{dataset}, cuda against {text} of the CPU"
        for dataset in ("MNIST", "SVHN")
        for text in ("1 thread", "4 threads")
    ]
    for ax, threads in zip(figure.axes, (1, 4), strict=False):
        expected = [latency_ms("cpu", b, sizes, threads) / latency_ms("cuda", b, sizes) for b in BATCHES]
        assert ax.images[0].get_array()[0].tolist() == pytest.approx(expected)


def test_rule_8_each_place_has_its_own_panel(grid):
    titles = [ax.get_title(loc="left") for ax in panels(drawn("latency_violins", grid))]
    assert titles == [f"{place}, batch {b}" for b in (1, 512) for place in PLACES]


def test_a_measurement_of_the_cpu_alone_is_no_missing_measurement(tmp_path):
    """`ff measure --devices cpu`: no file of another device, not even one that says why there is none."""
    runs = make_grid(tmp_path, ["MNIST"], [(50, 10)], ["ff"], [0], devices=("cpu",), power=False)
    (runs[0].folder(tmp_path) / "variance" / "cuda.json").unlink()
    tables.write_all(tmp_path, runs, tmp_path / "summary")
    text = words(build("speedup", tmp_path / "summary", tmp_path))
    assert "nothing to compare: only cpu was measured" in text and "no run has been measured" not in text
    assert "no run has been measured" not in words(build("energy_heatmap", tmp_path / "summary", tmp_path))
    assert len(panels(build("throughput", tmp_path / "summary", tmp_path))) == 2


@pytest.mark.parametrize("name", ["speedup", "throughput", "latency_heatmap", "energy_heatmap", "latency_violins"])
def test_without_any_measurement_that_is_what_is_said(nothing, name):
    assert "no run has been measured yet" in words(drawn(name, nothing))


def test_violins_of_equal_values_are_drawn():
    frame = pd.DataFrame({"latency_ms": [1.0] * 20, "device": "cpu", "path": "deploy", "batch_size": 1})
    frame = frame.assign(dataset="MNIST", layers="784-10", recipe="ff", seed=1, threads=1)
    figure = latency.latency_violins(frame, pd.DataFrame(columns=["device", "available", "reason", "name"]))
    assert panels(figure)


def test_energy_bars_of_a_rail_add_up_to_its_energy(grid):
    figure = drawn("energy_rails", grid)
    marks = {name: end - start for name, start, end in phases([784, 200, 200, 10])}
    ax = figure.axes[0]
    heights = [bars.patches[0].get_height() for bars in ax.containers if hasattr(bars, "patches")]
    expected = [
        6 * marks["load"],
        9 * marks["representation"],
        7.5 * marks["softmax"],
        8 * marks["evaluation"],
    ]
    assert heights == pytest.approx(expected)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["VDD_IN", "VDD_CPU"]
    assert ax.get_ylabel() == "gross energy of a run (J)"


def energy_rows(seed, shared=0, **gross):
    base = {"dataset": "MNIST", "layers": "784-10", "recipe": "ff", "seed": seed, "job": "train", "is_total": 0}
    return [{**base, "rail": "VDD_IN", "phase": n, "gross_mj": mj, "shared": shared} for n, mj in gross.items()]


NONE_MISSING = pd.DataFrame(columns=["file", "reason"])


def test_a_run_with_a_phase_that_was_not_measured_is_not_in_the_bars():
    rows = energy_rows(1, load=1000.0, softmax=3000.0, **{"import": None}) + energy_rows(2, load=None, softmax=9000.0)
    figure = energy.rails(pd.DataFrame(rows), NONE_MISSING)
    heights = [bars.patches[0].get_height() for bars in figure.axes[0].containers if hasattr(bars, "patches")]
    assert heights == [1.0, 3.0], "the mean over seed 1 alone, in J, without the start of the program"
    nothing_whole = energy.rails(pd.DataFrame(energy_rows(2, load=None, softmax=9000.0)), NONE_MISSING)
    assert energy.NO_SENSOR in words(nothing_whole)


def test_energy_of_shared_devices_is_marked(grid):
    rows = energy_rows(1, load=1000.0) + energy_rows(2, shared=1, load=3000.0)
    figure = energy.rails(pd.DataFrame(rows), NONE_MISSING)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["VDD_IN*"]
    assert "* In 1 of 2 runs something else ran on the device" in words(figure)
    assert "something else ran" not in words(drawn("energy_rails", grid))
    training, accuracy = (tables.read_table(grid / "summary", name) for name in ("training", "accuracy"))
    training.loc[training.index[0], "shared"] = 1
    figure = energy.energy_accuracy(training, accuracy, NONE_MISSING)
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in crosses) == 1
    assert "Crosses: In 1 of" in words(figure)


def test_trace_shows_watts_from_time_zero_and_shades_the_phases(grid):
    figure = drawn("hardware_trace", grid)
    power = figure.axes[0]
    assert power.get_ylabel() == "power (W)"
    assert power.lines[0].get_xdata()[0] == 0.0
    assert max(power.lines[0].get_ydata()) == 9.0
    spans = [patch for patch in power.patches if patch.get_alpha() == 0.13]
    assert len(spans) == 4
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "load 0.5 s" and len(labels) == 4


def test_a_long_trace_is_thinned_by_means():
    n = 4 * hardware.MOST_POINTS
    samples = pd.DataFrame({"monotonic_s": np.arange(n) * 1.0, "power_mw.VDD_IN": np.tile([1000.0, 3000.0], n // 2)})
    figure = hardware.trace(samples, pd.DataFrame(columns=["phase", "start_monotonic_s", "end_monotonic_s"]), "a job")
    values = figure.axes[0].lines[0].get_ydata()
    assert len(values) == hardware.MOST_POINTS
    assert set(values) == {2.0}
    assert "mean of 4 readings" in words(figure) and "no phase marks" in words(figure)


def test_networks_get_short_labels_in_order_of_size():
    nets = style.networks(["784-1000-10", "3072-200-10", "784-200-10"])
    assert nets.order == ["200", "1000"]
    assert nets.label["3072-200-10"] == nets.label["784-200-10"] == "200"
    nets = style.networks(["784-200-200-10", "784-1000-1000-1000"])
    assert nets.order == ["200-200-10", "1000-1000-1000"]
    assert style.networks(["784-10"]).order == ["10"]


def test_rule_13_the_shown_network_is_best_on_validation(tmp_path):
    from ff.summary.figures.frames import best_cells

    rows = []
    for layers, val, test in (("784-10", 0.9, 0.99), ("784-20", 0.95, 0.5)):
        for split, value in (("val", val), ("test", test)):
            rows.append(("MNIST", layers, "ff", 1, split, "head", 1, 1, 10, value, None, None, None, value, 1 - value))
    tables.write_table(pd.DataFrame(rows, columns=list(ACCURACY)), tmp_path / "accuracy.csv")
    assert best_cells(tmp_path) == [[RunKey("MNIST", "784-20", "ff", 1)]]


def test_full_grid_draws_every_figure(tmp_path):
    widths = [(width, 10) for width in (100, 500, 1000, 2000, 3000, 4000, 5000)]
    datasets = ["MNIST", "FMNIST", "SVHN", "CIFAR10"]
    runs = make_grid(tmp_path, datasets, widths, ["ff"], [42], repeats=6)
    tables.write_all(tmp_path, runs, tmp_path / "summary")
    for name in FIGURES:
        figure = drawn(name, tmp_path)
        assert figure.get_figwidth() <= 14 and figure.get_figheight() <= 16, name


def test_each_figure_has_a_caption_and_each_caption_its_figure():
    assert {path.stem for path in CAPTIONS.glob("*.rst")} == set(FIGURES)
    assert FIGURES["latency_histogram"].caption.startswith("Measured latency of single samples (batch 1), with median,")


def test_time_is_drawn_for_each_runtime_and_number_of_threads(grid):
    figure = drawn("runtimes", grid)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["torch", "onnxruntime", "onnxruntime-int8"]
    titles = [ax.get_title(loc="left") for ax in figure.axes[:3]]
    assert [title.split(", ")[-2:] for title in titles] == [
        ["cpu", "1 thread"],
        ["cpu", "4 threads"],
        ["cuda", "1 thread"],
    ]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == [str(batch) for batch in BATCHES]
    for ax, threads in zip(figure.axes[:2], (1, 4), strict=True):
        lines = [container.lines[0].get_data() for container in ax.containers]
        for (batches, times), share in zip(lines, (1, 0.5, 0.25), strict=True):
            sizes = (784, 200, 200, 10)
            expected = [share * (latency_ms("cpu", int(b), sizes, threads) + 0.05) / b for b in batches]
            assert list(times) == pytest.approx(expected)


def test_deployed_networks_are_drawn_by_runtime_with_their_exit(grid):
    figure = drawn("deployed", grid)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["torch", "onnxruntime", "onnxruntime-int8", "early exit"]
    for ax, size in zip(figure.axes[:2], (1, 512), strict=True):
        assert ax.get_title(loc="left").endswith(f"batch {size}")
        hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
        times = sorted(float(line.get_xdata()[0]) for line in hollow)
        runtimes = ("onnxruntime-int8", "onnxruntime", "torch")
        assert times == pytest.approx([deployed_ms(runtime, 1.25, size) for runtime in runtimes])
        assert len(ax.get_xticks()) >= 2
