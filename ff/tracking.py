"""Weights & Biases as a mirror of the files on disk: live while `ff train` runs, and `ff track` afterwards.

Nothing reads back from W&B, so W&B can be slow, unreachable or absent without a run noticing:

- A live run is mirrored by a child process of its own (`python -m ff.tracking`). The training process only
  puts lines into a queue; it never imports wandb (0.3 s), never waits for a server, and cannot be ended by
  it. When the training process is killed, the child sees the end of its input and closes the run as failed
  with every epoch that it was told of - wandb inside a killed process would lose them all.
- Offline the child starts only after 10 s or at the end, whichever comes first, and nobody waits for it: a
  short run is not slowed by a mirror that nobody is looking at.
- `track` writes one W&B run for each training, evaluation and set of timings, and one for the figures. What
  was mirrored is noted in `<results>/.tracked/`, outside of what the DAG declares, with a digest of the
  files.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff import wandb_names as names
from ff.errors import FFError
from ff.files import read_csv, read_json, write_json
from ff.wandb_session import MODES, Access, open_run, redacted, resolve_access, unreachable, used_environment
from ff.wandb_session import environment as child_environment

OFFLINE_DELAY_S = 10.0
ONLINE_WAIT_S = 5.0
CHILD_LIMIT_S = 600.0
JOB_TYPES = {"train": "train", "evaluation": "eval", "variance": "variance-eval", "figures": "figures"}
_ARTIFACT_FILES = (
    "model.safetensors",
    "metrics.json",
    "history.csv",
    "phases.csv",
    "hardware.csv",
    "hardware.json",
)


# ---------------------------------------------------------------- live: the training process's side


class Tracker:
    """Mirrors one run while it trains. No method raises, waits (but `finish`, a few seconds) or returns
    anything.

    Use `open_tracker`. `mode` is online, offline or disabled, `reason` says why; `warnings` fills up with
    what went wrong on W&B's side, for the caller to print.
    """

    def __init__(self, access: Access, opening: Mapping[str, Any], delay_s: float):
        self.mode, self.reason = access.mode, access.reason
        self.run_id = opening["run_id"]
        self.warnings: list[str] = []
        self._access = access
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._child: subprocess.Popen | None = None
        self._answers: list[str] = []
        self._writer: threading.Thread | None = None
        if self.mode != "disabled":
            self._put("open", dict(opening))
            self._writer = threading.Thread(target=self._write, args=(delay_s, opening["directory"]), daemon=True)
            self._writer.start()

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One row of history.csv, as soon as its epoch has ended."""
        self._put("epoch", row)

    def hardware(self, sample: Mapping[str, Any]) -> None:
        """A record of the hardware recorder (its `listener`) or a row of hardware.csv; only samples are mirrored."""
        if sample.get("kind", "sample") == "sample":
            self._put("hardware", sample)

    def finish(self, metrics: Mapping[str, Any], model_path: str | os.PathLike) -> None:
        """The run is complete and its files lie beside `model_path`; `metrics` is metrics.json.

        Online this waits up to 5 s for the upload and then leaves it to the child, which goes on by itself.
        """
        if self._writer is None:
            return
        self._put("finish", {"metrics": dict(metrics), "folder": str(Path(model_path).resolve().parent)})
        self._lines.put(None)
        deadline = time.monotonic() + ONLINE_WAIT_S
        self._writer.join(ONLINE_WAIT_S)
        if self.mode == "offline" or self._child is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(max(0.0, deadline - time.monotonic()))
        self.warnings += [redacted(line, self._access) for line in self._answers]
        if self._child.poll() is None:
            self.warnings.append(
                "W&B is still uploading in the background; if it is cut off, `ff track` uploads the run again"
            )

    def close(self) -> None:
        """End the mirror without `finish`: the run has failed. Safe to call at any time."""
        self._lines.put(None)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, kind: str, value: Mapping[str, Any]) -> None:
        if self.mode == "disabled":
            return
        try:
            self._lines.put(json.dumps({kind: value}, default=str) + "\n")
        except (TypeError, ValueError) as error:
            self.warnings.append(f"not mirrored to W&B: {error}")

    def _write(self, delay_s: float, directory: str) -> None:
        """The writing thread: waits out the delay, starts the child, hands over the lines as they come."""
        waiting, ended = [], False
        start = time.monotonic() + delay_s
        while not ended and time.monotonic() < start:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=max(0.0, start - time.monotonic()))
                ended = line is None
                waiting += [] if ended else [line]
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "ff.tracking"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_with_this_package(child_environment(self._access, directory)),
                # Ctrl-C is for the training; the child ends by itself when its input does.
                start_new_session=True,
            )
            # In the online mode its warnings are read; nobody reads them once this process has gone.
            threading.Thread(target=self._read, daemon=True).start()
            with self._child.stdin as pipe:
                for line in waiting:
                    pipe.write(line.encode())
                while not ended:
                    pipe.flush()
                    line = self._lines.get()
                    ended = line is None
                    pipe.write(b"" if ended else line.encode())
        except (OSError, ValueError) as error:
            self.warnings.append(
                redacted(f"the W&B mirror stopped ({error}); `ff track` mirrors the run later", self._access)
            )

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._child.stdout:
                self._answers.append(line.decode(errors="replace").strip())


