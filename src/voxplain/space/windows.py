"""Sliding windows: where they start and how their overlaps are blended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ModelError
from voxplain.space.box import Box

Blend = Literal["constant", "gaussian"]
Scheme = Literal["monai", "nnunet"]

SIGMA_SCALE = 0.125  # standard deviation of the gaussian blend, in window lengths
MONAI_SMALLEST_WEIGHT = 1e-3
NNUNET_LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class WindowSettings:
    """How a volume is cut into windows.

    Parameters
    ----------
    size
        Window shape in voxels.
    overlap
        0 ≤ overlap < 1, share of a window that its neighbour repeats (monai);
        for nnunet the tile step is ``1 - overlap``.
    blend
        ``constant`` (every window counts alike) or ``gaussian`` (centre counts more).
    scheme
        Whose positions and weights: MONAI's ``sliding_window_inference`` or nnU-Net's
        predictor.
    pad_value
        Intensity that fills a volume smaller than the window (after preprocessing).

    Raises
    ------
    ModelError
        If a value is out of its range; every fault is named.
    """

    size: tuple[int, ...]
    overlap: float = 0.25
    blend: Blend = "gaussian"
    scheme: Scheme = "monai"
    pad_value: float = 0.0

    def __post_init__(self) -> None:
        size = tuple(self.size)
        faults = []
        if len(size) not in (2, 3) or not all(isinstance(n, Integral) and n >= 1 for n in size):
            faults.append(f"size is 2 or 3 whole numbers of at least 1 voxel, got {size}")
        if not 0 <= self.overlap < 1:
            faults.append(f"overlap is at least 0 and less than 1, got {self.overlap}")
        if self.blend not in get_args(Blend):
            faults.append(f"blend is one of {', '.join(get_args(Blend))}, got {self.blend!r}")
        if self.scheme not in get_args(Scheme):
            faults.append(f"scheme is one of {', '.join(get_args(Scheme))}, got {self.scheme!r}")
        if not math.isfinite(self.pad_value):
            faults.append(f"pad_value is a finite intensity, got {self.pad_value}")
        if faults:
            raise ModelError("window settings: " + "; ".join(faults))
        object.__setattr__(self, "size", tuple(int(n) for n in size))


class WindowPlan:
    """Every window over one volume, and the weight of its voxels in the blend.

    A stitched value is ``sum_w g_w(v) f_w(v) / sum_w g_w(v)``, with one weight array g for
    every window. A volume smaller than the window is padded to it, the odd voxel at the end.
    Windows, boxes and starts are in *padded coordinates*: voxel 0 is the first padded one.

    Parameters
    ----------
    shape
        Shape of the volume, without channels.
    settings
        Window size, overlap, blend and scheme.

    Attributes
    ----------
    padded_shape
        Shape after padding: at least the window on each axis.
    pad_before
        Voxels of padding before the volume, an axis.
    starts
        First voxel of each window, the last axis running fastest.
    weight
        float64 array of window shape, g; read-only.

    Raises
    ------
    ModelError
        If the volume and the window do not have the same number of axes.

    Notes
    -----
    ``monai``: positions and weights of MONAI 1.6 ``sliding_window_inference`` (its defaults
    for ``sigma_scale`` and smallest weight); weights have float32 precision as there and
    agree to its last bit.
    ``nnunet``: positions and weights of nnU-Net v2 ``nnUNetPredictor``, whose weights have
    float16 precision; weights that vanish there are replaced by the smallest that does not.
    A window of one voxel along an axis visits each of its voxels once: nnU-Net's 2D networks
    run slice by slice so.
    """

    def __init__(self, shape: Sequence[int], settings: WindowSettings) -> None:
        size = settings.size
        if len(shape) != len(size):
            raise ModelError(
                f"a window of {len(size)} axes {size} cannot slide over a volume of "
                f"{len(shape)} axes {tuple(shape)}; the window size needs one number an axis"
            )
        self.settings = settings
        self.shape = tuple(int(n) for n in shape)
        self.padded_shape = tuple(map(max, self.shape, size))
        self.pad_before = tuple(
            (p - n) // 2 for p, n in zip(self.padded_shape, self.shape, strict=True)
        )
        axis_starts = _monai_starts if settings.scheme == "monai" else _nnunet_starts
        self._axis_starts = tuple(
            axis_starts(n, k, settings.overlap)
            for n, k in zip(self.padded_shape, size, strict=True)
        )
        self.starts = tuple(itertools.product(*(s.tolist() for s in self._axis_starts)))
        self.weight = _weight(settings)
        self.weight.setflags(write=False)

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.starts)

    def box(self, index: int) -> Box:
        """Voxels of one window, in padded coordinates."""
        start = self.starts[index]
        return Box(start, tuple(a + k for a, k in zip(start, self.settings.size, strict=True)))

    def inner(self) -> Box:
        """Voxels of the volume itself, in padded coordinates."""
        return Box.whole(self.shape).shift(self.pad_before)

    def touching(self, box: Box) -> list[int]:
        """List the windows that share a voxel with `box`, ascending.

        The cost is that of the answer: starts are a product of one list an axis.
        """
        if min(box.shape) == 0:
            return []
        hits = [
            np.flatnonzero((starts < stop) & (starts + length > start))
            for starts, length, start, stop in zip(
                self._axis_starts, self.settings.size, box.start, box.stop, strict=True
            )
        ]
        index = np.ravel_multi_index(np.ix_(*hits), tuple(map(len, self._axis_starts)))
        return [int(i) for i in index.ravel()]

    def normaliser(self, box: Box) -> NDArray[np.float64]:
        """Sum of the weights of all windows, on one box of padded coordinates.

        Only windows that touch the box are visited and only an array of its shape is made.
        Voxels of the box outside of the padded volume have the value 0.
        """
        total = np.zeros(box.shape)
        for index in self.touching(box):
            window = self.box(index)
            common = window.intersect(box)
            if common is not None:
                total[common.within(box)] += self.weight[common.within(window)]
        return total


def _monai_starts(length: int, window: int, overlap: float) -> NDArray[np.int64]:
    """Step along one axis by the rounded-down stride, the last moved back to fit."""
    if length == window:
        return np.zeros(1, np.int64)
    stride = max(1, int(window * (1 - overlap)))
    n_windows = -(-(length - window) // stride) + 1
    starts: NDArray[np.int64] = np.minimum(np.arange(n_windows) * stride, length - window)
    return starts


def _nnunet_starts(length: int, window: int, overlap: float) -> NDArray[np.int64]:
    """Step along one axis as few times as the tile step allows, spread evenly and rounded."""
    last = length - window
    n_windows = math.ceil(last / max(1, window * (1 - overlap))) + 1
    stride = last / max(1, n_windows - 1)
    starts: NDArray[np.int64] = np.rint(stride * np.arange(n_windows)).astype(np.int64)
    return starts


def _weight(settings: WindowSettings) -> NDArray[np.float64]:
    if settings.blend == "constant":
        return np.ones(settings.size)
    if settings.scheme == "monai":
        return _monai_gaussian(settings.size)
    return _nnunet_gaussian(settings.size)


def _monai_gaussian(size: tuple[int, ...]) -> NDArray[np.float64]:
    """Sample a gaussian around the middle of the window, in float32, clamped from below."""
    weight = np.ones((), np.float32)
    for length in size:
        x = np.arange(length, dtype=np.float32) - np.float32((length - 1) / 2)
        exponent = x**2 / np.float32(-2 * (SIGMA_SCALE * length) ** 2)
        weight = weight[..., None] * np.exp(exponent.astype(np.float64)).astype(np.float32)
    smallest = np.float32(max(float(weight.min()), MONAI_SMALLEST_WEIGHT))
    clamped: NDArray[np.float64] = np.maximum(weight, smallest).astype(np.float64)
    return clamped


def _nnunet_gaussian(size: tuple[int, ...]) -> NDArray[np.float64]:
    """Filter response to a point at ``size // 2``, its maximum scaled to 10, in float16."""
    from scipy.ndimage import gaussian_filter

    point = np.zeros(size)
    point[tuple(n // 2 for n in size)] = 1.0
    response = gaussian_filter(point, [n * SIGMA_SCALE for n in size], mode="constant")
    weight = (response / response.max() * NNUNET_LARGEST_WEIGHT).astype(np.float16)
    weight[weight == 0] = weight[weight > 0].min()
    rounded: NDArray[np.float64] = weight.astype(np.float64)
    return rounded
