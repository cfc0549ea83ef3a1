"""Forward-Forward networks: trained layer by layer, measured, and compared, without backpropagation."""

import os

__version__ = "0.1.0"

# The OpenMP runtime that torch brings reads this once, when it is loaded. By default its threads spin for
# milliseconds after each small product. Where other processes want the same cores (two trainings on a laptop), that
# made an epoch 1.5 to 15 times slower than a short spin does (2 cores, load 4 to 5); alone, a short spin costs 8 %.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
