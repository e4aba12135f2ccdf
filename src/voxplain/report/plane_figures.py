"""Figures of image, map and outlines in planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from voxplain.errors import TargetError
from voxplain.records.explanation import Explanation
from voxplain.report.colours import GROUND, INK, diverging, over_ground
from voxplain.report.drawing import MUTED, Drawing, blank
from voxplain.report.focus import Focus, focus, is_divided, own_region
from voxplain.report.ground import ground, is_colour
from voxplain.report.scale import Scale, intensity_window, is_signed, limits, span
from voxplain.report.wording import short
from voxplain.space.labelmap import nearest
from voxplain.space.plane import Plane, obliquity_degrees, planes_through

_HALO = withStroke(linewidth=2, foreground="black")
_Dashes = tuple[float, Sequence[float]] | None
# name, colour in the picture, colour in its legend, dashes
_OUTLINES: tuple[tuple[str, str, str, _Dashes], ...] = (
    ("prediction", "white", "#79838e", None),
    ("strongest region", "#62e36a", "#2fae3a", (0, (4, 2))),
)


def planes(
    explanation: Explanation,
    target: str,
    *,
    scale: Scale = "shared",
    window: tuple[float, float] | None = None,
) -> Drawing:
    """Draw the planes through the peak of a target's strongest region.

    Axial, coronal and sagittal, in the radiological convention (the patient's right is on the
    left of the picture), each voxel in its true proportions. An oblique image is cut along its
    own axes, named after the nearest anatomical ones. A 2D image is one picture.

    Parameters
    ----------
    explanation, target
        A target of the explanation; without a kept map the image and the outlines are drawn.
    scale
        ``shared``: all targets end at one colour limit; ``own``: the target's own.
    window
        Intensities of black and white; None: from the image.

    Returns
    -------
    Drawing
        Table, a row a plane: name, voxel, strongest region, its share, colour limit.

    Raises
    ------
    TargetError
        If the explanation has no such target.
    """
    place = focus(explanation, check_target(explanation, target))
    end = limits(explanation, scale).get(target, 0.0)
    cuts = planes_through(explanation.image.grid, place.index)
    sizes = [cut.size_mm for cut in cuts]
    high = max(h for h, _ in sizes)
    inches = 3.4 / high
    widths = [w * inches for _, w in sizes]
    slots = [max(width, 1.6) for width in widths]  # room for the title of a narrow plane
    figure = blank(max(4.6, sum(slots) + 0.15 * (len(cuts) - 1) + 0.2), 3.4 + 1.4)
    wide, tall = figure.get_size_inches()
    x = 0.1
    for cut, (height, _), width, slot in zip(cuts, sizes, widths, slots, strict=True):
        own_height = height * inches
        below = 1.0 + (3.4 - own_height) / 2
        left = x + (slot - width) / 2
        axes = figure.add_axes((left / wide, below / tall, width / wide, own_height / tall))
        draw_plane(axes, explanation, target, cut, place, end, window)
        axes.set_title(cut.title, fontsize=9, color=MUTED, pad=5)
        x += slot + 0.15
    _legend(figure, explanation, end)
    table = pd.DataFrame(
        {
            "plane": [cut.name for cut in cuts],
            "voxel": [place.index] * len(cuts),
            "region": place.region,
            "share": place.share,
            "limit": end,
        }
    )
    return Drawing(figure, table)


def check_target(explanation: Explanation, target: str) -> str:
    """Give back a target's name, or raise TargetError with the nearest ones."""
    names = tuple(t.name for t in explanation.targets)
    if target not in names:
        raise TargetError(f"no target {target!r}{nearest(target, names)}")
    return target


def draw_plane(
    axes: Axes,
    explanation: Explanation,
    target: str,
    plane: Plane,
    place: Focus,
    end: float,
    window: tuple[float, float] | None = None,
) -> None:
    """Draw one plane with map, outlines and sides into axes (no frame, no title)."""
    black, white = window or intensity_window(explanation.image)
    height, width = plane.size_mm
    extent = (0.0, width, height, 0.0)
    axes.imshow(
        plane.take(ground(explanation.image)),
        cmap="gray",
        vmin=black,
        vmax=white,
        extent=extent,
        interpolation="bilinear",
    )
    kept = explanation.attributions.get(target)
    if kept is not None:
        colours = diverging(plane.take(kept.flat()), end)
        colours[..., 3] *= 0.85
        axes.imshow(colours, extent=extent, interpolation="nearest")
    regions = (
        (explanation.prediction, own_region(explanation, target)),
        (explanation.regions, place.region),
    )
    for (labels, region), (_, colour, _, dashes) in zip(regions, _OUTLINES, strict=True):
        if labels is not None and region is not None:
            _outline(axes, plane.take(labels.mask(region)), extent, colour, dashes)
    if plane.ends:
        places = ((0.5, 0.97, "top"), (0.975, 0.5, "center"), (0.5, 0.025, "bottom"),
                  (0.025, 0.5, "center"))  # fmt: skip
        sides = ("center", "right", "center", "left")
        for letter, (x, y, vertical), horizontal in zip(plane.ends, places, sides, strict=True):
            axes.text(
                x, y, letter, transform=axes.transAxes, ha=horizontal, va=vertical,
                color="white", fontsize=10, path_effects=[_HALO],
            )  # fmt: skip
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_facecolor("black")
    axes.set_axis_off()