def _with_this_package(values: dict[str, str]) -> dict[str, str]:
    """So that `-m ff.tracking` finds this very package, wherever the working directory is."""
    home = str(Path(__file__).resolve().parents[1])
    values["PYTHONPATH"] = os.pathsep.join(filter(None, [home, values.get("PYTHONPATH")]))
    return values


def open_tracker(
    mode: str = "auto",
    project: str = "edgeff",
    run_name: str = "",
    group: str | None = None,
    job_type: str = "train",
    tags: list[str] | None = None,
    config: Mapping[str, Any] | None = None,
    directory: str | os.PathLike = ".",
    entity: str | None = None,
    hardware_log: str | os.PathLike | None = None,
    machine: Mapping[str, Any] | None = None,
) -> Tracker:
    """Begin to mirror a training run; costs this process a few milliseconds at most, whatever the mode.

    `config` is `RunConfig.as_dict()`: data set, layers, recipe and seed give the group and the tags unless
    they are passed. `directory` gets the folder `wandb/`. `hardware_log` names the sidecar's log, which is
    then followed while it grows. Raises FFError for an unknown `mode` only.
    """
    access = resolve_access(mode)
    config = dict(config or {})
    run = {name: str(config.get(name, "")).replace(",", "-") for name in ("dataset", "layers", "recipe", "seed")}
    derived = names.labels(run)
    # An agent of a sweep hands out the run's id; only under it does the run belong to the sweep.
    sweep = bool(os.environ.get("WANDB_SWEEP_ID"))
    run_id = os.environ.get("WANDB_RUN_ID") if sweep else None
    if access.mode != "disabled" and machine is None:
        from ff.hardware.machine import describe

        machine = describe()
    opening = {
        "mode": access.mode,
        "run_id": run_id or names.identifier(job_type, config, names.machine_parts(machine or {})),
        "machine": dict(machine or {}),
        "project": (os.environ.get("WANDB_PROJECT") if sweep else None) or project,
        "entity": entity or access.entity,
        "name": run_name or "/".join(run.values()),
        "group": group or derived["group"],
        "job_type": job_type,
        "tags": derived["tags"] if tags is None else list(tags),
        "config": config,
        "directory": str(Path(directory).resolve()),
        "hardware_log": str(Path(hardware_log).resolve()) if hardware_log else None,
        "start_monotonic_s": time.monotonic(),
    }
    return Tracker(access, opening, OFFLINE_DELAY_S if access.mode == "offline" else 0.0)


# ---------------------------------------------------------------- live: the child


