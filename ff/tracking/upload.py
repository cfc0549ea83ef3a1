"""Runs mirrored after the fact: one W&B run for each training, evaluation and set of timings, one for the figures."""

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.files import read_csv, read_json, write_json
from ff.layout import MEASURE_FOLDER
from ff.settings import ExecutionConfig
from ff.tracking import log, names
from ff.tracking.parts import Part, find_parts, is_mirrored, note_of
from ff.tracking.session import MODES, Access, open_run, redacted, resolve_access, unreachable, used_environment

JOB_TYPES = {"train": "train", "evaluation": "eval", "variance": "variance-eval", "figures": "figures"}


def track(
    results: str | os.PathLike = "results",
    mode: str = "auto",
    project: str = ExecutionConfig.project,
    entity: str | None = None,
    directory: str | os.PathLike = ".",
    again: bool = False,
) -> Iterator[dict[str, Any]]:
    """Mirror everything below `results` that is not mirrored yet; yields a line for each part as it is done.

    Each line: {part, run, run_id, state: uploaded|offline|unchanged|stale|failed|disabled, url, warning}. A part
    whose files have changed since updates its W&B run under the same id. Files of another model than their run now
    holds are left out; a part of nothing else is `stale`. A part that cannot be read or taken is `failed` and stops
    no other. W&B out of reach costs a few seconds once: the rest is then kept offline, to be uploaded by a later
    call. Raises FFError when there is no such folder, for an unknown mode, and where `online` was asked for and cannot
    be, since there is no key or no wandb.
    """
    access = resolve_access(mode)
    if access.warning:
        raise FFError(f"{access.warning}; `ff track --mode offline` keeps the runs until then")
    parts = find_parts(results)
    target = {"project": project, "entity": entity or access.entity}
    warning = unreachable(access) if access.mode == "online" and parts else None
    if warning:
        access = access.offline(warning)
        warning += "; the runs are kept offline: `ff track` uploads them later"
    if access.mode == "disabled":
        warning = f"nothing is mirrored: {access.reason}"
    for part in parts:
        line = {"part": part.kind, "run": _shown(part, results), "run_id": None, "url": None, "warning": warning}
        try:
            if not (part.files or part.stale):
                continue
            access, found = _track(part, access, target, directory, again)
            line |= {**found, "warning": "; ".join(filter(None, [line["warning"], found["warning"]])) or None}
        except Exception as error:
            # One broken folder must not keep the others from being mirrored.
            problem = redacted(f"{line['run']} ({part.kind}): {type(error).__name__}: {error}", access)
            line |= {"state": "failed", "warning": problem}
        warning = None
        yield line


def _shown(part: Part, results: str | os.PathLike) -> str:
    return part.folder.relative_to(Path(results).resolve()).as_posix()


def _track(
    part: Part, access: Access, target: Mapping[str, Any], directory: str | os.PathLike, again: bool
) -> tuple[Access, dict[str, Any]]:
    """(the access that could be used, what a line of `track` says of the part)."""
    left_out = "; ".join(f"{part.folder / name} is left out, {reason}" for name, reason in part.stale.items()) or None
    if access.mode == "disabled":
        return access, {"state": "disabled", "warning": None}
    note = _note(part)
    metrics = {} if part.kind == "figures" else Part("train", part.folder).document("metrics.json")
    if metrics is None or not part.files:
        return access, {"run_id": note.get("run_id"), "state": "stale", "warning": left_out}
    if not again and is_mirrored(note, part.digest(), access, target):
        return access, {"run_id": note["run_id"], "state": "unchanged", "url": note.get("url"), "warning": left_out}
    with used_environment(access, directory):
        run_id, access, problem, url = _upload(part, metrics, access, target, note, directory)
    state = "uploaded" if access.mode == "online" else "offline"
    warning = "; ".join(filter(None, [problem, left_out])) or None
    return access, {"run_id": run_id, "state": state, "url": url, "warning": warning}


def _note(part: Part) -> dict[str, Any]:
    """What was noted when the part was mirrored; {} where it was not, or where that cannot be read."""
    try:
        note = read_json(part.marker) if part.marker.is_file() else {}
    except FFError:
        return {}
    return note if isinstance(note, dict) else {}


