"""Pictures as text that stands in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A picture with its size on the page, in CSS pixels."""

    uri: str
    width: int
    height: int


def picture(figure: Figure, *, dpi: int, is_lossless: bool) -> Picture:
    """Draw a figure into a WebP data URI.

    Parameters
    ----------
    figure
        Any figure.
    dpi
        Pixels an inch; the page shows an inch as at most 96 CSS pixels.
    is_lossless
        For lines and text; a lossy picture of an image is about a fifth as large.
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    pixels = Image.fromarray(np.asarray(drawn)).convert("RGB")
    buffer = io.BytesIO()
    pixels.save(buffer, "WEBP", lossless=is_lossless, quality=80, method=2)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = figure.get_size_inches()
    return Picture(f"data:image/webp;base64,{text}", round(width * 96), round(height * 96))


def strip(
    pictures: Sequence[NDArray[np.float64]], sizes_mm: Sequence[tuple[float, float]], ground: str
) -> bytes:
    """Put pictures side by side in their true proportions.

    Parameters
    ----------
    pictures
        (rows, columns, 3), each 0…1.
    sizes_mm
        Height and width of each.
    ground
        Colour around them, ``#rrggbb``.

    Returns
    -------
    bytes
        PNG file; the tallest picture has 260 pixels.
    """
    scale = 260 / max(height for height, _ in sizes_mm)
    shapes = [(max(1, round(w * scale)), max(1, round(h * scale))) for h, w in sizes_mm]
    sheet = Image.new("RGB", (sum(w for w, _ in shapes) + 8 * (len(shapes) - 1), 260), ground)
    x = 0
    for pixels, (width, height) in zip(pictures, shapes, strict=True):
        image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).resize(
            (width, height), Image.Resampling.NEAREST
        )
        sheet.paste(image, (x, 260 - height))
        x += width + 8
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