class _Mirror:
    """The child's open W&B run."""

    def __init__(self, opening: Mapping[str, Any], say):
        self.opening = opening
        access = resolve_access(opening["mode"])
        config = names.run_config({"config": opening["config"]}) | {"machine": opening["machine"]}
        self.run, self.access, warning = open_run(
            access,
            run_id=opening["run_id"],
            project=opening["project"],
            name=opening["name"],
            group=opening["group"],
            job_type=opening["job_type"],
            tags=opening["tags"],
            config=config,
            directory=opening["directory"],
        )
        if warning:
            say(warning)
        _define_steps(self.run)
        self.epochs: set[tuple] = set()
        self.hardware_start_s: float | None = None
        self.hardware_last_s = float("-inf")
        self.defined: set[str] = set()

    def epoch(self, row: Mapping[str, Any]) -> None:
        row = names.epoch_row(row)
        self.epochs.add((row.get("phase"), row.get("epoch")))
        self.run.log(row)

    def hardware(self, sample: Mapping[str, Any]) -> None:
        time_s = names.number(sample.get("monotonic_s"))
        if not isinstance(time_s, (int, float)) or time_s <= self.hardware_last_s:
            return
        if self.hardware_start_s is None:
            self.hardware_start_s = time_s
        self.hardware_last_s = time_s
        _log_hardware(self.run, names.hardware_row(sample, self.hardware_start_s), self.defined)

    def finish(self, metrics: Mapping[str, Any], folder: Path) -> None:
        if not self.run.resumed:
            # What an earlier, killed process of this run had trained is known from the file only.
            for row in _rows(folder / "history.csv"):
                if (row.get("phase"), names.number(row.get("epoch"))) not in self.epochs:
                    self.run.log(names.epoch_row(row))
        # What the log holds beyond the last sample that was followed; the whole of it when none was.
        for row in _rows(folder / "hardware.csv"):
            self.hardware(row)
        _log_training(self.run, metrics, folder)
        _finish(self.run)
        part = Part("train", folder)
        write_json(part.marker, _mark(part, self.opening["run_id"], self.access, self.opening, self.run))


def mirror(stdin: Any, stdout: Any) -> int:
    """The child process: JSON lines in, warnings out. The run is closed as failed when the input ends early."""
    with contextlib.suppress(OSError):
        # The training has the first claim on the processor.
        os.nice(10)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def receive() -> None:
        for line in stdin:
            lines.put(line)
        lines.put(None)

    def say(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=stdout, flush=True)

    # Read from the start: the training process must not find the pipe full while wandb is being imported.
    threading.Thread(target=receive, daemon=True).start()
    first = lines.get()
    if first is None:
        return 0
    opening = json.loads(first)["open"]
    session: _Mirror | None = None
    try:
        session = _Mirror(opening, say)
        if opening.get("hardware_log"):
            follow = threading.Thread(target=_follow, args=(Path(opening["hardware_log"]), lines), daemon=True)
            follow.start()
        while (line := lines.get()) is not None:
            ((kind, value),) = json.loads(line).items()
            if kind == "epoch":
                session.epoch(value)
            elif kind == "hardware":
                session.hardware(value)
            elif kind == "finish":
                _limit_life()
                session.finish(value["metrics"], Path(value["folder"]))
                return 0
        _limit_life()
        session.run.finish(exit_code=1)
    except Exception as error:
        access = session.access if session else resolve_access(opening["mode"])
        say(
            redacted(
                f"the W&B mirror stopped ({type(error).__name__}: {error}); `ff track` mirrors the run later",
                access,
            )
        )
        return 1
    return 0


