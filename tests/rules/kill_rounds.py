"""Kill Snakemake, a job or the sidecar at random moments, again and again; then finish and compare every model.

    python tests/rules/kill_rounds.py --rounds 50 [--sidecar service] [--seed 0] [--keep FOLDER]

Works on a copy of the project. First the grid is trained undisturbed. Then, in a second copy, each round starts
`snakemake --cores 2 --rerun-incomplete` on the demo target and sends SIGKILL to what the round's turn is, after a
random time. A stale lock is removed by `--unlock`, as a person would. When the report is there before the last
round, two random runs are removed, so that there is something to make. At the end one call must complete, no
process may be left, and every model.safetensors must equal the undisturbed one byte for byte. Exit status 0 when
all of that holds.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dag_project import Project

TARGETS = ("snakemake", "job", "sidecar", "group")


def processes_of(project: Project) -> list[psutil.Process]:
    """All processes that work in the project's folder, orphans too."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def kind_of(process: psutil.Process) -> str | None:
    """`job` for a script of a rule, `sidecar`, or None."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    if "ff.hardware.sidecar" in words:
        return "sidecar"
    if len(words) > 1 and ".snakemake/scripts/" in words[1]:
        return "job"
    return None


def strike(project: Project, main: subprocess.Popen, target: str) -> str:
    """Send SIGKILL to the target, a job or sidecar as soon as there is one; gives what was hit."""
    patience = time.monotonic() + 15
    while True:
        victims = [process for process in processes_of(project) if kind_of(process) == target]
        if victims or target not in ("job", "sidecar") or main.poll() is not None or time.monotonic() > patience:
            break
        time.sleep(0.05)
    if target == "group":
        victims = processes_of(project)
    elif target == "snakemake" or not victims:
        # Without a job or a sidecar at this moment, Snakemake itself is hit.
        target, victims = "snakemake", [psutil.Process(main.pid)] if main.poll() is None else []
    for victim in victims:
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
    return target if victims else "nothing: it had ended"


def finish(project: Project) -> int:
    """One call that completes what is left, after `--unlock` where a lock is stale; gives its exit status."""
    command = project.command("demo", "--cores", "2", "--rerun-incomplete")
    done = subprocess.run(command, cwd=project.folder, env=project.env, capture_output=True, text=True)
    if "LockException" in done.stdout + done.stderr:
        project.snakemake("--unlock", "--cores", "1", ok=None)
        done = subprocess.run(command, cwd=project.folder, env=project.env, capture_output=True, text=True)
    if done.returncode:
        print((done.stdout + done.stderr)[-6000:])
    return done.returncode


def models(project: Project) -> dict[str, bytes]:
    root = project.folder / "results"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("model.safetensors"))}


def disturb(project: Project, rounds: int, chance: random.Random, seconds: float, expected: dict) -> Counter:
    """The rounds; gives how often what was hit, and how many models that were removed had been as expected."""
    hits: Counter = Counter()
    for number in range(1, rounds + 1):
        command = ("demo", "--cores", "2", "--rerun-incomplete")
        with open(project.folder / "round.log", "w") as log:
            main = project.start(*command, stdout=log, stderr=log, start_new_session=True)
            time.sleep(chance.uniform(0.8, seconds))
            hit = strike(project, main, TARGETS[number % len(TARGETS)])
            if hit in ("job", "sidecar"):
                # Snakemake goes on with the rest; a second blow ends it.
                time.sleep(chance.uniform(0.2, seconds / 2))
                strike(project, main, "snakemake")
            main.wait()
        hits[hit] += 1
        text = (project.folder / "round.log").read_text()
        if "LockException" in text:
            hits["stale lock"] += 1
        if (project.folder / ".snakemake/locks").exists() and any((project.folder / ".snakemake/locks").iterdir()):
            project.snakemake("--unlock", "--cores", "1", ok=None)
        if (project.folder / "results/demo/report.html").exists():
            runs = sorted(path.parent for path in (project.folder / "results").rglob("model.safetensors"))
            for run in chance.sample(runs, k=min(2, len(runs))):
                name = str((run / "model.safetensors").relative_to(project.folder / "results"))
                same = (run / "model.safetensors").read_bytes() == expected[name]
                hits["equal model removed" if same else "other model removed"] += 1
                shutil.rmtree(run)
        print(f"round {number}: {hit}; {len(models(project))} models", flush=True)
    return hits


def orphans(project: Project, patience_s: float = 60.0) -> list[str]:
    """Processes that are left after a time in which a surviving training may end by itself."""
    end = time.monotonic() + patience_s
    while (left := processes_of(project)) and time.monotonic() < end:
        time.sleep(0.5)
    return [" ".join(process.cmdline()) for process in left]


def main(argv: list[str] | None = None) -> int:
    """Command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of what is hit")
    parser.add_argument("--seconds", type=float, default=8.0, help="longest time before a blow")
    parser.add_argument("--sidecar", choices=("service", "inline", "off"), default="service")
    parser.add_argument("--grid", help="YAML file with a grid block; default: two networks, two recipes, one seed")
    parser.add_argument("--epochs", type=int, default=6, help="of each phase")
    parser.add_argument("--keep", help="work in this folder and leave it")
    args = parser.parse_args(argv)
    grid = {"dataset": ["DIGITS"], "layers": ["784,20", "784,100,100"], "recipe": ["ff", "bp"], "seed": [0]}
    if args.grid:
        grid = yaml.safe_load(Path(args.grid).read_text())["grid"]
    epochs = {"rep_epochs": args.epochs, "softmax_epochs": args.epochs, "train_batch_size": 64, "val_size": 287}
    settings = {"train_by_dataset": {"DIGITS": epochs}, "sidecar": args.sidecar, "hw_interval_ms": 100}
    root = Path(args.keep or tempfile.mkdtemp())
    try:
        calm = Project.new(root / "undisturbed", **settings)
        calm.write("config/demo.yaml", yaml.safe_dump({"grid": grid}))
        storm = Project.new(root / "disturbed", **settings)
        storm.write("config/demo.yaml", yaml.safe_dump({"grid": grid}))
        calm.snakemake("demo", "--cores", "2", "--config", "sidecar=off")
        expected = models(calm)
        hits = disturb(storm, args.rounds, random.Random(args.seed), args.seconds, expected)
        left = orphans(storm)
        status = finish(storm)
        made = models(storm)
        same = sum(made.get(name) == content for name, content in expected.items())
        print(f"{args.rounds} rounds: {dict(hits)}")
        print(f"left behind after a minute: {left or 'nothing'}")
        print(f"the call at the end: exit status {status}")
        print(f"models equal to the undisturbed ones: {same} of {len(expected)}")
        idle = storm.plan("demo")
        print(f"left to do after it: {idle or 'nothing'}")
        whole = same == len(expected) == len(made) and not hits["other model removed"]
        return 0 if status == 0 and not left and whole and not idle else 1
    finally:
        if not args.keep:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
