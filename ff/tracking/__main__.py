"""The child process of a live run, started as `python -m ff.tracking` by `ff.tracking.live`."""

import os
import sys

from ff.tracking.mirror import mirror

code = mirror(sys.stdin, sys.stdout)
# wandb's own clean-up at exit can wait 20 s for a server that has stopped answering; the run is closed by now.
os._exit(code)
