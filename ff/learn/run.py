"""A training run from config to finished folder: data, training, scores, files.

The run's folder gets model.safetensors, history.csv, phases.csv, hardware.csv and hardware.json, and last
metrics.json: where that stands, the run is complete.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ff import provenance
from ff.data.images import standardise
from ff.data.prepared import Prepared, open_or_prepare, prepared_path, why_outdated
from ff.errors import FFError, is_out_of_memory
from ff.files import read_about, read_json, remove, write_csv, write_json
from ff.hardware.idle import idle_window
from ff.learn import checkpoint, precision, readings_file
from ff.learn.devices import choose_device
from ff.learn.draws import effective_val_size
from ff.learn.products import choose_library, library
from ff.learn.readings import Readings, read_splits
from ff.learn.readings_file import keep
from ff.learn.readouts import at_full_depth, score_name
from ff.learn.recipes import rule_of
from ff.learn.resume import Saver, discard_state, has_state, load_state, run_lock
from ff.learn.rules import READOUTS
from ff.learn.scores import confusion, scores
from ff.learn.staging import begin, carry_on, publish
from ff.learn.trainer import Epoch, Trainer, history_columns, history_rows
from ff.memory import peak_host_mb
from ff.phases import IDLE, IDLE_AFTER, IDLE_BEFORE, START, PhaseLog
from ff.settings import ExecutionConfig, RunConfig
from ff.stamps import COLUMN, identify, model_of, stamp_of, why_stale

Say = Callable[[str], None]
OnEpoch = Callable[[Epoch, int], None]
FILES = ("model.safetensors", "metrics.json", "history.csv", "phases.csv")
# Of a training that is not finished: an older result keeps its own files until the new one is complete.
PHASES_STATE, HARDWARE_LOG_STATE = ".phases.csv", ".hardware.jsonl"
HARDWARE_LOG = "hardware.jsonl"
# What `standing_result` says of a folder.
NOTHING, SAME = "nothing", "same"
ALREADY_FINISHED = "the run is finished with these settings: nothing to do (--overwrite trains it again)"


def run_folder(config: RunConfig, out: str | os.PathLike) -> Path:
    """Where the run's files go: {out}/{dataset}/{layers}/{recipe}/seed{seed}."""
    return Path(out) / config.name


def train(
    config: RunConfig,
    execution: ExecutionConfig,
    seeds: Sequence[int] | None = None,
    warnings: Sequence[str] = (),
    say: Say = lambda text: None,
    on_epoch: OnEpoch = lambda epoch, total: None,
    hardware_log: str | os.PathLike | None = None,
    summarise: bool = True,
    overwrite: bool = False,
    started_s: float | None = None,
) -> list[Path]:
    """Train the run of `config`, or one run for each of `seeds` as a group, and write the folders; returns them.

    A run that was interrupted goes on from its last saved state. A finished result of the same settings is left as it
    is; one of other settings, or any with `overwrite`, is replaced once the new one is complete, which needs
    `overwrite`. `hardware_log` is where the hardware samples are, or, with `sidecar` inline, are written by this
    process, which then makes hardware.csv and hardware.json of them unless `summarise` is off (the DAG has a rule for
    that). `started_s`: when the work began on the monotonic clock, for a process that was started for this training
    alone; the time until now counts as `import`. Raises FFError when the folder holds a finished result of other
    settings, the data cannot be had, the loss stops being finite, or a file cannot be written.
    """
    configs = [replace(config, seed=seed) for seed in (seeds or [config.seed])]
    folders = [run_folder(one, execution.out) for one in configs]
    started_s = time.monotonic() if started_s is None else started_s
    inline = execution.sidecar == "inline"
    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = choose_device(execution)
    choose_library()
    choice = precision.choose(config, device)
    configs = [replace(one, precision=choice.precision) for one in configs]
    with ExitStack() as stack:
        waited = [stack.enter_context(run_lock(folder, say)) for folder in folders]
        for folder in folders:
            carry_on(folder)
        standing = [standing_result(folder, one, execution) for folder, one in zip(folders, configs, strict=True)]
        if all(result == SAME for result in standing) and (all(waited) or not overwrite):
            say("the other process has finished the run: nothing left to do" if all(waited) else ALREADY_FINISHED)
            _tidy(folders)
            if summarise and inline and why_stale(_hardware_stamp(folders[0]), model_of(folders[0])):
                # Killed between the result and the summary of its hardware log.
                _summarise_hardware(folders, Path(hardware_log or folders[0] / HARDWARE_LOG_STATE), say)
            return folders
        for folder, result in zip(folders, standing, strict=True):
            if result not in (SAME, NOTHING) and not overwrite:
                raise FFError(
                    f"{folder} holds a finished run with other settings ({result}); keep it by giving another --out, "
                    "or replace it with --overwrite"
                )
        log = Path(hardware_log or folders[0] / HARDWARE_LOG_STATE)
        if inline:
            from ff.hardware.recorder import record

            if not has_state(folders[0]):
                # What it holds is of a training that is over; this one begins anew.
                log.unlink(missing_ok=True)
            # Entered first, left last: the summary of a run that failed is written too.
            if summarise:
                stack.callback(_summarise_hardware, folders, log, say)
            stack.enter_context(record(log, execution.hw_interval_ms))
        try:
            # Idle power is of use only where somebody records power.
            idle_s = 0.0 if execution.sidecar == "off" else execution.idle_s
            why = choice.why
            _train_locked(configs, folders, execution, device, why, list(warnings), say, on_epoch, started_s, idle_s)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise FFError(
                f"{config.name} does not fit into the memory of {device}; "
                "take narrower layers, a smaller batch or fewer seeds in a group"
            ) from error
    return folders


