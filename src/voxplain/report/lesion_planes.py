"""Pictures of one lesion: its planes, channels side by side, with and without the map."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion, find_objects

from voxplain.records.attribution import Attribution
from voxplain.records.lesion_tables import LesionResult
from voxplain.report.colours import diverging
from voxplain.report.pictures import Picture
from voxplain.report.scale import intensity_window, is_hounsfield, span
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.plane import Plane, planes_through
from voxplain.space.volume import Volume

_PANEL = 200  # pixels, side of a picture
_GAP = 6
_MARGIN_MM = 12.0  # shown around a lesion
_LEAST_MM = 40.0  # side of the field that is shown
_LINE = (98, 227, 106)
_PAPER = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Scene:
    """A case's image on the model's grid, and where its lesions lie.

    Parameters
    ----------
    result
        The case.
    image
        On the grid of ``result.lesions``.
    """

    result: LesionResult
    image: Volume

    @property
    def grid(self) -> Grid:
        """Grid of lesions and image."""
        return self.result.lesions.grid

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """Smallest box of every label; a label without a voxel has none."""
        found = {}
        for layer in self.result.lesions.layers:
            for label, place in enumerate(find_objects(layer.astype(np.int32)), 1):
                if place is not None:
                    found[label] = Box(tuple(s.start for s in place), tuple(s.stop for s in place))
        return found

    @cached_property
    def windows(self) -> list[tuple[float, float]]:
        """Black and white of every channel."""
        ends = [span(channel) for channel in self.image.data]
        return [intensity_window(self.image), *ends[1:]] if is_hounsfield(self.image) else ends

    def middle(self, label: int) -> tuple[int, ...]:
        """Voxel of a lesion that is nearest to its centroid; middle of the image without one."""
        box = self.boxes.get(label)
        if box is None:
            return tuple(n // 2 for n in self.grid.shape)
        inside = (self.result.lesions.layers[(slice(None), *box.slices)] == label).any(axis=0)
        points = np.argwhere(inside)
        steps = (points - points.mean(axis=0)) * np.asarray(self.grid.spacing)
        nearest = points[np.argmin((steps**2).sum(axis=1))]
        return tuple((nearest + np.asarray(box.start)).tolist())

    def field(self, label: int) -> Box:
        """Part of the grid that a lesion's pictures show; may reach beyond the image."""
        middle = self.middle(label)
        box = self.boxes.get(label, Box(middle, tuple(i + 1 for i in middle)))
        sizes = [n * mm for n, mm in zip(box.shape, self.grid.spacing, strict=True)]
        widest = max(n * mm for n, mm in zip(self.grid.shape, self.grid.spacing, strict=True))
        side = min(max(_LEAST_MM, 2 * _MARGIN_MM + max(sizes)), widest)
        half = [max(1, math.ceil(side / 2 / mm)) for mm in self.grid.spacing]
        centre = [(a + b) // 2 for a, b in zip(box.start, box.stop, strict=True)]
        return Box(
            tuple(c - h for c, h in zip(centre, half, strict=True)),
            tuple(c + h + 1 for c, h in zip(centre, half, strict=True)),
        )

    def base(self, channel: str, index: int, n_channels: int) -> int:
        """Image channel below a map's channel: of its name, else of its place, else the first."""
        if channel in self.image.channels:
            return self.image.channels.index(channel)
        return index if n_channels == len(self.image.channels) else 0


def colour_end(peaks: pd.Series) -> float:
    """Value of the strongest colour of a method, the same for all lesions and channels.

    The 90th percentile over the lesions of their largest |a| in any channel, rounded up to two
    digits: a single extreme lesion does not pale all others. 0 if every map is zero.

    Parameters
    ----------
    peaks
        Largest |a| of every lesion.
    """
    known = peaks[np.isfinite(peaks) & (peaks > 0)]
    if known.empty:
        return 0.0
    value = float(np.quantile(known, 0.9, method="higher"))
    exponent = math.floor(math.log10(value)) - 1
    return float(f"{math.ceil(value / 10.0**exponent * (1 - 1e-12))}e{exponent}")


def map_place(attribution: Attribution, grid: Grid) -> Box:
    """Return where a map that lies on a crop of a grid is, in voxels of the grid."""
    start = np.rint(grid.to_index(attribution.grid.to_world([0] * grid.rank))).astype(int)
    return Box.whole(attribution.grid.shape).shift(start.tolist())


def columns(scene: Scene, attribution: Attribution | None) -> list[tuple[int, int | None]]:
    """Return what stands side by side: image channel, and the map's channel over it or None."""
    names = () if attribution is None else attribution.channels
    bases = [scene.base(name, i, len(names)) for i, name in enumerate(names)]
    found: list[tuple[int, int | None]] = []
    for channel in range(len(scene.image.channels)):
        found.append((channel, None))
        found += [(channel, i) for i, base in enumerate(bases) if base == channel]
    return found


def lesion_planes(scene: Scene, label: int, method: str, end: float) -> tuple[Picture, list[str]]:
    """Draw the planes through a lesion's middle.

    Parameters
    ----------
    scene, label
        A lesion of the case.
    method
        Whose map is laid over; a lesion without a kept map is drawn without.
    end
        Value of the strongest colour.

    Returns
    -------
    tuple
        The picture, a row a plane, a column as `columns` says, and the titles of the planes.
    """
    attribution = scene.result.maps.get((scene.result.lesions.names[label], method))
    field, middle = scene.field(label), scene.middle(label)
    grid = scene.grid.crop(field.start, field.shape)
    index = tuple(m - a for m, a in zip(middle, field.start, strict=True))
    cuts = planes_through(grid, index)
    chosen = columns(scene, attribution)
    sheet = Image.new(
        "RGB",
        (len(chosen) * (_PANEL + _GAP) - _GAP, len(cuts) * (_PANEL + _GAP) - _GAP),
        _PAPER,
    )
    image = _part(scene.image.data, field)
    mask = (_part(scene.result.lesions.layers, field) == label).any(axis=0)
    values = None
    if attribution is not None:
        values = np.nan_to_num(_part(attribution.values, field, map_place(attribution, scene.grid)))
    for row, cut in enumerate(cuts):
        for column, (channel, over) in enumerate(chosen):
            low, high = scene.windows[channel]
            grey = np.clip((cut.take(image[channel]) - low) / (high - low), 0, 1)
            drawn = None
            if over is not None and values is not None:
                drawn = diverging(cut.take(values[over]), end)
                drawn[..., 3] *= 0.85
            panel = _panel(np.nan_to_num(grey), drawn, cut, cut.take(mask), with_ends=column == 0)
            sheet.paste(panel, (column * (_PANEL + _GAP), row * (_PANEL + _GAP)))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=82, method=4)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/webp;base64,{text}", *sheet.size), [
        _title(scene.grid, middle, cut) for cut in cuts
    ]


