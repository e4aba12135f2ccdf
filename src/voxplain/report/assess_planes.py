"""A map drawn over its image, with the outline of the truth."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from voxplain.report.colours import diverging

QUANTILE = 0.995
"""Share of a plane's pixels at or below the strongest colour."""

LEAST_SHADES = 16
"""A plane kept with fewer steps than this up to its strongest colour is told to be coarse."""

_OUTLINE = (47, 174, 58)

Bytes = NDArray[np.uint8]


def top(pixels: Bytes) -> int:
    """Return the pixel value of the strongest colour.

    The least pixel that `QUANTILE` of the plane do not exceed; the largest where that is 0, as
    for a map of a few pixels; 0 for a plane of zeros.
    """
    found = int(np.quantile(pixels, QUANTILE, method="inverted_cdf"))
    return found or int(pixels.max(initial=0))


class Ground:
    """An image that maps are drawn on, with the outline of the truth.

    Parameters
    ----------
    image, truth
        (rows, columns); None if not known.
    side
        Pixels of the longer side of what is drawn.
    """

    def __init__(self, image: Bytes | None, truth: Bytes | None, side: int) -> None:
        self._image, self._truth, self._side = image, truth, side

    def cell(self, pixels: Bytes | None, name: str, text: str) -> dict[str, Any] | None:
        """Draw a map over the image; None: the image alone, if there is one.

        Parameters
        ----------
        pixels
            (rows, columns) 0 … 255; drawn from 0 to `top`, more has the strongest colour.
        name, text
            What is shown, for those who cannot see it, and what stands below.
        """
        shown = self._image if pixels is None else pixels
        if shown is None:
            return None
        scale = self._side / max(shown.shape)
        shape = (max(1, round(shown.shape[0] * scale)), max(1, round(shown.shape[1] * scale)))
        grey = np.zeros(shape) if self._image is None else _resized(self._image, shape) / 255
        colours = np.repeat(grey[..., None], 3, axis=-1)
        if pixels is not None:
            scaled = np.minimum(pixels / (top(pixels) or 1), 1.0) * 255
            drawn = diverging(_resized(np.rint(scaled).astype(np.uint8), shape) / 255, 1.0)
            colours = colours * (1 - drawn[..., 3:]) + drawn[..., :3] * drawn[..., 3:]
        image = np.rint(255 * colours).astype(np.uint8)
        if self._truth is not None:
            image[_outline(_resized(self._truth, shape) >= 128)] = _OUTLINE
        return {"uri": _uri(image), "alt": name, "text": text,
                "width": shape[1], "height": shape[0]}  # fmt: skip


def _resized(pixels: Bytes, shape: Sequence[int]) -> NDArray[np.float64]:
    image = Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float64)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that touch one outside of it; the picture's edge is outside."""
    padded = np.pad(mask, 1)
    core = padded[1:-1, 1:-1].copy()
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        core &= np.roll(padded, shift, axis)[1:-1, 1:-1]
    return mask & ~core


def _uri(pixels: Bytes) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=78, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
