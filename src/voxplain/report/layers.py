"""What the page's viewer shows: 8-bit volumes, cropped, packed into text."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from voxplain.records.explanation import Explanation
from voxplain.report.focus import is_divided
from voxplain.report.scale import is_hounsfield, limit
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

_MARGIN = 2  # voxels left around the body


@dataclass(frozen=True)
class Layer:
    """One volume of the viewer.

    Parameters
    ----------
    name
        Name of the image, the labels or the target.
    text
        Base64 of a gzipped NIfTI file.
    unit
        A value in the file times this is a value of the map (the viewer's shaders cannot tell
        apart values closer than 1e-5, so maps are stored as multiples of a power of ten).
    limit
        Values beyond ± this are stored as ± this (maps: the colour limit of this target).
    n_beyond
        Number of voxels beyond the limit.
    """

    name: str
    text: str
    unit: float = 1.0
    limit: float = 0.0
    n_beyond: int = 0


@dataclass(frozen=True)
class Layers:
    """All volumes of one page, on one crop.

    Parameters
    ----------
    image
        First channel.
    labels
        Label maps with the names of their labels, in order of the numbers in the file from 0.
    maps
        One a kept target.
    image_factor, map_factor
        Voxels along an axis that were averaged into one (labels: the middle one was taken).
    crop
        Part of the image's grid that is shown.
    outside
        Largest part of a map's L1 norm that lies outside the crop, 0…1.
    """

    image: Layer
    labels: tuple[tuple[Layer, tuple[str, ...]], ...]
    maps: tuple[Layer, ...]
    image_factor: int
    map_factor: int
    crop: Box
    outside: float

    @property
    def n_bytes(self) -> int:
        """Length of all the texts."""
        labels = sum(len(layer.text) for layer, _ in self.labels)
        return len(self.image.text) + labels + sum(len(layer.text) for layer in self.maps)


def pack(explanation: Explanation, max_bytes: float) -> Layers:
    """Pack a 3D case into at most so many bytes of text.

    Full resolution if it fits; else maps, then maps and image, are averaged over cubes of
    growing size (the page says so).

    Parameters
    ----------
    explanation
        A 3D case.
    max_bytes
        Room in the page.
    """
    crop = _body(explanation)
    coarsest = max(crop.shape)
    image_factor = map_factor = 1
    while True:
        layers = _pack(explanation, crop, image_factor, map_factor, max_bytes)
        if layers is not None:
            return layers
        if image_factor >= coarsest:
            # one voxel is left of everything; nothing smaller can be said
            packed = _pack(explanation, crop, image_factor, map_factor, math.inf)
            assert packed is not None
            return packed
        if map_factor <= image_factor:
            map_factor += 1
        else:
            image_factor += 1


def _pack(
    explanation: Explanation, crop: Box, image_factor: int, map_factor: int, max_bytes: float
) -> Layers | None:
    """Pack with given factors; None as soon as it is known not to fit."""
    grid = explanation.image.grid
    image = image_layer(explanation.image, 0, crop, image_factor)
    labels = [label_layer(m, name, crop, image_factor) for name, m in _label_maps(explanation)]
    used = len(image.text) + sum(len(layer.text) for layer, _ in labels)
    maps: list[Layer] = []
    outside = 0.0
    for name, attribution in explanation.attributions.items():
        if used > max_bytes:
            return None
        values = attribution.flat()
        total, inside = np.abs(values).sum(), np.abs(values[crop.slices]).sum()
        outside = max(outside, float(1 - inside / total) if total else 0.0)
        maps.append(map_layer(values, name, grid, crop, map_factor, limit(values)))
        used += len(maps[-1].text)
    if used > max_bytes:
        return None
    return Layers(image, tuple(labels), tuple(maps), image_factor, map_factor, crop, outside)


def _label_maps(explanation: Explanation) -> list[tuple[str, LabelMap]]:
    """Prediction and regions; once if they are the same, none of an undivided image."""
    prediction, regions = explanation.prediction, explanation.regions
    if prediction is None:
        return [("regions", regions)] if is_divided(explanation) else []
    is_same = prediction is regions or (
        prediction.names == regions.names and np.array_equal(prediction.layers, regions.layers)
    )
    return [("prediction", prediction)] + ([] if is_same else [("regions", regions)])


def _body(explanation: Explanation) -> Box:
    return body(explanation.image, [labels for _, labels in _label_maps(explanation)])


def body(image: Volume, label_maps: Sequence[LabelMap]) -> Box:
    """Box of what is not air in the first channel, and of every region, with a margin."""
    data = image.data[0]
    if is_hounsfield(image):
        threshold = -500.0
    else:
        low, high = float(data.min()), float(np.percentile(data, 99.5))
        threshold = low + 0.05 * (high - low)
    mask = data > threshold
    for labels in label_maps:
        mask |= labels.layers.any(axis=0)
    found = Box.around(mask) or Box.whole(data.shape)
    start = tuple(max(0, a - _MARGIN) for a in found.start)
    stop = tuple(min(n, b + _MARGIN) for b, n in zip(found.stop, data.shape, strict=True))
    return Box(start, stop)


def image_layer(image: Volume, channel: int, crop: Box, factor: int) -> Layer:
    """Pack one channel into 8 bits; cubes of `factor` voxels are averaged."""
    data = _averaged(image.data[channel][crop.slices], factor)
    if channel == 0 and is_hounsfield(image):
        low, high = -1024.0, 1026.0  # steps of 8 HU
    else:
        low, high = np.percentile(data, [0.1, 99.9]).tolist()
        high = high if high > low else low + 1.0
    slope = (high - low) / 255
    stored = np.rint(np.clip((data - low) / slope, 0, 255)).astype(np.uint8)
    grid = _coarser(image.grid, crop, factor)
    return Layer(image.channels[channel], _nifti(stored, grid, slope, low))


def label_layer(
    labels: LabelMap, name: str, crop: Box, factor: int
) -> tuple[Layer, tuple[str, ...]]:
    """Labels renumbered 0, 1, 2, …; where regions overlap the last layer is shown."""
    ids = sorted(labels.names)
    dtype = np.uint8 if len(ids) < 256 else np.uint16
    shown = np.zeros(crop.shape, dtype)
    for layer in labels.layers:
        part = np.searchsorted(ids, layer[crop.slices]).astype(dtype)
        shown = np.where(part > 0, part, shown)
    middle = tuple(slice(min(factor // 2, n - 1), None, factor) for n in shown.shape)
    grid = _coarser(labels.grid, crop, factor)
    taken = np.zeros(grid.shape, dtype)
    picked = shown[middle]
    taken[tuple(slice(0, n) for n in picked.shape)] = picked
    return Layer(name, _nifti(taken, grid, 1.0, 0.0)), tuple(labels.names[i] for i in ids)


def map_layer(
    values: NDArray[np.floating[Any]], name: str, grid: Grid, crop: Box, factor: int, end: float
) -> Layer:
    """Pack a map into 8 bits that end at ± `end` (0: drawn as nothing)."""
    shown = _averaged(values[crop.slices], factor)
    coarse = _coarser(grid, crop, factor)
    if end == 0:
        return Layer(name, _nifti(np.zeros(coarse.shape, np.int8), coarse, 1.0, 0.0))
    unit = 10.0 ** math.floor(math.log10(end))
    stored = np.rint(np.clip(shown / end, -1, 1) * 127).astype(np.int8)
    text = _nifti(stored, coarse, end / unit / 127, 0.0)
    return Layer(name, text, unit, end, int((np.abs(values) > end).sum()))


def _averaged(values: NDArray[np.floating[Any]], factor: int) -> NDArray[np.floating[Any]]:
    """Mean over cubes; an incomplete cube at the far side repeats its last voxels."""
    if factor == 1:
        return values
    padded = np.pad(values, [(0, -n % factor) for n in values.shape], mode="edge")
    split = [m for n in padded.shape for m in (n // factor, factor)]
    return np.asarray(padded.reshape(split).mean(axis=tuple(range(1, 2 * values.ndim, 2))))


def _coarser(grid: Grid, crop: Box, factor: int) -> Grid:
    """Grid of the crop with `factor` voxels an axis joined into one."""
    rank = grid.rank
    matrix = np.diag([*[float(factor)] * rank, 1.0])
    matrix[:rank, rank] = (factor - 1) / 2
    shape = tuple(-(-n // factor) for n in crop.shape)
    return Grid(shape, grid.crop(crop.start, crop.shape).affine @ matrix)


def _nifti(stored: NDArray[Any], grid: Grid, slope: float, inter: float) -> str:
    image = nib.Nifti1Image(stored, grid.affine)
    image.header.set_data_dtype(stored.dtype)
    image.header.set_slope_inter(slope, inter)
    image.header.set_xyzt_units("mm")
    packed = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode("ascii")
