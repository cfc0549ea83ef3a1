"""The form of the workflow's files: linter, formatter, what each rule has, length of scripts, environments."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ff.summary.figures import FAMILIES

ROOT = Path(__file__).parents[2]
RULE_FILES = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
# Targets have nothing to run; the sidecar is no step of its own.
NO_BENCHMARK = {"sidecar", "track"}


def rules():
    """{name: text} of each rule that makes something."""
    found = {}
    for path in RULE_FILES[1:]:
        # Rules whose jobs are for one run or for several are made in a loop over both forms.
        for text in re.split(r"(?m)^(?=(?:for jobs in|for family in|rule) ?\b)", path.read_text()):
            if named := re.match(r'(?:for jobs in jobs_of\("|rule )(\w+)|for family in', text):
                found[named[1] or "figures"] = text
    return found


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def plain(requirement):
    """The name of a package, as pip compares it."""
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def test_snakemake_finds_nothing_to_mend(fresh):
    assert "in a good condition" in fresh.snakemake("--lint", overlay=None)


def test_the_catalogs_standard_place_works(fresh):
    text = fresh.snakemake("-s", "workflow/Snakefile", "--list-target-rules", overlay=None)
    assert {"all", "demo", "report"} <= set(text.split())


def test_snakefmt_changes_nothing():
    snakefmt = shutil.which("snakefmt") or str(Path(sys.executable).parent / "snakefmt")
    if not Path(snakefmt).exists():
        pytest.skip("snakefmt is not installed")
    done = subprocess.run([snakefmt, "--check", *map(str, RULE_FILES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(rules()))
def test_each_rule_has_a_log_and_an_environment(name):
    text = rules()[name]
    assert re.search(r"^ +log:", text, re.MULTILINE)
    assert re.search(r"^ +conda:", text, re.MULTILINE)
    if name not in NO_BENCHMARK:
        assert re.search(r"^ +benchmark:", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["prepare", "train", "evaluate", "early_exit", "measure"])
def test_each_rule_that_computes_says_what_it_needs(name):
    text = rules()[name]
    assert "mem_mb=" in text
    assert "runtime=" in text
    assert name == "prepare" or "gpu=" in text


@pytest.mark.parametrize("name", sorted(set(rules()) - {"sidecar", "track"}))
def test_the_code_that_counts_for_a_rule_is_what_its_script_reaches(name):
    text = rules()[name]
    [script] = re.findall(r'"\.\./(workflow/scripts/\w+\.py)"', text)
    [entry] = re.findall(r'^ +code=(?:code\w*\("([\w./]+)"|lambda wildcards: training_code)', text, re.MULTILINE)
    assert (entry or "workflow/scripts/train.py") == script


def test_each_rule_says_in_one_line_what_it_does():
    # Instead of a list of all its files: with many runs, errors would be lost between these.
    for name, text in rules().items():
        assert re.search(r"^ +message:", text, re.MULTILINE), name
    for path in (ROOT / "profiles").glob("*/config.yaml"):
        # Snakemake counts errors of jobs among `rules`.
        assert "rules" not in (yaml.safe_load(path.read_text()).get("quiet") or []), path


def test_the_drawing_of_the_workflow_shows_its_rules():
    drawn = set(re.findall(r">(\w+)</text>", (ROOT / "docs/images/rulegraph.svg").read_text()))
    shown = {name for name in rules() if name not in ("figures", "track", "export", "deployed")}
    assert shown | {f"figures_{family}" for family in FAMILIES} | {"demo"} == drawn


def test_a_download_is_tried_again():
    assert "retries:" in rules()["prepare"]


def test_the_sidecar_is_told_who_starts_it():
    """By a variable, which a shell that runs with `set -u` misses where it is not there."""
    assert '--parent "$FF_WORKFLOW_PID"' in rules()["sidecar"]


def test_small_rules_are_local():
    text = "".join(path.read_text() for path in RULE_FILES)
    local = set(re.findall(r"\w+", " ".join(re.findall(r"localrules:((?:\n +\w+,)+)", text))))
    local |= {name for name, text in rules().items() if "localrule: True" in text}
    assert {"prepare", "tables", "report_page", "hardware_of_training", "hardware_of_measurement"} <= local


@pytest.mark.parametrize("path", sorted((ROOT / "workflow/scripts").iterdir()), ids=lambda path: path.name)
def test_scripts_are_thin(path):
    if path.suffix == ".py":
        assert len(path.read_text().splitlines()) < 40


def test_each_script_belongs_to_a_rule_and_the_other_way_round():
    used = set(re.findall(r"workflow/scripts/(\w+\.py)", "".join(path.read_text() for path in RULE_FILES)))
    assert used == {path.name for path in (ROOT / "workflow/scripts").glob("*.py")}


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*/config.yaml")), ids=lambda path: path.parent.name)
def test_no_profile_reruns_for_a_touched_or_switched_file(path):
    assert yaml.safe_load(path.read_text())["rerun-triggers"] == ["mtime", "params", "software-env"]


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.name)
def test_environments_hold_what_constraints_pin(path):
    pinned = {plain(name): version for name, version in constraints().items()}
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    packages = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    found = {plain(entry): entry.partition("==")[2] for entry in packages}
    assert found == {name: pinned[name] for name in found}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {plain(entry) for entry in project["dependencies"]}
    assert needed <= set(found)


def test_everything_that_the_project_needs_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    pinned = {plain(name) for name in constraints()}
    assert {plain(entry) for entry in needed} <= pinned