def _limit_life() -> None:
    timer = threading.Timer(CHILD_LIMIT_S, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


def _follow(path: Path, lines: "queue.SimpleQueue[str | None]", start_s: float) -> None:
    """Turn complete new lines of the sidecar's log into hardware samples, once a second.

    Samples from before `start_s` on the monotonic clock are of earlier attempts.
    """
    position, rest = 0, b""
    while True:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            file.seek(position)
            data = file.read()
            position += len(data)
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                sample = hardware_sample(line)
                if sample and sample.get("monotonic_s", 0) >= start_s:
                    lines.put(json.dumps({"hardware": sample}))
        time.sleep(1.0)


def hardware_sample(line: bytes) -> dict[str, Any] | None:
    """The sample in a line of the sidecar's log; None for its other lines and for a line cut short."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and value.get("kind") == "sample" else None


# ---------------------------------------------------------------- what both sides of time log


def _define_steps(run: Any) -> None:
    run.define_metric("epoch")
    for name in ("loss", "sample_val_accuracy", "learning_rate", "epoch_seconds", "goodness/*"):
        run.define_metric(name, step_metric="epoch")
    run.define_metric(names.HARDWARE_STEP, hidden=True)


def _log_hardware(run: Any, row: Mapping[str, Any], defined: set[str]) -> None:
    for name in row:
        if name not in defined and name != names.HARDWARE_STEP:
            run.define_metric(name, step_metric=names.HARDWARE_STEP)
            defined.add(name)
    if row:
        run.log(dict(row))


def _log_hardware_file(run: Any, folder: Path) -> None:
    rows = _rows(folder / "hardware.csv")
    start = names.number(rows[0].get("monotonic_s")) if rows else None
    defined: set[str] = set()
    for row in rows if start is not None else []:
        _log_hardware(run, names.hardware_row(row, start), defined)


def _log_training(run: Any, metrics: Mapping[str, Any], folder: Path) -> None:
    summary = names.training_summary(metrics)
    if (folder / "hardware.json").is_file():
        summary |= names.energy_summary(read_json(folder / "hardware.json"))
    run.config.update(names.run_config(metrics), allow_val_change=True)
    _log_tables(run, names.training_tables(folder))
    run.log(summary)
    run.summary.update(summary)
    _log_model(run, metrics, folder)


def _log_tables(run: Any, tables: Mapping[str, names.Table], prefix: str = "") -> None:
    if tables:
        import wandb

        run.log({prefix + name: wandb.Table(columns=list(c), data=d) for name, (c, d) in tables.items()})


def _log_model(run: Any, metrics: Mapping[str, Any], folder: Path) -> None:
    """The run's files as an artifact of type `model`: enough to be put back into a results folder."""
    files = [folder / name for name in _ARTIFACT_FILES if (folder / name).is_file()]
    if not (folder / "model.safetensors").is_file():
        return
    import wandb

    config = names.run_config(metrics)
    cell = metrics["run"]
    metadata = {"layers": config.get("layers"), "width": config.get("width"), "dataset": cell["dataset"]}
    metadata |= {"seed": cell["seed"], "recipe": cell["recipe"], "format": "ff-safetensors-1"}
    name = f"model-{cell['dataset']}-{cell['layers']}-{cell['recipe']}-seed{cell['seed']}"[:128]
    artifact = wandb.Artifact(name, type="model", metadata=metadata)
    for path in files:
        artifact.add_file(str(path), name=path.name, skip_cache=True)
    run.log_artifact(artifact)


def _finish(run: Any) -> None:
    try:
        run.finish()
    except TimeoutError as error:
        raise FFError("W&B took too long to take the run; `ff track` uploads it again") from error


def _rows(path: Path) -> list[dict[str, str]]:
    return read_csv(path) if path.is_file() else []


# ---------------------------------------------------------------- after the fact


@dataclass(frozen=True)
class Part:
    """One W&B run's worth of files: `kind` is train, evaluation or variance of a run folder, or figures of a root."""

    kind: str
    folder: Path

    @property
    def files(self) -> list[Path]:
        """The files that it mirrors, in a fixed order; empty when there is nothing of this kind."""
        if self.kind == "figures":
            found = [*self.folder.glob("figures/*"), *self.folder.glob("summary/*.csv")]
        elif self.kind == "variance":
            found = [*self.folder.glob("variance/*.csv"), *self.folder.glob("variance/*.json")]
        elif self.kind == "evaluation":
            wanted = ("evaluation.json", "early_exit.json", "early_exit.csv", "distributions.csv")
            found = [self.folder / name for name in wanted] if (self.folder / "evaluation.json").is_file() else []
        else:
            found = [self.folder / name for name in _ARTIFACT_FILES] if (self.folder / "metrics.json").is_file() else []
        return sorted(path for path in found if path.is_file() and not path.name.startswith("."))

    @property
    def root(self) -> Path:
        """The results folder: four levels above a run folder <dataset>/<layers>/<recipe>/seed<seed>."""
        if self.kind == "figures" or not self.folder.name.startswith("seed") or len(self.folder.parents) < 4:
            return self.folder
        return self.folder.parents[3]

    @property
    def marker(self) -> Path:
        """Where it is noted that this part was mirrored; outside of the run folder and of all declared outputs."""
        return self.root / ".tracked" / self.folder.relative_to(self.root) / f"{self.kind}.json"

    def digest(self) -> str:
        """A hash of names and contents of its files."""
        whole = hashlib.sha256()
        for path in self.files:
            with open(path, "rb") as file:
                whole.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return whole.hexdigest()


def find_parts(results: str | os.PathLike) -> list[Part]:
    """Everything below `results` that can be mirrored: each run folder's parts, then the figures."""
    results = Path(results).resolve()
    if not results.is_dir():
        raise FFError(f"no results folder {results}; train something first or name another folder")
    parts = []
    for path in sorted(results.rglob("metrics.json")):
        if not any(piece.startswith(".") for piece in path.relative_to(results).parts):
            parts += [Part(kind, path.parent) for kind in ("train", "evaluation", "variance")]
    # A collection (the demo) has its tables and figures in a folder of its own beside the runs.
    parts += [Part("figures", folder) for folder in (results, *sorted(results.iterdir())) if folder.is_dir()]
    return [part for part in parts if part.files]


def _mark(part: Part, run_id: str, access: Access, target: Mapping[str, Any], run: Any) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "digest": part.digest(),
        "mode": access.mode,
        "base_url": access.base_url,
        "project": target["project"],
        "entity": target.get("entity"),
        "directory": str(Path(run.settings.sync_dir).resolve()),
        "url": run.url if access.mode == "online" else None,
        "files": [str(path.relative_to(part.folder)) for path in part.files],
    }


