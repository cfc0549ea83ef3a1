"""Forward-Forward networks from raw images to figures. Targets: all, demo, train_all, evaluate_all, variance_all,
export_all, figures, report, track; or any file below the results folder by its path."""

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/hardware.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/export.smk"
include: "rules/measure.smk"
include: "rules/figures.smk"
include: "rules/tracking.smk"


rule all:
    default_target: True
    input:
        lambda wildcards: PLAN.finished(""),
    message:
        "{rule}"


rule demo:
    input:
        lambda wildcards: PLAN.finished("demo/"),
    message:
        "{rule}"


rule train_all:
    input:
        lambda wildcards: PLAN.asked([*layout.TRAIN_FILES, *layout.HARDWARE_FILES]),
    message:
        "{rule}"


rule evaluate_all:
    input:
        lambda wildcards: PLAN.asked([*layout.EVALUATE_FILES, *layout.EARLY_EXIT_FILES]),
    message:
        "{rule}"


rule variance_all:
    input:
        lambda wildcards: PLAN.asked(
            [*PLAN.stages["measure"], *layout.MEASURE_HARDWARE_FILES]
        ),
    message:
        "{rule}"


rule export_all:
    input:
        lambda wildcards: PLAN.asked(layout.EXPORT_FILES),
    message:
        "{rule}"


rule figures:
    input:
        PLAN.figures(""),
    message:
        "{rule}"


rule report:
    input:
        layout.report(RESULTS),
    message:
        "{rule}"


onerror:
    after_an_error(workflow, PLAN)
