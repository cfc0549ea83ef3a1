"""Weights & Biases sweep files: checked, counted, run on W&B or run here through the DAG.

A sweep file is read as runs of `ff train`, whatever its `program` says, because that is what the published files mean
by theirs.

    files       a sweep file: read, held against W&B's schema, its parameters by setting
    values      distributions and their quantiles; W&B's runs one by one
    cells       the same runs as cells of the DAG
    checking    what `ff sweep --check` says
    local       run here, through the DAG
    remote      run on W&B
    command     `ff sweep`
"""
