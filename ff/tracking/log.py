"""How a run's files are logged to an open W&B run, while it trains or afterwards."""

from collections.abc import Mapping
from typing import Any

from ff.errors import FFError
from ff.files import read_about
from ff.tracking import names
from ff.tracking.parts import Part


def define_steps(run: Any) -> None:
    """Say what is plotted against what: epochs, and hardware against its own seconds."""
    run.define_metric("epoch")
    for name in ("loss", "sample_val_accuracy", "learning_rate", "epoch_seconds", "validation_seconds", "goodness/*"):
        run.define_metric(name, step_metric="epoch")
    run.define_metric(names.HARDWARE_STEP, hidden=True)


class Hardware:
    """Logs hardware samples to a run, each with `hardware_seconds` since the first one as its step."""

    def __init__(self, run: Any):
        self._run = run
        self._defined: set[str] = set()
        self._start_s = 0.0
        self._last_s: float | None = None
        self._last_unix_s: float | None = None

    @property
    def empty(self) -> bool:
        """Whether no sample was logged yet."""
        return self._last_s is None

    def log(self, sample: Mapping[str, Any]) -> None:
        """Log a row of hardware.csv or a record of the hardware log; one without a time is passed over."""
        time_s, unix_s = names.quantity(sample.get("monotonic_s")), names.quantity(sample.get("unix_s"))
        if time_s is None:
            return
        if self._last_s is None:
            self._start_s = time_s
        elif time_s < self._last_s:  # another boot: the monotonic clock began anew, the wall clock went on
            gap_s = (
                max(0.0, unix_s - self._last_unix_s) if unix_s is not None and self._last_unix_s is not None else 0.0
            )
            self._start_s = time_s - (self._last_s - self._start_s + gap_s)
        self._last_s, self._last_unix_s = time_s, unix_s
        row = names.hardware_row(sample, self._start_s)
        for name in row.keys() - self._defined - {names.HARDWARE_STEP}:
            self._run.define_metric(name, step_metric=names.HARDWARE_STEP)
            self._defined.add(name)
        self._run.log(row)


def hardware_file(run: Any, part: Part) -> None:
    """Log hardware.csv of a training."""
    hardware = Hardware(run)
    for row in part.rows("hardware.csv"):
        hardware.log(row)


def training(run: Any, part: Part) -> None:
    """Log what is known of a finished training: config, summary, tables and the model."""
    metrics = part.document("metrics.json") or {}
    summary = names.training_summary(metrics) | names.energy_summary(part.document("hardware.json") or {})
    run.config.update(names.run_config(metrics), allow_val_change=True)
    tables(run, names.training_tables(metrics, part.rows("phases.csv")))
    run.log(summary)
    run.summary.update(summary)
    _model(run, metrics, part)


def tables(run: Any, tables: Mapping[str, names.Table], prefix: str = "") -> None:
    """Log tables under their names."""
    if tables:
        import wandb

        run.log({prefix + name: wandb.Table(columns=list(c), data=d) for name, (c, d) in tables.items()})


def _model(run: Any, metrics: Mapping[str, Any], part: Part) -> None:
    """The run's files as an artifact of type `model`: enough to be put back into a results folder."""
    weights = part.folder / "model.safetensors"
    if weights not in part.files:
        return
    import wandb

    config = names.run_config(metrics)
    cell = metrics["run"]
    metadata = {"layers": config.get("layers"), "width": config.get("width"), "dataset": cell["dataset"]}
    metadata |= {"seed": cell["seed"], "recipe": cell["recipe"], "model": part.model}
    metadata["format"] = f"ff-safetensors-{read_about(weights).get('format')}"
    name = f"model-{cell['dataset']}-{cell['layers']}-{cell['recipe']}-seed{cell['seed']}"[:128]
    artifact = wandb.Artifact(name, type="model", metadata=metadata)
    for path in part.files:
        artifact.add_file(str(path), name=path.name, skip_cache=True)
    run.log_artifact(artifact)


def finish(run: Any) -> None:
    """End a run once everything is taken. Raises FFError when W&B takes too long."""
    try:
        run.finish()
    except TimeoutError as error:
        raise FFError("W&B took too long to take the run; `ff track` uploads it again") from error