def _train_locked(
    configs: list[RunConfig],
    folders: list[Path],
    execution: ExecutionConfig,
    device: torch.device,
    why_precision: str,
    warnings: list[str],
    say: Say,
    on_epoch: OnEpoch,
    started_s: float,
    idle_s: float,
) -> None:
    config, started = configs[0], time.time()
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    phases = PhaseLog(folders[0] / PHASES_STATE)
    phases.mark(START, started_s)
    with phases.phase("load"):
        prepared = open_or_prepare(
            config.dataset, execution.data_dir, execution.prepared_dir, execution.verify, execution.download
        )
        images = standardise(prepared.train, prepared.facts, device, dtype)
        trainer = Trainer(config, [one.seed for one in configs], images, phases.phase, execution.cuda_graph)
    warnings = [*warnings, *prepared.warnings, *_reduced_validation(config, len(images.labels))]
    for warning in warnings:
        say(f"warning: {warning}")
    code = provenance.training_hash(rule_of(config).__name__)
    key = "-".join([*(one.identity() for one in configs), code, prepared.content[:12], device.type, library()])
    earlier = load_state(folders[0], key, trainer.state, say)
    phases.continue_after(earlier or [])
    total = sum(epochs for _, epochs in trainer.schedule)
    resumed_from = None if earlier is None else len(trainer.state.history)
    if resumed_from is not None:
        say(f"resuming after epoch {resumed_from} of {total}")
    if idle_s > 0:
        idle_window(phases, IDLE_BEFORE, idle_s)
    saver = Saver(folders[0], key, trainer.state, execution.save_every_s)
    for phase, _ in trainer.schedule:
        for epoch in trainer.epochs(phase):
            saver.after_epoch(phases.rows)
            on_epoch(epoch, total)
    with phases.phase("evaluation"):
        readings = read_all(trainer, prepared)
    if idle_s > 0:
        idle_window(phases, IDLE_AFTER, idle_s)
    common = {
        "peak_memory_mb": {
            "host": peak_host_mb(),
            "device": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
        },
        "provenance": {
            **provenance.describe(),
            "code_hash": code,
            "data": {"content": prepared.content, "verified": prepared.verified},
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cuda_graph": execution.cuda_graph,
            "threads": torch.get_num_threads(),
            "float32_products": library(),
            "why_precision": why_precision,
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "group_seeds": [one.seed for one in configs],
            "warnings": warnings,
        },
        "resumed_from_epoch": resumed_from,
    }
    network = trainer.state.network
    staged = [begin(folder) for folder in folders]
    models = []
    with phases.phase("write"):
        for index, (one, folder) in enumerate(zip(configs, staged, strict=True)):
            models.append(checkpoint.save(folder / "model.safetensors", network, index, one))
            rows = [{COLUMN: models[-1], **row} for row in history_rows(trainer.state.history, index)]
            write_csv(folder / "history.csv", [COLUMN, *history_columns(network.depth)], rows)
            kept = keep(readings, rule_of(config).READOUTS, index)
            readings_file.save(folder, kept, models[-1], prepared.content)
    common["seconds"] = _seconds(trainer, phases)
    for index, (one, folder, model) in enumerate(zip(configs, staged, models, strict=True)):
        phases.write(folder / "phases.csv", model)
        write_json(folder / "metrics.json", metrics(one, model, results(one, readings, index), trainer, common))
    for folder in folders:
        publish(folder)
    _tidy(folders)


