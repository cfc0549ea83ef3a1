"""How a run's files are logged to an open W&B run, while it trains or afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ff.errors import FFError
from ff.files import read_csv, read_json
from ff.tracking import names
from ff.tracking.parts import TRAINING_FILES


def define_steps(run: Any) -> None:
    run.define_metric("epoch")
    for name in ("loss", "sample_val_accuracy", "learning_rate", "epoch_seconds", "goodness/*"):
        run.define_metric(name, step_metric="epoch")
    run.define_metric(names.HARDWARE_STEP, hidden=True)


def hardware(run: Any, row: Mapping[str, Any], defined: set[str]) -> None:
    for name in row:
        if name not in defined and name != names.HARDWARE_STEP:
            run.define_metric(name, step_metric=names.HARDWARE_STEP)
            defined.add(name)
    if row:
        run.log(dict(row))


def hardware_file(run: Any, folder: Path) -> None:
    rows = rows_of(folder / "hardware.csv")
    start = names.number(rows[0].get("monotonic_s")) if rows else None
    defined: set[str] = set()
    for row in rows if start is not None else []:
        hardware(run, names.hardware_row(row, start), defined)


def training(run: Any, metrics: Mapping[str, Any], folder: Path) -> None:
    summary = names.training_summary(metrics)
    if (folder / "hardware.json").is_file():
        summary |= names.energy_summary(read_json(folder / "hardware.json"))
    run.config.update(names.run_config(metrics), allow_val_change=True)
    tables(run, names.training_tables(folder))
    run.log(summary)
    run.summary.update(summary)
    _model(run, metrics, folder)


def tables(run: Any, tables: Mapping[str, names.Table], prefix: str = "") -> None:
    if tables:
        import wandb

        run.log({prefix + name: wandb.Table(columns=list(c), data=d) for name, (c, d) in tables.items()})


def _model(run: Any, metrics: Mapping[str, Any], folder: Path) -> None:
    """The run's files as an artifact of type `model`: enough to be put back into a results folder."""
    files = [folder / name for name in TRAINING_FILES if (folder / name).is_file()]
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


def finish(run: Any) -> None:
    try:
        run.finish()
    except TimeoutError as error:
        raise FFError("W&B took too long to take the run; `ff track` uploads it again") from error


def rows_of(path: Path) -> list[dict[str, str]]:
    return read_csv(path) if path.is_file() else []
