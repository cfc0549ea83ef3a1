"""The report: its sentences, its safety as a page, and how it looks to a real browser."""

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from browser import Browser, chromium
from made_runs import latency_ms, make_grid

from ff.errors import FFError
from ff.files import read_json, write_json
from ff.layout import TABLES, RunKey
from ff.provenance import PACKAGE, Sources
from ff.summary import report, tables
from ff.summary.figures import FIGURES, build, save
from ff.summary.report import sections, sentences
from ff.summary.tables.accuracy import RECIPES

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A finished grid with one run missing; the page asks a question that tries to break out of the HTML."""
    root = tmp_path_factory.mktemp("report") / "results"
    runs = make_grid(root, ["MNIST"], [(200, 200, 10)])
    tables.write_all(root, [*runs, RunKey("MNIST", "784-200-200-10", "ff", 9)], root / "summary")
    for name in FIGURES:
        save(build(name, root / "summary", root), root / "figures" / name)
    question = "Is FF < backprop & why?\n<script>alert('x')</script>"
    report.write_report(root, root / "summary", root / "figures", root / "report.html", question)
    return root


class Outline(HTMLParser):
    """Tags in order, attributes by tag, and whether every element that was opened is closed in turn."""

    VOID = ("meta", "img", "link", "br", "hr")

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.wrong = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def test_the_page_is_well_formed_and_loads_nothing_from_anywhere(written):
    text = (written / "report.html").read_text()
    outline = Outline(text)
    assert not outline.wrong and not outline.open
    assert not outline.all("script") and not outline.all("iframe")
    for tag, attrs in outline.found:
        for key in ("src", "href"):
            # Links lead to files of the results folder and are not followed by themselves.
            beside = tag == "a" and (written / attrs.get(key, "")).is_file()
            assert beside or attrs.get(key, "#").startswith(("data:", "#"))
        assert not [key for key in attrs if key.startswith("on")]
    assert "url(" not in text and "@import" not in text
    policy = next(attrs["content"] for attrs in outline.all("meta") if "http-equiv" in attrs)
    assert "default-src 'none'" in policy
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text


def test_every_figure_has_its_picture_alternative_text_and_caption(written):
    text = (written / "report.html").read_text()
    outline = Outline(text)
    assert len(outline.all("img")) == len(outline.all("figure")) == len(FIGURES)
    assert [attrs["alt"] for attrs in outline.all("img")] == [
        spec.alt for family in sections.FAMILIES for spec in FIGURES.values() if spec.family == family
    ]
    for name, spec in FIGURES.items():
        assert f"id='figure-{name}'" in text
        assert spec.title in text
    anchors = {attrs["href"] for attrs in outline.all("a") if not attrs["href"].endswith("/metrics.json")}
    assert anchors <= {f"#{attrs['id']}" for _, attrs in outline.found if "id" in attrs}


def test_the_scoreboard_comes_first_and_leads_from_each_row_to_its_runs(written):
    text = (written / "report.html").read_text()
    outline = Outline(text)
    sections_of_page = [attrs["id"] for attrs in outline.all("section")]
    assert sections_of_page[:2] == ["scoreboard", "results"]
    assert [attrs["href"] for attrs in outline.all("a")][:2] == ["#scoreboard", "#results"]
    section = text.split("<section id='scoreboard'>")[1].split("</section>")[0]
    assert "id='figure-scoreboard'" in section
    [ff] = [row for row in section.split("<tr>") if "<td>ff</td>" in row]
    # Accuracy and its interval, the difference to bp, MACs of an epoch, seconds, MB and joules of the made runs.
    for number in ("97.80", "97.54 to 98.04", "<td>bp</td>", f"{MINUS}0.20", "29.8", "199", "29.0", "812", "268.4"):
        assert number in ff
    found = Outline(ff).all("a")
    assert [(written / attrs["href"]).resolve() for attrs in found] == [
        written / f"MNIST/784-200-200-10/ff/seed{seed}/metrics.json" for seed in (42, 123, 456)
    ]
    assert ff.count(">42</a>") == ff.count(">123</a>") == ff.count(">456</a>") == 1


def test_the_page_names_machine_commit_packages_date_and_what_is_missing(written):
    text = (written / "report.html").read_text()
    for part in (
        "Made Processor 9000",
        "0123456789abcdef",
        "torch: 2.13.0",
        "2026-01-02T03:04:05",
        "page written",
    ):
        assert part in text
    assert "MNIST/784-200-200-10/ff/seed9" in text
    assert "not trained: the job was killed, was not started or is still running" in text


def test_result_sentences_carry_their_numbers_and_intervals(written):
    found = {name: tables.read_table(written / "summary", name) for name in TABLES}
    said = sentences.key_results(found)
    assert said[0].startswith("9 of 10 expected runs finished; the section Missing")
    assert (
        "MNIST: the Forward-Forward network that is best on validation, 784-200-200-10 with recipe ff, "
        f"reaches a test accuracy of 97.80{NBSP}% (95 % interval 97.54{NBSP}% to 98.04{NBSP}%, Wilson with Student t, "
        f"3 seeds; over seeds and test images 97.39{NBSP}% to 98.15{NBSP}%, 10,000 images)."
    ) in said
    paired = next(sentence for sentence in said if "above edgeff" in sentence)
    assert "recipe ff is 5.28 points above edgeff on test (paired over seeds; 95 % interval +5.21 to +5.36" in paired
    assert any("ff is 0.20 points below bp" in sentence for sentence in said)
    early = next(sentence for sentence in said if "early exit" in sentence)
    # The made cut after layer 2 costs hardly less than full depth and the rule a tenth of it less.
    against_cut, against_full = early.split("; against full depth it ")
    assert "saves MACs over a network cut after layer 2, the cheapest that is as accurate on validation" in against_cut
    assert "changes test accuracy by +0.02 points" in against_cut
    assert f"changes test accuracy by {MINUS}0.03 points" in against_full
    assert against_cut.count("% of the MACs") == against_full.count("% of the MACs") == 1
    assert early.count("of the measured time at batch 512") == 2
    for threads, name in ((1, "1 thread"), (4, "4 threads")):
        size = max(
            latency_ms("cpu", 512, sizes, threads) / latency_ms("cuda", 512, sizes)
            for sizes in {tuple(map(int, layers.split("-"))) for layers in found["latency"]["layers"]}
        )
        [fastest] = [text for text in said if f"speed-up of cuda over {name} of the CPU is" in text]
        assert f"is {size:.1f} times" in fastest
        assert any(f"The GPU is faster than {name} of the CPU for certain" in text for text in said)
    rates = found["latency"]
    rates = rates[rates["path"] == "deploy"]
    for kind, how in (("queued", "batches queued"), ("synchronised", "each batch waited for")):
        best = f"with {how} is {rates[f'throughput_{kind}_per_s'].max():,.0f} samples/s on cuda"
        assert any(best in text for text in said)
    assert any("a training run takes" in sentence and "J gross" in sentence for sentence in said)


def exit_sentence(macs: list[float], times: list[float], depths: list[int]) -> str:
    """The report's sentence on early exit of MNIST, 784-50-50-10, from savings against the cut by seed."""
    summary = pd.DataFrame(
        [("MNIST", "784-50-50-10", "ff", "val", "head", 3, 0.9)],
        columns=["dataset", "layers", "recipe", "split", "readout", "n_seeds", "mean"],
    )
    frame = pd.DataFrame({"macs_saved_share_vs_cut": macs, "cut_depth": depths})
    frame = frame.assign(dataset="MNIST", layers="784-50-50-10", recipe="ff", macs_saved_share_vs_full=0.4)
    for batch in (1, 32, 512):
        frame[f"time_saved_share_vs_cut_batch_{batch}"] = times
        frame[f"time_saved_share_vs_full_batch_{batch}"] = 0.3
    frame = frame.assign(change_points_vs_cut=0.01, change_points_vs_full=-0.05)
    (sentence,) = sentences.early_exit_sentences({"operating_points": frame, "accuracy_summary": summary})
    return sentence