def _title(grid: Grid, middle: tuple[int, ...], cut: Plane) -> str:
    return Plane(cut.name, grid, middle).title


def _part(values: NDArray[Any], field: Box, place: Box | None = None) -> NDArray[np.float64]:
    """Values (n, *shape) of a box in a field, NaN where there are none."""
    place = Box.whole(values.shape[1:]) if place is None else place
    part = np.full((len(values), *field.shape), np.nan)
    common = place.intersect(field)
    if common is not None:
        part[(slice(None), *common.within(field))] = values[(slice(None), *common.within(place))]
    return part


def _panel(
    grey: NDArray[np.float64],
    colours: NDArray[np.float64] | None,
    cut: Plane,
    mask: NDArray[np.bool_],
    *,
    with_ends: bool,
) -> Image.Image:
    """One square picture, in true proportions: image, map's colours, the lesion's outline."""
    height, width = cut.size_mm
    scale = _PANEL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    drawn = _picture(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    if colours is not None:
        over = _picture(colours).resize(size, Image.Resampling.NEAREST)
        drawn.paste(over, (0, 0), over)
    solid = np.asarray(_picture(mask.astype(np.float64)).resize(size, Image.Resampling.NEAREST)) > 0
    edge = solid & ~binary_erosion(solid)  # of enlarged voxels: their own border, one pixel wide
    pixels = np.asarray(drawn).copy()
    pixels[edge] = _LINE
    panel = Image.new("RGB", (_PANEL, _PANEL), (0, 0, 0))
    panel.paste(Image.fromarray(pixels), ((_PANEL - size[0]) // 2, (_PANEL - size[1]) // 2))
    if with_ends and cut.ends:
        draw = ImageDraw.Draw(panel)
        half = _PANEL / 2
        places = ((half, 3, "ma"), (_PANEL - 4, half, "rm"), (half, _PANEL - 3, "md"),
                  (4, half, "lm"))  # fmt: skip
        for letter, (x, y, anchor) in zip(cut.ends, places, strict=True):
            draw.text((x, y), letter, fill="white", anchor=anchor, font=_font(), stroke_width=2,
                      stroke_fill="black")  # fmt: skip
    return panel


def _picture(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(values * 255).astype(np.uint8))


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Font that matplotlib ships; a machine may have none of its own."""
    return ImageFont.truetype(findfont("DejaVu Sans"), 13)
