"""results/report.html: one self-contained page with the question, the results, every figure, and what is missing.

No network, no script: images are data URIs, the style is in the page, and a content policy in the page forbids
everything else. It reads the summary tables and the saved figures, never the models, so writing it takes seconds.
Python gives sentences, tables and images as data; report.html.j2 writes them as HTML, all of it escaped.
"""

import datetime
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ff.errors import FFError
from ff.files import write_text
from ff.layout import TABLES, RunKey, find_runs
from ff.summary.figures import FIGURES
from ff.summary.recipe_order import controls_of
from ff.summary.report.images import image
from ff.summary.report.sections import FAMILIES, missing, provenance
from ff.summary.report.sentences import key_results
from ff.summary.tables import read_table, write_all

DEFAULT_QUESTION = "How well do networks trained with the Forward-Forward algorithm do, and at what cost?"


def write_report(
    results_root: str | Path,
    summary_dir: str | Path,
    figures_dir: str | Path,
    out_path: str | Path,
    question: str = DEFAULT_QUESTION,
    title: str = "Forward-Forward experiments",
    figures: Iterable[str] | None = None,
    written_at: str | None = None,
) -> Path:
    """Write the report and return its path.

    `figures`: names to show (default: all of `ff.summary.figures.FIGURES`); each is looked for as
    `figures_dir/NAME.svg` and `.png`, and one that is not there is named in the page. `written_at`: the
    date shown (default: now, UTC). Raises FFError when a summary table or a name is missing.
    """
    tables = {name: read_table(summary_dir, name) for name in TABLES}
    names = list(FIGURES) if figures is None else list(figures)
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise FFError(f"there is no figure called {unknown[0]!r}; the figures are: {', '.join(FIGURES)}")
    written_at = written_at or datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    drawn = {family: [name for name in names if FIGURES[name].family == family] for family in FAMILIES}
    with controls_of(tables["runs"]):
        page = _template().render(
            title=title,
            question=question,
            sentences=key_results(tables),
            families=[
                {
                    "anchor": name,
                    "title": family.title,
                    "figures": [(figure, FIGURES[figure], image(Path(figures_dir) / figure)) for figure in drawn[name]],
                    "blocks": family.blocks(tables) if family.blocks else [],
                }
                for name, family in FAMILIES.items()
                if family.blocks or drawn[name]
            ],
            missing=missing(tables["missing"]),
            provenance=provenance(tables["runs"], Path(results_root), written_at),
            written_at=written_at,
        )
    write_text(out_path, page)
    return Path(out_path)


def _template():
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


def write_everything(
    results_root: str | Path,
    runs: Iterable[RunKey] | None = None,
    question: str = DEFAULT_QUESTION,
    train_log: str | None = None,
) -> Path:
    """Tables, all figures and the report of a results folder, where the workflow puts them; returns the
    page's path.

    `runs`: what is expected (default: every run folder that is there).
    """
    from ff.summary.figures import build, save

    root = Path(results_root)
    runs = find_runs(root) if runs is None else list(runs)
    if not runs:
        raise FFError(f"there is no run folder below {root}; train a network first or name another folder")
    write_all(root, runs, root / "summary", train_log=train_log)
    for name in FIGURES:
        save(build(name, root / "summary", root), root / "figures" / name)
    return write_report(root, root / "summary", root / "figures", root / "report.html", question)