def test_early_exit_that_only_equals_a_cut_network_is_said_to_save_nothing():
    sentence = exit_sentence([-0.001, -0.001, -0.002], [-0.1, -0.1, -0.2], [1, 1, 1])
    assert sentence.startswith(
        "MNIST, 784-50-50-10, ff: a network cut after layer 1 is as accurate on validation and costs less: "
        "early exit saves nothing here. Against that cut it takes "
    )
    # What it saves against full depth is told after it, never alone.
    cut, full = sentence.split("; against full depth it ")
    assert f"takes 0.13{NBSP}% more MACs" in cut and f"takes 13.33{NBSP}% more measured time at batch 512" in cut
    assert f"saves 40.00{NBSP}% of the MACs" in full and f"saves 30.00{NBSP}% of the measured time" in full


def test_early_exit_against_cuts_that_differ_by_seed_stays_true():
    mixed = exit_sentence([0.2, -0.01, 0.2], [0.1, -0.1, 0.1], [2, 1, 2])
    assert "saves MACs over a network cut after layer 1 (1 seed), after layer 2 (2 seeds), the cheapest that" in mixed
    assert "(2 of 3 seeds save MACs)" in mixed and "saves nothing" not in mixed
    lost = exit_sentence([0.01, -0.2, -0.2], [-0.1, -0.1, -0.1], [2, 1, 1])
    assert "early exit saves nothing here on average (1 of 3 seeds save MACs). Against" in lost
    # Where no cut is as accurate, the reference is full depth, and called so.
    assert "a network cut after layer 3 (full depth), the cheapest" in exit_sentence([0.1] * 3, [0.1] * 3, [3] * 3)
    assert "layer 1 (1 seed), after layer 3 (full depth, 2 seeds)" in exit_sentence([0.1] * 3, [0.1] * 3, [3, 1, 3])


