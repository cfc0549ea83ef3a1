"""Rule measure: checkpoint -> variance/*: times and energy on each device, agreement of the devices."""

from contextlib import nullcontext
from pathlib import Path

from ff.data.prepared import open_prepared
from ff.hardware.recorder import record
from ff.job_log import job
from ff.layout import RunKey, hardware_log
from ff.measure.agreement import run_agreement
from ff.measure.protocol import Times
from ff.measure.run import run_measurement

folder = Path(snakemake.input.model).parent
measure = snakemake.params.measure
log = hardware_log(snakemake.config["results"], RunKey.of(dict(snakemake.wildcards.items())), "measure")
inline = snakemake.config["sidecar"] == "inline"
recording = record(log, snakemake.config["hw_interval_ms"]) if inline else nullcontext()
with job(snakemake.log[0]), recording:
    prepared = open_prepared(snakemake.input.data, snakemake.config["verify"])
    run_measurement(
        folder,
        prepared,
        devices=measure["devices"],
        threads=measure["threads"],
        batch_sizes=measure["batch_sizes"],
        times=Times(measure["repeats"], measure["single_samples"], measure["rounds"]),
        energy_windows=measure["energy_windows"],
        runtimes=measure["runtimes"],
    )
    run_agreement(folder, prepared, measure["devices"])
