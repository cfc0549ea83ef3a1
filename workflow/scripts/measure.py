"""Rules measure*: checkpoints -> variance/* of each run: times and energy on each device, agreement of the devices."""

from contextlib import nullcontext
from pathlib import Path

from ff.hardware.recorder import record
from ff.imports import heavy_imports
from ff.job_log import job
from ff.layout import RunKey, hardware_log

with heavy_imports():
    from ff.data.prepared import open_prepared
    from ff.measure.agreement import run_agreement
    from ff.measure.apart import apart
    from ff.measure.protocol import Times
    from ff.measure.run import run_measurement, run_power_modes

measure = snakemake.params.measure
how = {name: measure[name] for name in ("devices", "threads", "batch_sizes", "energy_windows", "runtimes")}
how |= {"times": Times(measure["repeats"], measure["single_samples"], measure["rounds"])}


def measured(folder: Path) -> None:
    """Write what is measured of one run."""
    log = hardware_log(snakemake.config["results"], RunKey.parse("/".join(folder.parts[-4:])), "measure")
    inline = snakemake.config["sidecar"] == "inline"
    with record(log, snakemake.config["hw_interval_ms"]) if inline else nullcontext():
        prepared = open_prepared(snakemake.input.data, snakemake.config["verify"])
        run_measurement(folder, prepared, **how)
        run_power_modes(folder, prepared, measure["power_modes"], **how)
        run_agreement(folder, prepared, measure["devices"])


with job(*snakemake.log):
    for model in snakemake.input.model:
        apart(measured, Path(model).parent)