def test_early_exit_tables_show_savings_against_the_cut_and_every_cut(written):
    found = {name: tables.read_table(written / "summary", name) for name in TABLES}
    page = (written / "report.html").read_text()
    for caption in ("Early exit against a network cut", "Early exit against full depth", "Network cuts"):
        assert caption in page
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    points = found["operating_points"][found["operating_points"]["recipe"] == "ff"]
    for base in ("cut", "full"):
        saved = [f"{100 * points['macs_saved_share_vs_' + base].mean():.2f}"]
        saved += [f"{100 * points[f'time_saved_share_vs_{base}_batch_{batch}'].mean():.1f}" for batch in (1, 32, 512)]
        assert re.search(f" {saved[0]} .{{0,30}}{' '.join(saved[1:])} ", text), (base, saved)
    cuts = found["early_exit"]
    cuts = cuts[(cuts["rule"] == "static") & (cuts["recipe"] == "ff") & (cuts["split"] == "test")]
    for depth, part in cuts.groupby("depth"):
        cost = f"{100 * (1 - part['macs_saved_share_vs_full'].mean()):.1f}"
        times = [f"{100 * (1 - part[f'time_saved_share_vs_full_batch_{batch}'].mean()):.1f}" for batch in (1, 32, 512)]
        reference = 3 if depth == 2 else 0
        assert f" {reference} {cost} {' '.join(times)} " in text, depth


def test_deployed_networks_are_shown_with_each_runtime_and_what_was_not_there(written):
    page = (written / "report.html").read_text()
    assert "Early exit as it is deployed" in page
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    # At batch 1 in int8: 1.25 of 2 layers, 1.25 of 3; the cut itself.
    assert re.search(r"onnxruntime-int8 1 leaves early [\d.]+ 0\.0312 62 42 3 ", text)
    assert re.search(r"onnxruntime-int8 1 2 [\d.]+ 0\.05 100 67 3 ", text)
    assert "tensorrt computes on cuda only" in text


def test_a_difference_whose_interval_holds_zero_is_called_unclear():
    summary = pd.DataFrame(
        [("MNIST", "784-10", "ff", "val", "head", 3, 0.9)],
        columns=["dataset", "layers", "recipe", "split", "readout", "n_seeds", "mean"],
    )
    row = ("MNIST", "784-10", "head", "ff", "bp", 3, 0.1, -0.2, 0.4, "Student t", 0)
    frame = pd.DataFrame([row], columns=list(RECIPES))
    (sentence,) = sentences.recipe_sentences({"recipes": frame, "accuracy_summary": summary})
    assert sentence.endswith("The interval holds 0: the difference is not clear.")
    assert f"95 % interval {MINUS}0.20 to +0.40" in sentence


def test_rule_13_best_is_best_on_validation_not_on_test():
    rows = [
        ("MNIST", "784-10", "ff", "val", "head", 0.90),
        ("MNIST", "784-10", "ff", "test", "head", 0.99),
        ("MNIST", "784-20", "ff", "val", "head", 0.95),
        ("MNIST", "784-20", "ff", "test", "head", 0.50),
        ("MNIST", "784-20", "bp", "val", "head", 0.99),
    ]
    frame = pd.DataFrame(rows, columns=["dataset", "layers", "recipe", "split", "readout", "mean"])
    best = sentences.best_on_validation(frame, "MNIST")
    assert (best["layers"], best["recipe"]) == ("784-20", "ff")


