"""Saved figures as images within the page."""

import base64
import re
from pathlib import Path
from typing import NamedTuple

LARGEST_SVG = 350_000
"""A figure whose SVG is larger (bytes) is embedded as PNG, to keep the page quick to open on a phone."""


class Image(NamedTuple):
    """A data URI, and the width to show it with in CSS pixels."""

    uri: str
    width_px: int


def image(base: Path) -> Image | None:
    """The SVG, or the PNG where the SVG is missing or large; None where neither exists.

    The width is that of the figure at 100 CSS pixels an inch, so that letters have the same size in all figures.
    """
    svg, png = base.parent / f"{base.name}.svg", base.parent / f"{base.name}.png"
    if svg.is_file() and (svg.stat().st_size <= LARGEST_SVG or not png.is_file()):
        data = svg.read_bytes()
        points = re.search(rb'<svg[^>]*? width="([0-9.]+)pt"', data)
        return _image("svg+xml", data, float(points[1]) / 72 if points else 8)
    if png.is_file():
        data = png.read_bytes()
        # Width in pixels: bytes 16 to 19 of a PNG; figures are saved at 150 dots per inch.
        return _image("png", data, int.from_bytes(data[16:20], "big") / 150)
    return None


def _image(kind: str, data: bytes, width_inches: float) -> Image:
    return Image(f"data:image/{kind};base64,{base64.b64encode(data).decode()}", round(100 * width_inches))
