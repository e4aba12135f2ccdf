"""Pictures of single patients: three planes with the outlines of what was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from voxplain.report.colours import GROUND, label_colours
from voxplain.report.drawing import blank
from voxplain.report.pictures import picture
from voxplain.space.labelmap import BACKGROUND

PLANES = ("axial", "coronal", "sagittal", "picture")
_INCHES = 2.6  # of the longer side


def panels(
    planes: Mapping[str, NDArray[Any]], colours: Mapping[str, str], bold: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Draw the planes of a case.

    Parameters
    ----------
    planes
        See `voxplain.study.store.Store.planes`; empty: none were kept.
    colours
        Of the outline of each label, by name; a label without one is not outlined.
    bold
        Names whose outlines are thick.

    Returns
    -------
    list of dict
        ``name``, ``uri``, ``width`` and ``height`` of each picture, and the ``labels`` outlined.
    """
    names = [str(name) for name in planes.get("names", ())]
    found = []
    for plane in PLANES:
        image = planes.get(f"{plane}:image")
        if image is None:
            continue
        labels = planes.get(f"{plane}:labels")
        outlined = {
            label: name
            for label, name in enumerate(names)
            if labels is not None and name in colours and (labels == label).any()
        }
        drawn = _plane(image, labels, {k: (colours[n], n in bold) for k, n in outlined.items()})
        found.append({"name": plane, "labels": [*outlined.values()], **drawn})
    return found


def outline_colours(names: Sequence[str]) -> dict[str, str]:
    """Give each label but the background a colour, by its place."""
    shown = [name for name in dict.fromkeys(names) if name != BACKGROUND]
    return {
        name: to_hex((colour[0] / 255, colour[1] / 255, colour[2] / 255))
        for name, colour in zip(shown, label_colours(len(shown)), strict=True)
    }


def _plane(
    image: NDArray[Any],
    labels: NDArray[Any] | None,
    outlines: Mapping[int, tuple[str, bool]],
) -> dict[str, Any]:
    height, width = image.shape
    scale = _INCHES / max(height, width)
    figure = blank(width * scale, height * scale, GROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    # thick lines, and what encloses others, first: the lines of both are seen
    for label in sorted(
        outlines, key=lambda one: (not outlines[one][1], -int(np.sum(labels == one)))
    ):
        colour, is_bold = outlines[label]
        mask = np.pad(labels == label, 1).astype(np.float64)  # a label at the edge is closed too
        axes.contour(
            np.arange(-1, width + 1), np.arange(-1, height + 1), mask, levels=[0.5],
            colors=[colour], linewidths=2.0 if is_bold else 0.9,
        )  # fmt: skip
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()
    drawn = picture(figure, dpi=150, is_lossless=False)
    return {"uri": drawn.uri, "width": drawn.width, "height": drawn.height}