def _outline(
    axes: Axes,
    mask: np.ndarray[Any, Any],
    extent: tuple[float, float, float, float],
    colour: str,
    dashes: _Dashes,
) -> None:
    if not mask.any():
        return
    padded = np.pad(mask.astype(np.float64), 1)  # a region that touches the border is closed
    (rows, columns), (_, width, height, _) = mask.shape, extent
    x = (np.arange(columns + 2) - 0.5) * width / columns
    y = (np.arange(rows + 2) - 0.5) * height / rows
    axes.contour(
        x, y, padded, levels=[0.5], colors=[colour], linewidths=1.1, linestyles=[dashes or "solid"]
    )


def _legend(figure: Figure, explanation: Explanation, end: float) -> None:
    wide, tall = figure.get_size_inches()
    if end > 0:
        bar = figure.add_axes((0.45 / wide, 0.68 / tall, 1.7 / wide, 0.13 / tall))
        low = -end if is_signed(explanation) else 0.0
        steps = over_ground(np.linspace(low, end, 256)[None], end)
        bar.imshow(steps, extent=(low, end, 0, 1), aspect="auto")
        bar.set_yticks([])
        ticks = [tick for tick in (-end, 0.0, end) if tick >= low]
        bar.set_xticks(ticks, [short(tick) for tick in ticks], fontsize=8)
        bar.tick_params(length=0, colors=INK)
        bar.spines[:].set_visible(False)
        figure.text(
            2.35 / wide, 0.7 / tall, explanation.unit, fontsize=8.5, color=INK, parse_math=False
        )
    tilt = obliquity_degrees(explanation.image.grid)
    if tilt > 0.5:
        words = f"planes follow the image's axes, {tilt:.1f}° oblique"
        figure.text(2.65 / wide, 0.16 / tall, words, fontsize=8, color=MUTED)
    x = 0.1
    has_lines = (explanation.prediction is not None, is_divided(explanation))
    for (name, _, colour, dashes), has_line in zip(_OUTLINES, has_lines, strict=True):
        if not has_line:
            continue
        line = Line2D(
            [x / wide, (x + 0.25) / wide],
            [0.2 / tall] * 2,
            color=colour,
            linestyle=dashes or "solid",
        )
        figure.add_artist(line)
        figure.text((x + 0.32) / wide, 0.16 / tall, name, fontsize=8, color=MUTED)
        x += 1.15


def plane_figure(
    explanation: Explanation, target: str, plane: Plane, place: Focus, end: float
) -> Figure:
    """Draw one plane without margins, for a page that sets titles and legend itself."""
    figure, axes = _frame(plane)
    draw_plane(axes, explanation, target, plane, place, end)
    return figure


def bare_figure(explanation: Explanation, plane: Plane) -> Figure:
    """Draw a picture as it is, without map and outlines, in its own colours."""
    figure, axes = _frame(plane)
    image = explanation.image
    shown = np.moveaxis(image.data, 0, -1) if is_colour(image) else ground(image)[..., None]
    black, white = span(shown)
    colours = np.clip((shown - black) / (white - black), 0, 1)
    height, width = plane.size_mm
    axes.imshow(
        np.broadcast_to(colours, (*colours.shape[:-1], 3)),
        extent=(0.0, width, height, 0.0),
        interpolation="bilinear",
    )
    axes.set_axis_off()
    return figure


def _frame(plane: Plane) -> tuple[Figure, Axes]:
    """Figure that one plane fills; one scale for all of an image, so that lines are alike."""
    height, width = plane.size_mm
    extent = [n * s for n, s in zip(plane.grid.shape, plane.grid.spacing, strict=True)]
    scale = 5.2 / max(extent)
    figure = blank(width * scale, height * scale, GROUND)
    return figure, figure.add_axes((0, 0, 1, 1))
