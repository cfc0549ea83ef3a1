"""What starting costs: `ff train` until its first mini-batch against importing torch, and a job of the workflow.

    python benchmarks/starts.py [--data-dir ROOT] [--dataset DIGITS] [--repeats 5] [--jobs 40] [--json FILE]

Training: `python -c "import torch"` and `ff train` take turns; of the training, the time from the start of its process
to its first mini-batch counts, which its phases.csv tells, with its parts: `import` (until the work begins), `load`
(reading and standardising the images, making the network) and the rest (code hash, resume state). The limit is the
import of torch and half a second.

Jobs: seconds of Snakemake for one that does nothing, as a rule of this workflow (a script with log, benchmark, conda,
params and message, under profiles/default), from calls with `--jobs` of them and with one; and of that, the bare start
of Python. What a script imports comes on top: seconds for each script of workflow/scripts, in turns with torch.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FF = [sys.executable, "-c", "import sys; from ff.cli import main; sys.exit(main())"]
IMPORT = [sys.executable, "-c", "import torch"]
ALLOWED_S = 0.5
RULE = """
rule all:
    input: expand("out/{i}", i=range(COUNT))

rule job:
    output: "out/{i}"
    log: "logs/{i}.log"
    benchmark: "benchmarks/{i}.jsonl"
    conda: "environment.yaml"
    resources: mem_mb=100, runtime=10
    params: code="0123456789ab"
    message: "{rule} {wildcards.i}"
    script: "job.py"
"""


def timed(command: list[str], folder: Path | str = ROOT) -> float:
    """Seconds from start to exit of a process; ends this one where that fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} ... failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")
    return time.perf_counter() - start


def first_batch(run: Path) -> dict[str, float]:
    """Seconds from the start of a training's process to its first mini-batch, whole and in parts."""
    with open(run / "phases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    spans = {row["phase"]: (float(row["start_monotonic_s"]), float(row["end_monotonic_s"])) for row in reversed(rows)}
    begin, first = spans["import"][0], spans["representation"][0]
    parts = {name: spans[name][1] - spans[name][0] for name in ("import", "load")}
    return {"whole": first - begin, **parts, "rest": first - begin - sum(parts.values())}


def training(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Medians over the repeats."""
    own = ["--dataset", arguments.dataset, "--layers", "784,200,200,10", "--rep-epochs", "1", "--softmax-epochs", "0"]
    own += ["--data-dir", arguments.data_dir, "--verify=false"] if arguments.data_dir else []
    run = folder / "results" / arguments.dataset / "784-200-200-10/ff/seed0"
    timed([*FF, "train", *own, "--threads", "1"], folder)
    timed(IMPORT, folder)
    imports, starts = [], []
    for _ in range(arguments.repeats):
        imports.append(timed(IMPORT, folder))
        timed([*FF, "train", *own, "--threads", "1", "--overwrite"], folder)
        starts.append(first_batch(run))
    medians = {name: statistics.median(start[name] for start in starts) for name in starts[0]}
    torch_s = statistics.median(imports)
    beyond = statistics.median(start["whole"] - one for start, one in zip(starts, imports, strict=True))
    return {"import_torch": torch_s, **medians, "beyond_import_torch": beyond}


def a_job(count: int, repeats: int, folder: Path) -> dict[str, float]:
    """Seconds for one job that does nothing, and for the bare start of Python."""
    (folder / "environment.yaml").write_text("channels: [conda-forge]\ndependencies: [python]\n")
    (folder / "job.py").write_text("open(snakemake.output[0], 'w').close()\n")
    calls: dict[int, list[float]] = {1: [], count: []}
    python = []
    for repeat in range(repeats):
        for number, seconds in calls.items():
            place = folder / f"{number}-{repeat}"
            place.mkdir()
            for name in ("environment.yaml", "job.py"):
                (place / name).write_text((folder / name).read_text())
            (place / "Snakefile").write_text(RULE.replace("COUNT", str(number)))
            profile = ["--workflow-profile", str(ROOT / "profiles/default")]
            seconds.append(timed([sys.executable, "-m", "snakemake", "--cores", "1", *profile], place))
        python.append(timed([sys.executable, "-c", "pass"]))
    pairs = zip(calls[count], calls[1], strict=True)
    job = statistics.median((many - one) / (count - 1) for many, one in pairs)
    return {"call": statistics.median(calls[1]) - job, "job": job, "python": statistics.median(python)}


def scripts(repeats: int) -> dict[str, float]:
    """Seconds of a process that imports what a script of the workflow imports, the start of Python included."""
    imports = {"import torch": "import torch"}
    for path in sorted((ROOT / "workflow/scripts").glob("*.py")):
        code = path.read_text()
        [*_, last] = re.finditer(r"^ *(?:import|from) .*\n", code, re.MULTILINE)
        imports[path.stem] = code[: last.end()]
    times: dict[str, list[float]] = {name: [] for name in imports}
    for _ in range(repeats):
        for name, code in imports.items():
            times[name].append(timed([sys.executable, "-c", code]))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> int:
    """Measure and print; 1 where a training starts too late."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="torchvision-style root with the data set's files")
    parser.add_argument("--dataset", default="DIGITS")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        start = training(arguments, Path(name))
        print(f"ff train, {arguments.dataset}, to its first mini-batch (medians of {arguments.repeats}, s):")
        for part, seconds in start.items():
            print(f"  {part.replace('_', ' '):20} {seconds:7.3f}")
        late = start["beyond_import_torch"] > ALLOWED_S
        print(f"  {'over' if late else 'within'} the limit of import torch + {ALLOWED_S} s\n")
        job = a_job(arguments.jobs, arguments.repeats, Path(name))
    print("Snakemake (s):")
    for part, text in (("call", "a call"), ("job", "a job that does nothing"), ("python", "of that, Python")):
        print(f"  {text:24} {job[part]:7.3f}")
    imported = scripts(arguments.repeats)
    print("\nPython and the imports of a script (s):")
    for script, seconds in imported.items():
        print(f"  {script:14} {seconds:7.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"training": start, "workflow": job, "scripts": imported}, indent=2))
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
