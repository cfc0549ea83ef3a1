"""A grid of many networks: what page and figures show of it, and that what they leave out is said and is in a file."""

import re
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from browser import Browser, chromium
from made_runs import BATCHES, make_grid, make_run
from matplotlib.text import Text

from ff.files import read_json
from ff.layout import TABLES, RunKey
from ff.summary import report, tables
from ff.summary.figures import FIGURES, build, save, style
from ff.summary.report import images, origin
from ff.summary.report.blocks import MOST_ROWS
from ff.summary.tables import run_files
from ff.summary.tables.rows import KEYS
from ff.summary.tables.run_files import files_of

NETWORKS = 70
LIMIT = 5_000_000


def many(summary: Path, out: Path, networks: int = NETWORKS) -> Path:
    """The tables of one network, written as those of many: each row once for each; the last is best on validation."""
    names = [f"784-{10 + 10 * number}-10" for number in range(networks)]
    for name in TABLES:
        frame = tables.read_table(summary, name)
        if "layers" in frame:
            frame = pd.concat([frame.assign(layers=layers) for layers in names], ignore_index=True)
        if name == "accuracy_summary":
            frame.loc[frame["layers"] == names[-1], "mean"] += 0.001
        tables.write_table(frame, out / f"{name}.csv")
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Results of two data sets with the tables of many networks, but the run folders of one."""
    root = tmp_path_factory.mktemp("many") / "results"
    runs = make_grid(root, ["MNIST", "SVHN"], [(50, 10)], ["ff", "bp"], [42, 123], repeats=4)
    tables.write_all(root, runs, root / "one")
    many(root / "one", root / "summary")
    return root


@pytest.fixture(scope="module")
def page(root):
    """The page without figures."""
    return report.write_report(root, root / "summary", root / "figures", root / "report.html").read_text()


def drawn_words(figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


def shown_tables(page: str) -> dict[str, tuple[list[list[str]], str]]:
    """Rows and note of each table of the page, by caption."""
    found = {}
    for caption, body, note in re.findall(
        r"<caption>(.*?)</caption>.*?<tbody>(.*?)</tbody>.*?class='note'>(.*?)</p>", page, re.S
    ):
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in body.split("</tr>")]
        found[caption] = ([row for row in rows if row], " ".join(note.split()))
    return found


def test_a_table_shows_so_many_rows_as_can_be_read_and_says_where_all_are(page, root):
    cut, whole = set(), set()
    for caption, (rows, note) in shown_tables(page).items():
        assert len(rows) <= MOST_ROWS
        said = re.search(
            r"<b>([\d,]+) of ([\d,]+) rows are shown: (.*?)\.</b> Nothing is left out of <a href='(.*?)'>", note
        )
        if said is None:
            whole.add(caption)
            continue
        cut.add(caption)
        assert int(said[1].replace(",", "")) == len(rows) < int(said[2].replace(",", ""))
        assert (root / said[4]).is_file()
        assert said[3] == "those that are best on validation, and others spread evenly"
    assert {"Test accuracy at full depth", "Inference time", "Network cuts", "Energy of inference"} <= cut
    assert "Cost of training" in whole and len(shown_tables(page)["Cost of training"][0]) == 2 * 2 * NETWORKS


def test_the_best_network_is_shown_with_all_its_rows_and_so_are_the_smallest_and_the_largest(page, root):
    found = shown_tables(page)
    best, smallest, largest = f"784-{10 * NETWORKS}-10", "784-10-10", f"784-{10 * (NETWORKS - 1)}-10"
    for caption, each, of_control in (
        ("Test accuracy at full depth", 2, 1),
        ("Inference time", 12, 12),
        ("Network cuts", 2, 2),
    ):
        rows, _ = found[caption]
        for dataset in ("MNIST", "SVHN"):
            of_ff = [row[1] for row in rows if (row[0], row[2]) == (dataset, "ff")]
            assert of_ff.count(best) == each
            assert all(of_ff.count(layers) == each for layers in set(of_ff))
            of_bp = [row[1] for row in rows if (row[0], row[2]) == (dataset, "bp")]
            assert all(of_bp.count(layers) == of_control for layers in set(of_bp))
        assert smallest in {row[1] for row in rows}
        assert {row[1] for row in rows} & {largest, best}
        sizes = sorted({int(row[1].split("-")[1]) for row in rows})
        # Evenly over all sizes: no gap is twice as wide as it must be.
        assert max(b - a for a, b in pairwise(sizes)) <= 2 * 10 * NETWORKS / len(sizes) + 10
    assert any(best in sentence for sentence in re.findall(r"<li>(.*?)</li>", page))


def test_a_grid_of_usual_size_is_shown_whole(root, tmp_path):
    text = report.write_report(root, root / "one", root / "figures", tmp_path / "report.html").read_text()
    assert "rows are shown" not in text
    read = tables.read_table(root / "one", "latency")
    rows, _ = shown_tables(text)["Inference time"]
    assert len(rows) == len(read[read["batch_size"].isin((min(BATCHES), max(BATCHES)))]) / 2


def test_of_many_reasons_those_of_most_runs_are_shown(tmp_path):
    frame = pd.DataFrame(
        [("MNIST", "784-10-10", "ff", seed, "evaluation.json", f"reason {min(seed, 600)}") for seed in range(700)],
        columns=[*KEYS, "file", "reason"],
    )
    [block] = origin.missing(frame)
    assert len(block.rows) == MOST_ROWS and block.rows[0][1:3] == ["reason 600", "100"]
    assert block.left_out == f"{MOST_ROWS} of 601 rows are shown: those of most runs." and block.file == "missing"


def test_of_many_warnings_and_commits_some_are_named_and_the_others_counted(tmp_path):
    runs = pd.DataFrame({"finished": 1, "git_dirty": 0, "git_commit": [f"commit{n}" for n in range(30)]})
    runs = runs.assign(
        started_at="2026", warnings=[f"warning {n}" for n in range(30)], dataset="MNIST", layers="784-10"
    )
    facts, *_ = origin.provenance(runs.assign(recipe="ff", seed=range(30)), tmp_path, "today")
    said = [text for name, text in facts.pairs if name == "warning"]
    assert len(said) == 20 and ("warnings", "10 more are in runs.csv") in facts.pairs
    assert dict(facts.pairs)["git commit"].endswith("commit5 (1 run) and 24 more")


@pytest.mark.parametrize(
    "name", ["latency_heatmap", "power_heatmap", "throughput", "goodness_gap", "early_exit", "energy_rails"]
)
def test_a_figure_draws_as_many_networks_as_have_room_and_says_where_the_others_are(root, name):
    said = drawn_words(build(name, root / "summary", root))
    left, all_of_them, table = re.search(
        r"Not drawn for room: (\d+) of (\d+) networks, .*?; (\w+)\.csv has", said
    ).groups()
    assert int(all_of_them) == NETWORKS and table in TABLES
    shown = {str(10 + 10 * number) for number in range(NETWORKS)} & set(re.findall(r"(?<![\d.])\d+(?![\d.])", said))
    assert NETWORKS - int(left) <= 24 and len(shown) >= NETWORKS - int(left)
    assert {"10", str(10 * NETWORKS)} <= shown


@pytest.mark.parametrize("name", ["accuracy", "energy_accuracy"])
def test_accuracies_are_drawn_of_all_networks_without_single_seeds(root, name):
    figure = build(name, root / "summary", root)
    ax = next(ax for ax in figure.axes if ax.get_title(loc="left") == "MNIST")
    marks = sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "o")
    assert marks == NETWORKS
    assert re.search(r"single seeds are in (accuracy|training)\.csv", drawn_words(figure))
    assert figure.get_figwidth() <= 14


def test_a_category_axis_names_some_of_many_categories_at_their_places(root):
    figure = build("accuracy", root / "summary", root)
    ax = next(ax for ax in figure.axes if ax.get_title(loc="left") == "MNIST")
    named = {text.get_text(): place for text, place in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)}
    assert len(named) == style.MOST_LABELS
    assert all(int(label) == 10 + 10 * place for label, place in named.items())


def test_raw_samples_of_many_networks_are_read_of_some(tmp_path):
    runs = [RunKey("MNIST", f"784-{10 + 10 * number}-10", "ff", 42) for number in range(21)]
    for run in runs:
        make_run(tmp_path, run, repeats=4, devices=["cpu"], hardware=False, evaluation=False, early_exit=False)
    tables.write_all(tmp_path, runs, tmp_path / "summary")
    for name, drawn in (("latency_violins", 12), ("latency_histogram", 4)):
        said = drawn_words(build(name, tmp_path / "summary", tmp_path))
        assert f"Not drawn for room: {21 - drawn} of 21 networks, spread over all sizes; latency.csv has them." in said


def test_tables_of_many_runs_are_those_of_each_run_below_each_other(tmp_path, monkeypatch):
    """However many are read at once: runs of other depths have other columns, and some files are damaged or old."""
    runs = make_grid(tmp_path, ["MNIST"], [(50, 10), (20, 20, 10)], ["ff", "bp"], [42, 123], repeats=4)
    broken, stale, cut = (run.folder(tmp_path) for run in runs[1:4])
    whole = (broken / "early_exit.csv").read_text()
    (broken / "early_exit.csv").write_text(f"{whole.rstrip()},one,too many\n")
    text = (stale / "history.csv").read_text().splitlines()
    (stale / "history.csv").write_text("\n".join([text[0], *("other" + line[16:] for line in text[1:])]))
    (cut / "history.csv").write_text((cut / "history.csv").read_text()[:-40])
    together = tables.write_all(tmp_path, runs, tmp_path / "together")
    monkeypatch.setattr(tables, "RUNS_AT_ONCE", 1)
    tables.write_all(tmp_path, runs, tmp_path / "alone")
    for name in TABLES:
        assert (tmp_path / f"together/{name}.csv").read_bytes() == (tmp_path / f"alone/{name}.csv").read_bytes(), name
    assert [RunKey(*key) for key in together["early_exit"][list(KEYS)].drop_duplicates().itertuples(index=False)] == [
        run for run in runs if run != runs[1]
    ]
    assert runs[2] not in {RunKey(*key) for key in together["history"][list(KEYS)].itertuples(index=False)}


def test_a_csv_file_stacked_with_others_holds_what_its_run_wrote(tmp_path):
    runs = make_grid(tmp_path, ["MNIST"], [(50, 10), (20, 20, 10)], ["ff"], [42, 123], variance=False, hardware=False)
    stacked = tables.early_exit(files_of(tmp_path, runs))
    for run in runs:
        own = pd.read_csv(run.folder(tmp_path) / "early_exit.csv").drop(columns="model")
        rows = stacked[(stacked["layers"] == run.layers) & (stacked["seed"] == run.seed)].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows[list(own.columns)], own, check_dtype=False)


def test_a_table_is_written_as_pandas_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 3)
    values = {
        "number": [0.1 + 0.2, None, 1e-300, 5.0, float("nan"), 1e22, -0.0],
        "flag": pd.array([1, None, 0, 1, None, 0, 1], dtype="Int64"),
        "whole": range(7),
        "text": ['a "quoted", text', None, "two\nlines", "", "é", "1", "x"],
        "mixed": [1, 2.5, None, "text", True, None, 3],
        "nothing": [None] * 7,
        "truth": [True, False] * 3 + [True],
    }
    for frame in (pd.DataFrame(values), pd.DataFrame(values).iloc[:0]):
        tables.write_table(frame, tmp_path / "table.csv")
        text = (tmp_path / "table.csv").read_text(encoding="utf-8")
        assert text == frame.to_csv(index=False, lineterminator="\n")


def test_each_file_of_a_run_is_parsed_once(tmp_path, monkeypatch):
    [run] = make_grid(tmp_path, ["MNIST"], [(50, 10)], ["ff"], [42], repeats=4)
    parsed = []
    monkeypatch.setattr(run_files, "read_json", lambda path: parsed.append(path) or read_json(path))
    tables.write_all(tmp_path, [run], tmp_path / "summary")
    assert parsed and len(parsed) == len(set(parsed))


# -- images ----


def test_a_compact_svg_says_the_same_in_fewer_bytes(root, tmp_path):
    _, path = save(build("goodness_gap", root / "one", root), tmp_path / "goodness_gap")
    text = path.read_text()
    small = images.compact(text)
    assert len(small) < 0.8 * len(text)
    for what in ("<use", "<path", "<clipPath", "scale(0.015625)"):
        assert small.count(what) == text.count(what) > 0, what
    # Whatever is referred to is there, once.
    names = re.findall(r' id="([^"]*)"', small)
    assert len(names) == len(set(names)) and set(re.findall(r'(?:href="|url\()#([\w-]+)', small)) == set(names)
    before, after = (
        [float(x) for d in re.findall(r' d="([^"]*)"', svg) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", d)]
        for svg in (text, small)
    )
    assert after == pytest.approx(before, abs=0.0051)


def test_a_large_svg_is_shown_by_the_pixels_of_its_png(root, tmp_path, monkeypatch):
    import base64
    import io

    from PIL import Image, ImageChops

    png, _ = save(build("goodness_gap", root / "one", root), tmp_path / "goodness_gap")
    assert images.image(tmp_path / "goodness_gap").uri.startswith("data:image/svg+xml,")
    monkeypatch.setattr(images, "LARGEST_SVG", 1000)
    shown = images.image(tmp_path / "goodness_gap")
    kind, data = shown.uri.split(",")
    assert kind == "data:image/webp;base64" and len(data) < png.stat().st_size
    pixels, original = Image.open(io.BytesIO(base64.b64decode(data))), Image.open(png)
    assert ImageChops.difference(pixels.convert("RGB"), original.convert("RGB")).getbbox() is None
    assert shown.width_px == round(original.width / 1.5)


@pytest.mark.slow
def test_the_page_of_many_networks_is_small_and_renders(root, tmp_path):
    """Four data sets of many networks, every figure: no figure and no table may grow with the grid."""
    made = tmp_path / "results"
    runs = make_grid(made, ["MNIST", "FMNIST", "SVHN", "CIFAR10"], [(50, 50, 10)], ["ff", "bp"], [42, 123])
    tables.write_all(made, runs, made / "one")
    many(made / "one", made / "summary")
    for name in FIGURES:
        figure = build(name, made / "summary", made)
        assert figure.get_figwidth() <= 14.5 and figure.get_figheight() <= 17, name
        save(figure, made / "figures" / name)
    written = report.write_report(made, made / "summary", made / "figures", made / "report.html")
    assert written.stat().st_size < LIMIT
    if chromium() is None:
        return
    with Browser(tmp_path / "profile") as browser:
        browser.open(written, 1280)
        loaded = "[...document.images].filter(i => i.complete && i.naturalWidth > 0).length"
        assert browser.evaluate(loaded) == len(FIGURES)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 1280
        assert browser.errors == []
