"""Weights & Biases as a mirror of the files on disk: live while `ff train` runs, and `ff track` afterwards.

Nothing else in ff knows W&B, and nothing reads back from it but `fetch`, so W&B can be slow, unreachable or absent
without a run noticing.

    names, log      what a file on disk is called on W&B, and how it is logged
    session         where W&B is, with which key, and a run opened there
    live, mirror    a run while it trains: the training's side, and the child process that talks to W&B
    parts, upload   what lies in a results folder, mirrored afterwards (`ff track`)
    fetch           models of a sweep as run folders
    sweeps/         sweep files: checked, counted, run on W&B or here through the DAG (`ff sweep`)
"""

from ff.tracking.live import Tracker, open_tracker
from ff.tracking.upload import track

__all__ = ["Tracker", "open_tracker", "track"]
