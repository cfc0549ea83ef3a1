"""Lets the tests of this folder import the helpers beside the other tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
