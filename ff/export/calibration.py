"""How large the values are that enter each layer's product, on validation images: the scales of the int8 graphs."""

from dataclasses import replace

import numpy as np

from ff.export import graphs
from ff.export.sessions import open_session

IMAGES = 1000
"""How many validation images are looked at, the first as the run's seed drew them."""
METHOD = "largest absolute value of each layer's input"


def largest_inputs(source: graphs.Source, images: np.ndarray) -> tuple[float, ...]:
    """The largest absolute value that enters layer 1..L for `images`, uint8 [n, C, H, W]."""
    model = graphs.full(replace(source, largest=None), inputs_too=True)
    names = [graphs.input_name(layer) for layer in range(source.network.depth)]
    seen = open_session(model.SerializeToString()).run(names, {"image": images})
    return tuple(float(np.abs(values).max()) for values in seen)