def _tidy(folders: list[Path]) -> None:
    """Remove what only a training that is not finished needs."""
    for folder in folders:
        discard_state(folder)
        remove(folder / PHASES_STATE)


def _reduced_validation(config: RunConfig, count: int) -> list[str]:
    held_out = effective_val_size(config.val_size, count)
    if held_out == config.val_size:
        return []
    return [
        f"val_size {config.val_size} does not leave anything of {config.dataset}'s {count} training samples: "
        f"{held_out} are held out"
    ]


def read_all(trainer: Trainer, prepared: Prepared) -> dict[tuple[str, str], Readings]:
    """What the networks say of all splits at the end, {(split, readout): readings}. Reads the test data.

    Not asked again are the validation images that the last epochs asked about, nor training images whose features a
    phase has kept.
    """
    network, split = trainer.state.network, trainer.split
    test = standardise(prepared.test, prepared.facts, trainer.device, trainer.images.factor.dtype)
    every = torch.arange(len(prepared.test.labels)).expand(len(trainer.seeds), -1)
    splits = {"train": (trainer.images, split.train), "val": (trainer.images, split.val), "test": (test, every)}
    known = {("val", name): seen for name, seen in trainer.validated.items()}
    if split.val.shape[1]:
        known |= {("train", name): seen for name, seen in trainer.kept_readings().items()}
    return read_splits(network, splits, rule_of(trainer.config).READOUTS, trainer.config.test_batch_size, known)


def results(config: RunConfig, readings: Mapping[tuple[str, str], Readings], seed_index: int) -> list[dict[str, Any]]:
    """Accuracy, macro-F1 and error of one seed: a row for each split, readout and depth."""
    readouts = {readout.name: readout for readout in rule_of(config).READOUTS}
    rows = []
    for (split, name), seen in readings.items():
        answers = readouts[name].answers(seen.said[name][seed_index])
        for layer in range(answers.shape[1]):
            counts = confusion(answers[:, layer], seen.labels[seed_index], config.classes)
            rows.append({"split": split, "readout": name, "depth": layer + 1, **scores(counts)})
    return rows


def metrics(
    config: RunConfig, model: str, results: list[dict[str, Any]], trainer: Trainer, common: dict[str, Any]
) -> dict[str, Any]:
    """The content of metrics.json for one run (workflow/schemas/metrics.schema.json); `model` is its stamp."""
    last = at_full_depth(results)

    def accuracy(split: str, readout: str) -> float | None:
        return last.get((split, readout), {}).get("accuracy")

    seconds, count = common["seconds"], trainer.split.train.shape[1] * len(trainer.seeds)
    rule = rule_of(config)
    return {
        "schema": 1,
        "config": config.as_dict(),
        "run": identify(config, model),
        "final": {
            f"{split}_{score_name('accuracy', readout)}": accuracy(split, readout)
            for split in ("test", "val", "train")
            for readout in READOUTS
        },
        "results": results,
        "seconds": seconds,
        "shared_by_seeds": len(trainer.seeds),
        "samples_per_s": {
            phase: count * epochs / seconds[phase] if epochs and seconds[phase] else None
            for phase, epochs in trainer.schedule
        },
        "parameters": trainer.state.network.parameter_count(),
        "macs_per_sample": {
            "train_step": rule.training_macs(config),
            **{f"{readout.name}_readout": readout.macs(config.layers, config.classes) for readout in rule.READOUTS},
        },
        "peak_memory_mb": common["peak_memory_mb"],
        "resumed_from_epoch": common["resumed_from_epoch"],
        "provenance": common["provenance"],
    }


