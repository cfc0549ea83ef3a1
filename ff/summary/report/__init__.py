"""results/report.html: one self-contained page with the question, the results, every figure, and what is missing.

No network, no script: images are data URIs, the style is in the page, and a content policy in the page forbids
everything else. It reads the summary tables and the saved figures, never the models, so writing it takes seconds.
Python gives sentences, tables and images as data; report.html.j2 writes them as HTML, all of it escaped.
"""

import datetime
import os
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ff.errors import FFError
from ff.files import write_text
from ff.layout import TABLES, find_runs
from ff.summary.figures import FIGURES, build, save
from ff.summary.recipe_order import controls_of
from ff.summary.report.images import image
from ff.summary.report.origin import missing, provenance
from ff.summary.report.sections import FAMILIES
from ff.summary.report.sentences import key_results
from ff.summary.tables import read_table, write_all

_PAGE = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("report.html.j2")

DEFAULT_QUESTION = "How well do networks trained with the Forward-Forward algorithm do, and at what cost?"


def write_report(
    results_root: str | Path,
    summary_dir: str | Path,
    figures_dir: str | Path,
    out_path: str | Path,
    question: str = DEFAULT_QUESTION,
    written_at: str | None = None,
) -> Path:
    """Write the report and return its path.

    A figure of `ff.summary.figures.FIGURES` is looked for as `figures_dir/NAME.svg` and `.png`; the page says where one
    is not there. `written_at`: the date shown (default: now, UTC). Raises FFError when a summary table is missing.
    """
    tables = {name: read_table(summary_dir, name) for name in TABLES}
    written_at = written_at or datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    with controls_of(tables["runs"]):
        page = _PAGE.render(
            question=question,
            sentences=key_results(tables),
            figures=[(name, spec, image(Path(figures_dir) / name)) for name, spec in FIGURES.items()],
            families=[
                (name, family.title, family.blocks(tables) if family.blocks else [])
                for name, family in FAMILIES.items()
            ],
            missing=missing(tables["missing"]),
            provenance=provenance(tables["runs"], Path(results_root), written_at),
            results=quote(os.path.relpath(results_root, Path(out_path).parent)),
            summary=quote(os.path.relpath(summary_dir, Path(out_path).parent)),
            written_at=written_at,
        )
    write_text(out_path, page)
    return Path(out_path)


def write_everything(results_root: str | Path) -> Path:
    """Tables, all figures and the report of the runs of a results folder, where the workflow puts them; returns the
    report's path."""
    root = Path(results_root)
    runs = find_runs(root)
    if not runs:
        raise FFError(f"there is no run folder below {root}; train a network first or name another folder")
    write_all(root, runs, root / "summary")
    for name in FIGURES:
        save(build(name, root / "summary", root), root / "figures" / name)
    return write_report(root, root / "summary", root / "figures", root / "report.html")