def _upload(
    part: Part,
    metrics: Mapping[str, Any],
    access: Access,
    target: Mapping[str, Any],
    note: Mapping[str, Any],
    directory: str | os.PathLike,
) -> tuple[str, Access, str | None, str | None]:
    """Write the part to its W&B run, new or old: (its id, the access used, warning, address)."""
    job_type = JOB_TYPES[part.kind]
    if part.kind == "figures":
        run_id, config = names.identifier(job_type, str(part.root), platform.node()), {"results": part.root.name}
        labels: dict[str, Any] = {"name": f"figures of {part.root.name}", "group": "figures", "tags": ["figures"]}
    else:
        run_id, config = names.run_id(job_type, metrics, part.sweep), names.run_config(metrics)
        labels = names.labels(metrics["config"])
        if part.sweep:
            config["sweep"] = part.sweep
            labels["tags"].append(part.sweep[:64])
        if part.kind != "train":
            train = names.run_id("train", metrics, part.sweep)
            config["run_id"] = _note(Part("train", part.folder)).get("run_id") or train
            labels["name"] += f" {part.kind}"
    run_id = note.get("run_id") or run_id
    run, access, warning = open_run(
        access,
        run_id=run_id,
        job_type=job_type,
        config=config,
        directory=directory,
        project=target["project"],
        **labels,
    )
    try:
        _MIRRORS[part.kind](run, metrics, part)
        url = run.url if access.mode == "online" else None
        new = note_of(part, run_id, access, target, run)
    except BaseException:
        run.finish(exit_code=1)
        raise
    log.finish(run)
    # An offline copy that is now superseded would only repeat the rows: `wandb sync` passes over what has this file.
    old = Path(note.get("directory") or "-")
    if access.mode == "online" and note.get("mode") == "offline":
        for path in old.glob("run-*.wandb"):
            path.with_name(path.name + ".synced").touch()
    write_json(part.marker, new)
    return run_id, access, warning, url


def _mirror_train(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    log.define_steps(run)
    for row in part.rows("history.csv"):
        run.log(names.epoch_row(row))
    log.hardware_file(run, part)
    log.training(run, part)


def _mirror_evaluation(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    evaluation, early_exit = part.document("evaluation.json") or {}, part.document("early_exit.json") or {}
    files = {name: part.rows(f"{name}.csv") for name in ("early_exit", "distributions")}
    log.tables(run, names.evaluation_tables(evaluation, files))
    run.summary.update(names.evaluation_summary(evaluation, early_exit))


def _mirror_measurement(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    width = names.run_config(metrics).get("width", 0)
    stems = sorted({path.stem for path in part.files if path.stem not in ("agreement", "hardware", "phases")})
    for stem in stems:
        for row in names.timing_rows(part.rows(f"{MEASURE_FOLDER}{stem}.csv"), width):
            run.log(row)
    devices = {stem: part.document(f"{MEASURE_FOLDER}{stem}.json") or {} for stem in stems}
    statistics = names.timing_statistics(devices, width)
    if statistics:
        log.tables(run, {"latency_stats_table": names.table(statistics)})
    run.summary.update(names.measurement_summary(devices, part.document(MEASURE_FOLDER + "agreement.json") or {}))


def _mirror_figures(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    import wandb

    images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in part.files if path.suffix == ".png"}
    if images:
        run.log(images)
    tables = {path.stem: names.table(read_csv(path)) for path in part.files if path.suffix == ".csv"}
    log.tables(run, {name: content for name, content in tables.items() if content[1]}, "summary/")


_MIRRORS = {
    "train": _mirror_train,
    "evaluation": _mirror_evaluation,
    "variance": _mirror_measurement,
    "figures": _mirror_figures,
}


# ---------------------------------------------------------------- `ff track`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ff track`."""
    parser.add_argument("results", nargs="?", default="results", help="results folder (default: results)")
    parser.add_argument("--mode", choices=MODES, default="auto", help="auto: online with a key, else offline")
    parser.add_argument("--project", default=ExecutionConfig.project, help="W&B project [%(default)s]")
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
