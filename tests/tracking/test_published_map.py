"""docs/published.md: what it names here is here."""

import re
from pathlib import Path

import pytest

from ff import cli
from ff.layout import TABLES
from ff.summary.figures import FIGURES

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/published.md").read_text()
# The published side is the first column; what is named here stands in the others.
HERE = [cell for line in TEXT.splitlines() if line.startswith("|") for cell in line.split("|")[2:]]
NAMED = re.findall(r"`([^`]+)`", " ".join(HERE))


def test_commands_are_there():
    called = {name.split()[1] for name in NAMED if name.startswith("ff ")}
    assert called == {"train", "sweep", "evaluate", "measure", "figures", "doctor", "monitor", "track"}
    assert called <= set(cli.COMMANDS)


@pytest.mark.parametrize("line", sorted({name for name in NAMED if re.match(r"ff \w+ .*--", name)}))
def test_their_options_are_there(line, capsys):
    _, command, *words = line.split()
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    known = capsys.readouterr().out
    for word in words:
        option = word.strip("[]")
        assert not option.startswith("--") or f"{option} " in known or f"{option}\n" in known or f"{option}]" in known


def test_files_of_the_project_are_there():
    paths = {name for name in NAMED if re.match(r"(ff|config)/", name)}
    paths |= set(re.findall(r"config/\w+\.yaml", " ".join(NAMED)))
    assert len(paths) > 15
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_figures_and_tables_are_there():
    figures = {Path(name).stem for name in NAMED if name.startswith("figures/")}
    assert {"latency_violins", "speedup", "memory_heatmap"} <= figures <= set(FIGURES)
    assert {Path(name).stem for name in NAMED if name.startswith("summary/")} <= set(TABLES)


def test_targets_are_there():
    rules = (ROOT / "Snakefile").read_text()
    words = " ".join(name for name in NAMED if name.startswith("snakemake ")).split()
    targets = {word for word in words if re.fullmatch(r"\w+_all|all", word)}
    assert targets == {"all", "evaluate_all", "variance_all"}
    assert all(f"rule {target}:" in rules for target in targets)