def _mirrored(mark: Mapping[str, Any], digest: str, access: Access, target: Mapping[str, Any]) -> bool:
    """Whether `mark` says that these very files are where this call would put them."""
    same = mark.get("digest") == digest and mark.get("project") == target["project"]
    if not same or access.mode == "offline" or mark.get("mode") == "online":
        return same and (access.mode == "offline" or mark.get("base_url") == access.base_url)
    # Written offline, and `wandb sync` has uploaded it since: it left this file beside the run.
    return any(Path(mark.get("directory") or "-").glob("*.synced"))


def track(
    results: str | os.PathLike = "results",
    mode: str = "auto",
    project: str = "edgeff",
    entity: str | None = None,
    directory: str | os.PathLike = ".",
    again: bool = False,
) -> Iterator[dict[str, Any]]:
    """Mirror everything below `results` that is not mirrored yet; yields a line for each part as it is done.

    Each line: {part, run, run_id, state: uploaded|offline|unchanged|failed|disabled, url, warning}. A part
    whose files have changed since updates its W&B run under the same id. W&B out of reach costs a few seconds
    once: the rest is then kept offline, to be uploaded by a later call.
    """
    access = resolve_access(mode)
    parts = find_parts(results)
    target = {"project": project, "entity": entity or access.entity}
    warning = unreachable(access) if access.mode == "online" and parts else None
    if warning:
        access = access.offline(warning)
        warning += "; the runs are kept offline: `ff track` uploads them later"
    for part in parts:
        line = {
            "part": part.kind,
            "run": str(part.folder.relative_to(part.root)),
            "url": None,
            "warning": warning,
        }
        warning = None
        if access.mode == "disabled":
            yield line | {"run_id": None, "state": "disabled"}
            continue
        mark = read_json(part.marker) if part.marker.is_file() else {}
        if not again and _mirrored(mark, part.digest(), access, target):
            yield line | {"run_id": mark["run_id"], "state": "unchanged", "url": mark.get("url")}
            continue
        try:
            with used_environment(access, directory):
                run_id, access, problem, url = _upload(part, access, target, mark, directory)
            state = "uploaded" if access.mode == "online" else "offline"
            line |= {"run_id": run_id, "state": state, "url": url, "warning": line["warning"] or problem}
        except Exception as error:
            # One broken folder must not keep the others from being mirrored.
            problem = redacted(f"{line['run']} ({part.kind}): {type(error).__name__}: {error}", access)
            line |= {"run_id": mark.get("run_id"), "state": "failed", "warning": problem}
        yield line


