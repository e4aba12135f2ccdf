"""Pictures of counterfactuals: repairs, signed differences, masks against the truth."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from voxplain.errors import RecordError
from voxplain.records.counterfactual_evaluation import KINDS, Evaluation
from voxplain.report.colours import over_ground
from voxplain.report.wording import short

COUNTERFACTUAL = KINDS[0]

HIT = (50, 168, 82)
"""Red, green, blue of pixels of mask and truth (TP)."""
FALSE_ALARM = (235, 64, 52)
"""Of pixels of the mask alone (FP)."""
MISS = (207, 207, 31)
"""Of pixels of the truth alone (FN)."""
UNJUDGED = (86, 180, 233)
"""Of the mask where the truth is not known."""
OUTLINE = (255, 255, 255)

COVER = 0.6
"""Opacity of a mask's colours over the picture."""

MOST_GENERATORS = 6
"""Whose pictures are not folded away."""

_SIDE = 256  # pixels of the longer side at least: whole zooms, each pixel stays a square
_WIDTH, _GAP = 950, 4  # CSS pixels of all tiles on a wide page, and between two

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


def zoom_of(shape: tuple[int, ...]) -> int:
    """Return how many screen pixels a pixel takes along each axis."""
    return max(1, -(-_SIDE // max(shape)))


def grey(picture: Floats) -> Bytes:
    """Return red, green and blue of a picture: −1 black, 1 white.

    Parameters
    ----------
    picture
        (rows, columns) in [−1, 1].

    Returns
    -------
    ndarray
        (rows, columns, 3).

    Raises
    ------
    RecordError
        If a value is outside [−1, 1] or not a number.
    """
    level = np.rint((np.asarray(picture, np.float64) + 1) / 2 * 255)
    if not ((level >= 0) & (level <= 255)).all():
        raise RecordError(
            f"a picture to show holds values in [−1, 1], got {np.min(picture):g} to "
            f"{np.max(picture):g}; evaluate the run again"
        )
    return np.repeat(level.astype(np.uint8)[..., None], 3, axis=-1)


def difference(before: Floats, after: Floats, limit: float) -> Bytes:
    """Return red, green and blue of (x′ − x)/2, blue where it got darker, orange brighter.

    Parameters
    ----------
    before, after
        x and x′, (rows, columns) in [−1, 1].
    limit
        |x′ − x|/2 of the strongest colour.
    """
    signed = (np.asarray(after, np.float64) - before) / 2
    return np.rint(over_ground(signed, limit) * 255).astype(np.uint8)


def masked(picture: Floats, mask: Bools, truth: Bools | None, zoom: int) -> Bytes:
    """Return a picture with the mask's hits, false alarms and misses, and the truth's outline.

    Colour c over grey g: `COVER`·c + (1 − `COVER`)·g; the outline is half a pixel, at
    least one screen pixel, inside the truth.

    Parameters
    ----------
    picture
        (rows, columns) in [−1, 1].
    mask
        (rows, columns).
    truth
        (rows, columns); None: not known, the mask has a colour of its own.
    zoom
        Screen pixels of a pixel.

    Returns
    -------
    ndarray
        (zoom·rows, zoom·columns, 3).
    """
    drawn = grey(picture).astype(np.float64)
    if truth is None:
        parts = [(mask, UNJUDGED)]
    else:
        parts = [(mask & truth, HIT), (mask & ~truth, FALSE_ALARM), (truth & ~mask, MISS)]
    for part, colour in parts:
        drawn[part] = COVER * np.asarray(colour, np.float64) + (1 - COVER) * drawn[part]
    large = enlarged(np.rint(drawn).astype(np.uint8), zoom)
    if truth is not None:
        whole = enlarged(truth, zoom)
        inner = ndimage.binary_erosion(
            whole, np.ones((3, 3), np.bool_), iterations=max(1, zoom // 2), border_value=0
        )
        large[whole & ~inner] = OUTLINE
    return large


def enlarged(pixels: NDArray[Any], zoom: int) -> NDArray[Any]:
    """Repeat every pixel along both axes."""
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def overlap(mask: Bools, truth: Bools) -> float:
    """Return the IoU of two masks; NaN where both are empty."""
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else float("nan")


def tile(pixels: Bytes, zoom: int, alt: str, text: str = "") -> dict[str, Any]:
    """Give an image element: ``uri, width, height, alt, text``.

    Parameters
    ----------
    pixels
        (rows, columns, 3).
    zoom
        Screen pixels of a pixel.
    alt
        What it shows, for who cannot see it.
    text
        Below it.
    """
    large = enlarged(pixels, zoom)
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "WEBP", lossless=True, quality=60, method=4)
    text64 = base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width = large.shape[:2]
    uri = f"data:image/webp;base64,{text64}"
    return {"uri": uri, "width": width, "height": height, "alt": alt, "text": text}


def signed_limit(pictures: Mapping[str, NDArray[Any]]) -> float:
    """Return the largest |x′ − x|/2 of all kept repairs, which all differences share; 0 for none.

    Parameters
    ----------
    pictures
        Of an `voxplain.records.counterfactual_evaluation.Evaluation`.
    """
    image = pictures["image"].astype(np.float64)
    changes = [
        float(np.abs(array - image).max(initial=0.0)) / 2
        for name, array in pictures.items()
        if name.startswith("repair/")
    ]
    return max(changes, default=0.0)


def threshold(methods: pd.DataFrame) -> float:
    """Return the largest threshold of a generator, tuned or else fixed; 0 where none is known.

    Differences are coloured up to it at least, so that what marks nothing looks faint.

    Parameters
    ----------
    methods
        Of an `voxplain.records.counterfactual_evaluation.Evaluation`.
    """
    own = methods[methods["kind"] == COUNTERFACTUAL]
    known = own["threshold_tuned"].fillna(own["threshold_fixed"]).dropna()
    return float(known.max()) if len(known) else 0.0


def grid(evaluation: Evaluation) -> dict[str, Any]:
    """Give the grid of kept slices: a column a slice, rows of pictures by method.

    First the image, and the clean one where it is known; then repair, signed difference and mask
    of each generator; then the mask of every other method, the best on validation slices first.
    Generators behind the first `MOST_GENERATORS` stand apart, below the image again.

    Parameters
    ----------
    evaluation
        With pictures.

    Returns
    -------
    dict
        ``heads`` (name, text), ``rows`` (name, what, cells), ``more``: rows of the other
        generators, ``more_names`` of them, ``colours`` (colour, words), ``limit`` of the
        difference as text, ``side`` of a tile in CSS pixels; no rows where no pictures were kept.
    """
    pictures = evaluation.pictures
    if "image" not in pictures or not len(pictures["image"]):
        return {
            "heads": [], "rows": [], "more": [], "more_names": [], "colours": [], "limit": "",
            "side": 0,
        }  # fmt: skip
    tiles = _Tiles(evaluation)
    rows = [tiles.row("image", "x", tiles.images())]
    if "clean" in pictures:
        rows.append(tiles.row("clean", "the image without its anomaly", tiles.clean()))
    generators = [name for name in tiles.names if f"repair/{name}" in pictures]
    more_names = generators[MOST_GENERATORS:]
    more = [tiles.row("image", "x", tiles.images())] if more_names else []
    for name in tiles.names:
        to = more if name in more_names else rows
        if name in generators:
            to.append(tiles.row(name, "counterfactual x′", tiles.repairs(name)))
            to.append(tiles.row(name, "difference (x′ − x)/2", tiles.differences(name)))
        if f"mask/{name}" in pictures:
            to.append(tiles.row(name, "mask", tiles.masks(name)))
    side = max(88, min(128, _WIDTH // len(pictures["image"]) - _GAP))
    return {
        "heads": tiles.heads(), "rows": rows, "more": more, "more_names": more_names,
        "colours": tiles.colours(),
        "limit": short(tiles.limit) if tiles.limit else "", "side": side,
    }  # fmt: skip


class _Tiles:
    """The tiles of an evaluation's kept slices."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._pictures = pictures = evaluation.pictures
        self._images = pictures["image"]
        self._truth = [truth if truth.any() else None for truth in pictures["truth"].astype(bool)]
        self._zoom = zoom_of(self._images.shape[1:])
        methods = evaluation.tables["methods"]
        self.limit = max(signed_limit(pictures), threshold(methods))
        ordered = methods.assign(after=methods["kind"] != COUNTERFACTUAL).sort_values(
            ["after", "iou_validation"], ascending=[True, False], kind="stable"
        )
        self.names = [
            name
            for name in ordered["method"]
            if f"mask/{name}" in pictures or f"repair/{name}" in pictures
        ]
        slices = evaluation.tables["slices"]
        chosen = slices[slices["slice"].isin(pictures["slice"].tolist())]
        self._rows = {
            (str(row["method"]), int(row["slice"])): row for row in chosen.to_dict("records")
        }
        self._numbers = [int(place) for place in pictures["slice"]]

    def _row(self, at: int, method: str | None = None) -> dict[Any, Any]:
        """Return what is known of a kept slice, by any method if none is named."""
        place = self._numbers[at]
        names = [name for name, which in self._rows if which == place]
        return self._rows.get((method or next(iter(names), ""), place), {})

    def heads(self) -> list[dict[str, str]]:
        """Give case and slice above each column."""
        rows = [self._row(at) for at in range(len(self._numbers))]
        return [
            {"name": str(row.get("case", "")), "text": f"slice {row['index']}" if row else ""}
            for row in rows
        ]

    def colours(self) -> list[tuple[str, str]]:
        """Give the colours of masks and their words."""
        known = any(truth is not None for truth in self._truth)
        unknown = any(truth is None for truth in self._truth)
        found = [
            (HIT, "found (TP)"), (FALSE_ALARM, "false alarm (FP)"), (MISS, "missed (FN)"),
            (OUTLINE, "outline of the truth"),
        ] if known else []  # fmt: skip
        found += [(UNJUDGED, "mask where the truth is not known")] if unknown else []
        return [(f"#{r:02x}{g:02x}{b:02x}", words) for (r, g, b), words in found]

    @staticmethod
    def row(name: str, what: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
        """Give a row of the grid."""
        return {"name": name, "what": what, "cells": cells}

    def images(self) -> list[dict[str, Any]]:
        """Draw x, below it what the classifiers say."""
        return self._greys(self._images, "image", None, "before")

    def clean(self) -> list[dict[str, Any]]:
        """Draw the pictures behind the anomalies."""
        return self._greys(self._pictures["clean"], "clean image", None, "")

    def repairs(self, method: str) -> list[dict[str, Any]]:
        """Draw x′, below it what the classifiers say."""
        array = self._pictures[f"repair/{method}"]
        return self._greys(array, f"counterfactual of {method}", method, "after")

    def differences(self, method: str) -> list[dict[str, Any]]:
        """Draw (x′ − x)/2, below it its largest absolute value."""
        found = []
        for at, (before, after) in enumerate(
            zip(self._images, self._pictures[f"repair/{method}"], strict=True)
        ):
            largest = float(np.abs(after.astype(np.float64) - before).max()) / 2
            alt = f"{method}: signed difference, {self._where(at)}"
            pixels = difference(before, after, self.limit)
            found.append(tile(pixels, self._zoom, alt, f"largest {largest:.2f}"))
        return found

    def masks(self, method: str) -> list[dict[str, Any]]:
        """Draw the mask against the truth, below it its IoU."""
        found = []
        for at, mask in enumerate(self._pictures[f"mask/{method}"].astype(bool)):
            truth = self._truth[at]
            told = f"IoU {overlap(mask, truth):.2f}" if truth is not None else ""
            alt = f"{method}: mask, {self._where(at)}" + (f", {told}" if told else "")
            pixels = masked(self._images[at], mask, truth, self._zoom)
            found.append(tile(pixels, 1, alt, told))
        return found

    def _greys(
        self, array: NDArray[Any], what: str, method: str | None, end: str
    ) -> list[dict[str, Any]]:
        found = []
        for at, picture in enumerate(array):
            row = self._row(at, method)
            values = [float(row.get(f"{by}_{end}", np.nan)) for by in ("probability", "judge")]
            told = [
                f"{word} {value:.2f}"
                for word, value in zip(("p", "judge"), values, strict=True)
                if np.isfinite(value)
            ]
            text = ", ".join(told)
            alt = f"{what}, {self._where(at)}" + (f", {text}" if text else "")
            found.append(tile(grey(picture), self._zoom, alt, text))
        return found

    def _where(self, at: int) -> str:
        row = self._row(at)
        return f"{row['case']} slice {row['index']}" if row else f"picture {at + 1}"
