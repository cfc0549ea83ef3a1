"""A copy of the project in a temporary folder, and Snakemake on it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
# One run of one small network.
TINY = {
    "grid": {"dataset": ["DIGITS"], "layers": ["784,20"], "recipe": ["ff"], "seed": [0], "exclude": []},
    "train_by_dataset": {"DIGITS": {"rep_epochs": 1, "softmax_epochs": 1, "train_batch_size": 64, "val_size": 287}},
    "measure": {"devices": ["cpu"], "batch_sizes": [1, 8], "repeats": 2, "single_samples": 100, "threads": [1]},
}
# Figures are drawn elsewhere in the tests: here they are files that a job makes.
NO_DRAWING = """

def build(name, summary_dir, results_root):
    return name


def save(figure, base):
    base.parent.mkdir(parents=True, exist_ok=True)
    base.with_suffix(".png").write_bytes(b"\\x89PNG")
    base.with_suffix(".svg").write_text("<svg/>")
"""


class Project:
    """A copy of the project with its own package `ff`, whose files a test may change."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("FF_", "SNAKEMAKE", "WANDB"))},
            "PYTHONPATH": str(folder),
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / ".cache"),
        }

    @classmethod
    def new(cls, folder: Path, prepared: Path | None = None, **changes) -> "Project":
        """A fresh copy; `changes` replace keys of TINY, `prepared` is a folder with prepared data to begin with."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "Snakefile", folder)
        for part in ("rules", "workflow", "config", "envs", "profiles", "ff"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        if prepared is not None:
            shutil.copytree(prepared, folder / "data/prepared")
        project = cls(folder)
        project.append("ff/summary/figures/__init__.py", NO_DRAWING)
        project.write("tiny.yaml", yaml.safe_dump(TINY | changes))
        project.write("config/demo.yaml", yaml.safe_dump({"grid": TINY["grid"]}))
        return project

    def copy(self, folder: Path) -> "Project":
        """The same with all results; times of files are kept, since Snakemake compares them."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return type(self)(folder)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def append(self, name: str, text: str) -> None:
        with open(self.folder / name, "a") as file:
            file.write(text)

    def command(self, *arguments: str, overlay: str | None = "tiny.yaml") -> list[str]:
        overlays = ["--configfile", overlay] if overlay else []
        return [*SNAKEMAKE, *arguments, *overlays]

    def start(self, *arguments: str, overlay: str | None = "tiny.yaml", **options) -> subprocess.Popen:
        command = self.command(*arguments, overlay=overlay)
        return subprocess.Popen(command, cwd=self.folder, env=self.env, **options)

    def snakemake(self, *arguments: str, overlay: str | None = "tiny.yaml", ok: bool | None = True) -> str:
        """Run it and give what it prints; `ok` False: it must fail, None: either."""
        command = self.command(*arguments, overlay=overlay)
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        text = done.stdout + done.stderr
        assert ok is None or (done.returncode == 0) == ok, text[-4000:]
        return text

    def plan(self, *arguments: str, overlay: str | None = "tiny.yaml") -> dict[str, list[str]]:
        """What a dry run would do: {rule: wildcards of each job}."""
        text = self.snakemake(*arguments, "-n", "--cores", "2", "--quiet", "host", overlay=overlay)
        jobs: dict[str, list[str]] = {}
        # Each rule's message is its name and what it is for: a run or a part of its path, or a collection of runs.
        for rule, run, job in re.findall(r"^ *Job \d+: (\w+)(?: ([^:\n]*))?(?:: (\w+))?$", text, re.MULTILINE):
            if run.endswith("/"):
                wildcards = [f"collection={run}"]
            else:
                parts = run.replace("/seed", "/").split("/") if run else []
                named = zip(("dataset", "layers", "recipe", "seed"), parts, strict=False)
                wildcards = [f"{name}={part}" for name, part in named] + ([f"job={job}"] if job else [])
            jobs.setdefault(rule, []).append(", ".join(wildcards))
        assert jobs or "Nothing to be done" in text, text[-4000:]
        return jobs