def _upload(part: Part, access: Access, target: Mapping[str, Any], mark: Mapping[str, Any], directory: Any):
    metrics = read_json(part.folder / "metrics.json") if part.kind != "figures" else {}
    job_type = JOB_TYPES[part.kind]
    if part.kind == "figures":
        run_id, name = (
            names.identifier(job_type, str(part.root), platform.node()),
            f"figures of {part.root.name}",
        )
        labels, config = {"group": "figures", "tags": ["figures"]}, {"results": part.root.name}
    else:
        run_id, name = names.run_id(job_type, metrics), metrics["run"]["name"]
        labels, config = names.labels(metrics["run"]), names.run_config(metrics)
        if part.kind != "train":
            train = Part("train", part.folder)
            of = read_json(train.marker).get("run_id") if train.marker.is_file() else None
            config["run_id"], name = of or names.run_id("train", metrics), f"{name} {part.kind}"
    run_id = mark.get("run_id") or run_id
    run, access, warning = open_run(
        access,
        run_id=run_id,
        name=name,
        job_type=job_type,
        config=config,
        directory=directory,
        project=target["project"],
        **labels,
    )
    try:
        _MIRRORS[part.kind](run, metrics, part)
        url = run.url if access.mode == "online" else None
        note = _mark(part, run_id, access, target, run)
    except BaseException:
        run.finish(exit_code=1)
        raise
    _finish(run)
    # An offline copy that is now superseded would only repeat the rows: `wandb sync` passes over what has
    # this file.
    old = Path(mark.get("directory") or "-")
    if access.mode == "online" and mark.get("mode") == "offline":
        for path in old.glob("run-*.wandb"):
            path.with_name(path.name + ".synced").touch()
    write_json(part.marker, note)
    return run_id, access, warning, url


def _mirror_train(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    _define_steps(run)
    for row in _rows(part.folder / "history.csv"):
        run.log(names.epoch_row(row))
    _log_hardware_file(run, part.folder)
    _log_training(run, metrics, part.folder)


def _mirror_evaluation(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    _log_tables(run, names.evaluation_tables(part.folder))
    run.summary.update(names.evaluation_summary(part.folder))


def _mirror_variance(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    width = names.run_config(metrics).get("width", 0)
    for row in names.timing_rows(part.folder, width):
        run.log(row)
    statistics = names.timing_statistics(part.folder, width)
    if statistics:
        _log_tables(run, {"latency_stats_table": names.table(statistics)})
    run.summary.update(names.variance_summary(part.folder))


def _mirror_figures(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    import wandb

    images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in part.files if path.suffix == ".png"}
    if images:
        run.log(images)
    tables = {path.stem: names.table(read_csv(path)) for path in part.files if path.suffix == ".csv"}
    _log_tables(run, {name: content for name, content in tables.items() if content[1]}, "summary/")


_MIRRORS = {
    "train": _mirror_train,
    "evaluation": _mirror_evaluation,
    "variance": _mirror_variance,
    "figures": _mirror_figures,
}


# ---------------------------------------------------------------- `ff track`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff track`."""
    parser.add_argument("results", nargs="?", default="results", help="results folder (default: results)")
    parser.add_argument("--mode", choices=MODES, default="auto", help="auto: online with a key, else offline")
    parser.add_argument("--project", default="edgeff", help="W&B project (default: edgeff)")
    parser.add_argument("--entity", help="W&B user or team (default: the key's own)")
    parser.add_argument("--wandb-dir", default=".", help="where the folder wandb/ lies (default: here)")
    parser.add_argument("--again", action="store_true", help="mirror everything again, changed or not")


def run(args: argparse.Namespace) -> int:
    """`ff track`: 0 when everything is mirrored or kept offline, 1 when a part could not be read or taken."""
    counts: dict[str, int] = {}
    lines = track(args.results, args.mode, args.project, args.entity, args.wandb_dir, args.again)
    for line in lines:
        counts[line["state"]] = counts.get(line["state"], 0) + 1
        if line["warning"]:
            print(f"ff: {line['warning']}", file=sys.stderr)
        if line["state"] in ("uploaded", "offline"):
            print(f"{line['state']}: {line['run']} ({line['part']}) {line['url'] or line['run_id']}")
    print("W&B: " + (", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "nothing to mirror"))
    if counts.get("offline"):
        print(f"upload later with: ff track {args.results}, or: wandb sync {args.wandb_dir}/wandb/offline-run-*")
    return 1 if counts.get("failed") else 0


if __name__ == "__main__":
    code = mirror(sys.stdin, sys.stdout)
    # wandb's own clean-up at exit can wait 20 s for a server that has stopped answering; the run is closed by
    # now.
    os._exit(code)
