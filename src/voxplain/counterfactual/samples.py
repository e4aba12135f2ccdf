"""Pictures of a generator in training: images, repairs and what was changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.slices import Slices
from voxplain.models.probe import evaluating
from voxplain.report.colours import INK, over_ground
from voxplain.report.drawing import MUTED, Drawing, blank

COLUMNS = ("slice", "label", "mean_change", "largest_change")
"""Of the table: position in the validation slices; 1 for abnormal; mean and largest |x − x′|/2."""
LIMIT = 0.5
"""Change (x′ − x)/2 that is drawn in the strongest colour."""
N_SHOWN = 8
_N_NORMAL = 3
_CELL = 1.25  # inches
_LEFT, _TOP, _GAP = 0.75, 0.25, 0.04


def sample_places(labels: NDArray[np.int8]) -> NDArray[np.intp]:
    """Choose the slices that are drawn: at most `N_SHOWN`, evenly spread, abnormal ones first.

    Three are normal where there are so many of both kinds.
    """
    abnormal, normal = np.flatnonzero(labels), np.flatnonzero(labels == 0)
    n_abnormal = min(len(abnormal), N_SHOWN - min(len(normal), _N_NORMAL))
    n_normal = min(len(normal), N_SHOWN - n_abnormal)
    return np.concatenate([spread(abnormal, n_abnormal), spread(normal, n_normal)])


def spread(places: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Return at most `n` of the places, evenly spread, first and last among them."""
    if len(places) <= n:
        return places
    return np.asarray(places[np.linspace(0, len(places) - 1, n).round().astype(int)])


def draw_samples(generator: Generator, slices: Slices, places: NDArray[np.intp]) -> Drawing:
    """Draw image, repair and signed change of some slices, one column each.

    Parameters
    ----------
    generator
        Used in evaluation mode; afterwards in the mode that it was in.
    slices
        Of the validation part.
    places
        Which of them.

    Returns
    -------
    Drawing
        Table: columns `COLUMNS`, one row a slice.
    """
    chosen = slices.at(places)
    device = next(generator.parameters()).device
    with evaluating(generator), torch.inference_mode():
        repaired = generator.repair(torch.from_numpy(chosen.images).to(device)).image
    after = repaired.float().cpu().numpy()[:, 0]
    before = chosen.images[:, 0]
    change = (after - before) / 2
    figure = _figure(before, after, change, chosen.labels)
    size = np.abs(change)
    table = pd.DataFrame(
        {
            "slice": places,
            "label": chosen.labels,
            "mean_change": size.mean(axis=(1, 2)),
            "largest_change": size.max(axis=(1, 2)),
        },
        columns=list(COLUMNS),
    )
    return Drawing(figure, table)


def _figure(
    before: NDArray[np.float32], after: NDArray[np.float32], change: NDArray[np.floating],
    labels: NDArray[np.int8],
) -> Figure:  # fmt: skip
    n, rows, columns = before.shape
    wide, high = n * _CELL, _CELL * rows / columns
    width, height = _LEFT + wide, _TOP + 3 * high + 2 * _GAP
    figure = blank(width, height)
    kinds = {
        "image": _shades(before),
        "repair": _shades(after),
        f"change\n±{LIMIT:g}": over_ground(change, LIMIT),
    }
    for row, (name, pixels) in enumerate(kinds.items()):
        bottom = height - _TOP - (row + 1) * high - row * _GAP
        axes = figure.add_axes((_LEFT / width, bottom / height, wide / width, high / height))
        axes.imshow(np.concatenate(list(pixels), axis=1), interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        for edge in range(1, n):
            axes.axvline(edge * columns - 0.5, color="white", linewidth=2)
        figure.text(0.04 / width, (bottom + high / 2) / height, name, fontsize=9, color=INK,
                    va="center")  # fmt: skip
    for column, label in enumerate(labels):
        middle = (_LEFT + (column + 0.5) * _CELL) / width
        name = "abnormal" if label else "normal"
        figure.text(middle, 1 - 0.16 / height, name, fontsize=8, color=MUTED, ha="center")
    return figure


def _shades(pictures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Red, green and blue of [-1, 1], from black to white; what lies beyond is drawn like it."""
    shade = np.clip((pictures[..., None].astype(np.float64) + 1) / 2, 0.0, 1.0)
    return np.repeat(shade, 3, axis=-1)
