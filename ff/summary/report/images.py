"""Saved figures as images within the page, as small as they get without losing anything.

A figure is shown as SVG, which stays sharp, without what only a program that edits it would need; where that is large,
as the PNG's very pixels in lossless WebP, which is half as long as the PNG.
"""

import base64
import io
import re
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

LARGEST_SVG = 220_000
"""A figure whose SVG is larger in the page (bytes) is shown by its pixels: twenty figures stay below 5 MB."""


class Image(NamedTuple):
    """A data URI, to be quoted by ', and the width to show it with in CSS pixels."""

    uri: Markup
    width_px: int


def image(base: Path) -> Image | None:
    """The SVG, or the pixels where the SVG is missing or large; None where neither exists.

    The width is that of the figure at 100 CSS pixels an inch, so that letters have the same size in all figures.
    """
    svg, png = base.parent / f"{base.name}.svg", base.parent / f"{base.name}.png"
    if svg.is_file():
        text = svg.read_text(encoding="utf-8")
        data = _quoted(compact(text))
        if len(data) <= LARGEST_SVG or not png.is_file():
            points = re.search(r'<svg[^>]*? width="([0-9.]+)pt"', text)
            return _image("image/svg+xml,", data, float(points[1]) / 72 if points else 8)
    return _pixels(png) if png.is_file() else None


def compact(svg: str) -> str:
    """An SVG of matplotlib's that draws the same: coordinates to a hundredth of a point, no comments, no metadata, no
    names of elements that nothing refers to, short names for the letters."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:d|x|y|points)="[^"]*"|translate\([^)]*\)', lambda found: _rounded(found[0]), svg)
    svg = svg.replace("DejaVuSans-", "D").replace('xlink:href="#', 'href="#')
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    return re.sub(r"> <", "><", re.sub(r"\s+", " ", svg)).strip()


def _rounded(text: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), text)


def _quoted(svg: str) -> str:
    """The SVG as part of a data URI between two ': base64 would make a third more of it."""
    for sign in "%#'&":
        svg = svg.replace(sign, f"%{ord(sign):02X}")
    # That the page loads nothing is easiest to see where no url( stands in it at all.
    return svg.replace("url(", "url%28")


def _pixels(png: Path) -> Image:
    from PIL import Image as Pixels

    buffer = io.BytesIO()
    with Pixels.open(png) as pixels:
        pixels.convert("RGB").save(buffer, "WEBP", lossless=True)
        # Figures are saved at 150 dots per inch.
        return _image("image/webp;base64,", base64.b64encode(buffer.getvalue()).decode(), pixels.width / 150)


def _image(kind: str, data: str, width_inches: float) -> Image:
    return Image(Markup(f"data:{kind}{data}"), round(100 * width_inches))