def _seconds(trainer: Trainer, phases: PhaseLog) -> dict[str, float]:
    """Seconds of each part, over all processes that had a share in the run, until its metrics are written.

    Training, validation and scoring are apart. `total` is the wall time of those processes; of one that was killed, up
    to its last mark that counts. `other` is what no part claims, so that nothing of the total is hidden.
    """
    *earlier, last = phases.stretches()
    seconds = {name: phases.seconds(name) for name in (START, "load")}
    seconds |= {phase: phases.seconds(phase) for phase, _ in trainer.schedule}
    seconds |= {name: phases.seconds(name) for name in ("validation", "evaluation", "write")}
    seconds["idle"] = sum(phases.seconds(name) for name in IDLE)
    total = sum(stretch[-1].end_monotonic_s - stretch[0].start_monotonic_s for stretch in earlier)
    total += time.monotonic() - last[0].start_monotonic_s
    return seconds | {"other": max(0.0, total - sum(seconds.values())), "total": total}


def standing_result(folder: Path, config: RunConfig, execution: ExecutionConfig) -> str:
    """What the folder holds: NOTHING (no finished run), SAME (one of this config and data), or what is different."""
    if not all((folder / name).is_file() for name in FILES):
        # A workflow that starts a run anew removes its files, maybe between two that another process writes.
        return NOTHING
    try:
        found = read_json(folder / "metrics.json")
        there, asked = (_flat(settings) for settings in (found["config"], config.as_dict()))
        images = found["provenance"]["data"]["content"]
    except (FFError, KeyError, TypeError, AttributeError):
        return NOTHING
    if why_stale(stamp_of(found), model_of(folder)):
        return NOTHING
    differing = [name for name in {**asked, **there} if there.get(name) != asked.get(name)]
    shown = [f"{name} is {there.get(name, 'unknown')} there, not {asked.get(name, 'unknown')}" for name in differing]
    prepared = prepared_path(config.dataset, execution.prepared_dir)
    if prepared.exists():
        place = (config.dataset, execution.data_dir, execution.prepared_dir, execution.verify)
        if read_about(prepared).get("content") != images:
            shown.append(f"it was trained on other images than {prepared} holds")
        elif why := why_outdated(*place):
            shown.append(f"its images: {why}")
    return "; ".join(shown) or SAME


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "recipe_settings"} | settings["recipe_settings"]


def _hardware_stamp(folder: Path) -> str | None:
    try:
        return stamp_of(read_json(folder / "hardware.json"))
    except FFError:
        return None


def _summarise_hardware(folders: list[Path], log: Path, say: Say) -> None:
    """hardware.csv and hardware.json of each folder; never the reason for a run to fail."""
    from ff.hardware.summary import summarise

    failed = (folders[0] / PHASES_STATE).exists()
    if failed and any((folder / "metrics.json").exists() for folder in folders):
        # The older result keeps its own.
        return
    if not failed and log == folders[0] / HARDWARE_LOG_STATE:
        log = log.replace(folders[0] / HARDWARE_LOG) if log.exists() else folders[0] / HARDWARE_LOG
    for folder in folders:
        marks = folders[0] / PHASES_STATE if failed else folder / "phases.csv"
        for name in ("hardware.csv", "hardware.json"):
            remove(folder / name)
        try:
            summarise(log, marks, folder / "hardware.csv", folder / "hardware.json")
        except FFError as error:
            say(f"warning: no hardware summary: {error}")