def test_nothing_finished_still_gives_a_page_that_says_so(tmp_path):
    run = RunKey("MNIST", "784-50-10", "ff", 1)
    tables.write_all(tmp_path, [run], tmp_path / "summary")
    page = report.write_report(tmp_path, tmp_path / "summary", tmp_path / "figures", tmp_path / "report.html")
    text = page.read_text()
    assert "0 of 1 expected run finished" in text
    assert text.count("This figure was not made.") == len(FIGURES)
    assert "No run has finished." in text
    assert not Outline(text).wrong


def test_one_run_without_sensor_or_gpu_says_what_is_not_known(tmp_path):
    make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"], seeds=[42], devices=("cpu",), power=False)
    page = report.write_everything(tmp_path)
    text = page.read_text()
    assert page == tmp_path / "report.html"
    assert (f"97.70{NBSP}% (1 seed, no interval; over test images 97.39{NBSP}% to 97.98{NBSP}%, 10,000 images)") in text
    assert "Nothing was measured on cuda: no CUDA device on this machine." in text
    assert "No energy was measured" in text
    assert not re.search(r"\bnan\b|\bNone\b", re.sub(r"data:[^']*", "", text))


def test_energy_has_an_interval_and_says_who_shared_the_device(tmp_path):
    (run,) = make_grid(tmp_path, hidden=[(50, 10)], recipes=["ff"], seeds=[42], variance=False)
    path = run.folder(tmp_path) / "hardware.json"

    def page():
        tables.write_all(tmp_path, [run], tmp_path / "summary")
        report.write_report(tmp_path, tmp_path / "summary", tmp_path / "figures", tmp_path / "report.html")
        return (tmp_path / "report.html").read_text()

    total = read_json(path)["run_energy"]["total"]
    joules = {name: f"{value / 1000:,.0f}" for name, value in total.items() if name.endswith("_mj")}
    said = (
        f"a training run takes {joules['gross_mj']} J gross (95 % interval {joules['gross_low_mj']} to "
        f"{joules['gross_high_mj']}, Student t over the parts of the run, 1 seed), {joules['net_mj']} J above idle "
        f"(95 % interval {joules['net_low_mj']} to {joules['net_high_mj']}, Student t over the parts of the run, "
        "1 seed)."
    )
    text = page()
    assert said in text
    assert "something else ran" not in text
    assert "<td>0 of 1 runs</td>" in text
    document = read_json(path)
    document["run_energy"]["total"] |= {"shared": True, "net_mj": None}
    write_json(path, document)
    text = page()
    assert "; idle was not measured. In 1 of 1 runs something else ran on the device" in text
    assert "<td>1 of 1 runs</td>" in text


def test_a_folder_without_runs_is_an_error_for_people(tmp_path):
    with pytest.raises(FFError, match="no run folder below"):
        report.write_everything(tmp_path)


def test_the_same_results_give_the_same_page(written, tmp_path):
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        report.write_report(written, written / "summary", written / "figures", page, written_at="2026-01-01")
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_template_and_style_sheet_are_installed_and_count_as_code_of_the_page():
    beside = {path.name for path in Path(report.__file__).parent.iterdir() if path.suffix in (".j2", ".css")}
    assert len(beside) == 2
    assert beside <= {path.name for path in Sources().reached("workflow/scripts/report.py")}
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["package-data"][report.__name__]) == beside


@pytest.mark.skipif(chromium() is None, reason="no Chromium here (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_real_browser_renders_every_figure_without_a_console_error(written, tmp_path, width, scheme):
    with Browser(tmp_path / "profile") as browser:
        browser.open(written / "report.html", width, scheme=scheme)
        broken = browser.evaluate(
            "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0 && "
            "i.getBoundingClientRect().height > 0)).map(i => i.alt)"
        )
        assert broken == []
        assert browser.evaluate("document.images.length") == len(FIGURES)
        # The page itself never scrolls sideways; wide tables and figures scroll in their own box.
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        outside = browser.evaluate(
            "[...document.querySelectorAll('h1,h2,p,li,dd,figcaption,.scroll')].filter(e => "
            f"e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 60))"
        )
        assert outside == []
        ground, ink = browser.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
        assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)") and ink != ground
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.skipif(chromium() is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_printing_shows_whole_tables(written, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.open(written / "report.html", 1280)
        browser.call("Emulation.setEmulatedMedia", media="print")
        cut = browser.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(e => e.scrollHeight > e.clientHeight + 2).length"
        )
        assert cut == 0
