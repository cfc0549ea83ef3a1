"""Weights & Biases, after the fact: mirrors what lies in the results folder. Nothing depends on it and it reads nothing
back, so it can be left out or run at any later time, with `snakemake --cores 1 track` or with `ff track results`.
"""


rule track:
    input:
        lambda wildcards: PLAN.finished(""),
    output:
        f"{RESULTS}/tracking.json",
    log:
        f"{LOGS}/tracking.log",
    localrule: True
    conda:
        "../envs/ff.yaml"
    params:
        mode=lookup("wandb/mode", within=config, default=WandbConfig.mode),
        project=lookup("wandb/project", within=config, default=WandbConfig.project),
        entity=lookup("wandb/entity", within=config, default=WandbConfig.entity),
    message:
        "{rule}"
    script:
        "../workflow/scripts/track.py"
