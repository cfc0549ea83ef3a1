"""Forward-Forward networks: trained layer by layer, measured, and compared, without backpropagation."""

import os

__version__ = "0.1.0"

# The OpenMP runtime that torch brings reads this once, when it is loaded. By default its threads spin for
# milliseconds at the end of each small product; where other processes want the same cores (two jobs of a grid on a
# laptop), that made a training 5 to 20 times slower than with a short spin (2 cores, load 4 to 5).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
