"""A training run from config to finished folder: data, training, scores, files.

The run's folder gets model.safetensors, history.csv, phases.csv, hardware.csv and hardware.json, and last
metrics.json: where that stands, the run is complete.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ff import checkpoint, provenance
from ff.config import ExecutionConfig, RunConfig
from ff.datasets import Prepared, open_or_prepare, standardise
from ff.devices import choose_device
from ff.errors import FFError
from ff.evaluation import confusion, identify, predict, scores
from ff.files import read_json, write_csv, write_json, write_text
from ff.network import readout_macs, training_macs
from ff.phases import PhaseLog
from ff.resume import discard_state, has_state, load_state, run_lock, save_state
from ff.trainer import Epoch, Trainer, effective_val_size, history_columns, history_rows

Say = Callable[[str], None]
OnEpoch = Callable[[Epoch, int], None]
PHASES_STATE = ".phases.csv"
# getrusage(2): kilobytes on Linux, bytes on macOS.
_MAXRSS_PER_MB = 2**20 if sys.platform == "darwin" else 2**10
FILES = ("model.safetensors", "metrics.json", "history.csv", "phases.csv")


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
    inline_monitor: bool | None = None,
    summarise: bool = True,
) -> list[Path]:
    """Train the run of `config`, or one run for each of `seeds` as a group, and write the folders; gives them.

    A run that was interrupted goes on from its last epoch. `hardware_log` is where the hardware samples are, or
    (`inline_monitor`, by default the setting enable_hw_monitor) are written by this process, which then makes
    hardware.csv and hardware.json of them unless `summarise` is off (the DAG has a rule for that).
    Raises FFError when the data cannot be had, the loss stops being finite, or a file cannot be written.
    """
    configs = [replace(config, seed=seed) for seed in (seeds or [config.seed])]
    folders = [run_folder(one, execution.out) for one in configs]
    log = Path(hardware_log or folders[0] / "hardware.jsonl")
    inline = execution.enable_hw_monitor if inline_monitor is None else inline_monitor
    if execution.threads:
        torch.set_num_threads(execution.threads)
    device = choose_device(execution)
    with ExitStack() as stack:
        waited = [stack.enter_context(run_lock(folder, say)) for folder in folders]
        if all(waited) and all(is_complete(folder, one) for folder, one in zip(folders, configs, strict=True)):
            say("the other process has finished the run: nothing left to do")
            return folders
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
            _train_locked(configs, folders, execution, device, list(warnings), say, on_epoch)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise FFError(
                f"{config.name} does not fit into the memory of {device}; "
                "take narrower layers, a smaller batch or fewer seeds in a group"
            ) from error
    return folders


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU torch raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _train_locked(
    configs: list[RunConfig],
    folders: list[Path],
    execution: ExecutionConfig,
    device: torch.device,
    warnings: list[str],
    say: Say,
    on_epoch: OnEpoch,
) -> None:
    config, started = configs[0], time.time()
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    phases = PhaseLog(folders[0] / PHASES_STATE)
    with phases.phase("load"):
        prepared = open_or_prepare(
            config.dataset, execution.data_dir, execution.prepared_dir, execution.verify, execution.download
        )
        images = standardise(prepared.train, prepared.facts, device, dtype)
        trainer = Trainer(config, [one.seed for one in configs], images)
    warnings = [*warnings, *prepared.warnings, *_reduced_validation(config, len(images.labels))]
    for warning in warnings:
        say(f"warning: {warning}")
    key = "-".join([*(one.identity() for one in configs), provenance.code_hash(), prepared.content[:12], device.type])
    resumed_from = len(trainer.state.history) if load_state(folders[0], key, trainer.state, say) else None
    total = sum(epochs for _, epochs in trainer.schedule)
    if resumed_from is None:
        phases.forget_earlier()
    else:
        say(f"resuming after epoch {resumed_from} of {total}")
    for folder in folders:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    for phase, _ in trainer.schedule:
        with phases.phase(phase):
            for epoch in trainer.epochs(phase):
                save_state(folders[0], key, trainer.state)
                on_epoch(epoch, total)
    with phases.phase("evaluation"):
        results = score(trainer, prepared)
    common = {
        "seconds": _seconds(trainer, phases),
        "peak_memory_mb": {
            "host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MAXRSS_PER_MB,
            "device": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
        },
        "provenance": {
            **provenance.describe(),
            "data": {"content": prepared.content, "verified": prepared.verified},
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "group_seeds": [one.seed for one in configs],
            "warnings": warnings,
        },
        "resumed_from_epoch": resumed_from,
    }
    marks = phases.path.read_text()
    network = trainer.state.network
    for index, (one, folder) in enumerate(zip(configs, folders, strict=True)):
        checkpoint.save(folder / "model.safetensors", network, index, one)
        write_csv(folder / "history.csv", history_columns(network.depth), history_rows(trainer.state.history, index))
        write_text(folder / "phases.csv", marks)
        write_json(folder / "metrics.json", metrics(one, results[index], trainer, common))
    for folder in folders:
        discard_state(folder)
    phases.path.unlink()


def _reduced_validation(config: RunConfig, count: int) -> list[str]:
    held_out = effective_val_size(config.val_size, count)
    if held_out == config.val_size:
        return []
    return [
        f"val_size {config.val_size} does not leave anything of {config.dataset}'s {count} training samples: "
        f"{held_out} are held out"
    ]


def score(trainer: Trainer, prepared: Prepared) -> list[list[dict[str, Any]]]:
    """Accuracy, macro-F1 and error of each seed: a row for each split, readout and depth. Reads the test data."""
    config, network, split = trainer.config, trainer.state.network, trainer.split
    with_goodness = config.settings.method == "forward-forward"
    test = standardise(prepared.test, prepared.facts, trainer.device, trainer.images.pixels.dtype)
    parts = [("train", trainer.images, split.train), ("val", trainer.images, split.val), ("test", test, None)]
    rows: list[list[dict[str, Any]]] = [[] for _ in trainer.seeds]
    for name, images, chosen in parts:
        if chosen is not None and chosen.shape[1] == 0:
            continue
        predicted = predict(network, images, chosen, config.test_batch_size, with_goodness)
        for readout in ("head", "goodness") if with_goodness else ("head",):
            classes = getattr(predicted, readout)
            for seed in range(len(trainer.seeds)):
                for depth in range(network.depth):
                    counts = confusion(classes[seed, :, depth], predicted.labels[seed])
                    rows[seed].append({"split": name, "readout": readout, "depth": depth + 1, **scores(counts)})
    return rows


def metrics(
    config: RunConfig, results: list[dict[str, Any]], trainer: Trainer, common: dict[str, Any]
) -> dict[str, Any]:
    """The content of metrics.json for one run (workflow/schemas/metrics.schema.json)."""
    at_full_depth = {
        (row["split"], row["readout"]): row for row in results if row["depth"] == trainer.state.network.depth
    }

    def accuracy(split: str, readout: str) -> float | None:
        return at_full_depth.get((split, readout), {}).get("accuracy")

    seconds, count = common["seconds"], trainer.split.train.shape[1] * len(trainer.seeds)
    method = config.settings.method
    return {
        "schema": 1,
        "config": config.as_dict(),
        "run": identify(config),
        "final": {
            f"{split}_{suffix}": accuracy(split, readout)
            for split in ("test", "val", "train")
            for suffix, readout in (("accuracy", "head"), ("goodness_accuracy", "goodness"))
        },
        "results": results,
        "seconds": seconds,
        "samples_per_s": {
            phase: count * epochs / seconds[phase] if epochs and seconds[phase] else None
            for phase, epochs in trainer.schedule
        },
        "parameters": trainer.state.network.parameter_count(),
        "macs_per_sample": {
            "train_step": training_macs(config.layers, method),
            **readout_macs(config.layers),
        },
        "peak_memory_mb": common["peak_memory_mb"],
        "resumed_from_epoch": common["resumed_from_epoch"],
        "provenance": common["provenance"],
    }


def _seconds(trainer: Trainer, phases: PhaseLog) -> dict[str, float]:
    """Seconds of each phase; epochs trained before an interruption count, as their history does."""
    seconds = {"load": phases.seconds["load"]}
    for phase, _ in trainer.schedule:
        seconds[phase] = sum(epoch.seconds for epoch in trainer.state.history if epoch.phase == phase)
    seconds["evaluation"] = phases.seconds["evaluation"]
    return seconds | {"total": sum(seconds.values())}


def is_complete(folder: Path, config: RunConfig) -> bool:
    """Whether the folder holds the finished run of this very config, with all its files."""
    if not all((folder / name).is_file() for name in FILES):
        # A workflow that starts a run anew removes its files, maybe between two that another process writes.
        return False
    try:
        return read_json(folder / "metrics.json")["config"] == config.as_dict()
    except (FFError, KeyError, TypeError):
        return False


def _summarise_hardware(folders: list[Path], log: Path, say: Say) -> None:
    """hardware.csv and hardware.json of each folder; never the reason for a run to fail."""
    from ff.hardware.summary import summarise

    for folder in folders:
        marks = folder / "phases.csv" if (folder / "phases.csv").exists() else folders[0] / PHASES_STATE
        try:
            summarise(log, marks, folder / "hardware.csv", folder / "hardware.json")
        except FFError as error:
            say(f"warning: no hardware summary: {error}")
