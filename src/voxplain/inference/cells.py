"""Where the cells of a feature map lie on a window, and how they become voxels.

A *cell* is one place of a feature map. The n cells along an axis of w voxels are boxes of w/n
voxels side by side; a value belongs to the centre of its box.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F  # noqa: N812

Upsampling = Literal["half_pixel", "tf1"]
"""Where the value of a cell belongs: to its centre, or to its first voxel (`upsample_tf1`)."""

_CUBIC = 0.2  # powers of two between the lengths of a cell
_MOST_PREFIX = 8  # class and register tokens before those of the patches


@dataclass(frozen=True)
class Arrangement:
    """How a layer's output lies on the window.

    Parameters
    ----------
    n_channels
        Of the output.
    cells
        Number along each axis of the window.
    n_prefix
        Tokens before those of the patches; 0 where the output is no sequence of tokens.
    is_tokens
        Whether the output is (batch, tokens, channels); else (batch, channels, *cells).
    """

    n_channels: int
    cells: tuple[int, ...]
    n_prefix: int = 0
    is_tokens: bool = False

    @property
    def n_cells(self) -> int:
        """Cells in all."""
        return math.prod(self.cells)

    def place(self, output: torch.Tensor) -> torch.Tensor:
        """Return an output, or its gradient, as (batch, channels, *cells)."""
        if self.is_tokens:
            output = output[:, self.n_prefix :].movedim(1, -1)
        return output.reshape(len(output), self.n_channels, *self.cells)


def arrange(
    shape: Sequence[int], window: Sequence[int], *, is_last: bool = False
) -> Arrangement | str:
    """Tell how an output lies on a window, or why it cannot be told.

    Parameters
    ----------
    shape
        Of the output without the batch axis.
    window
        Voxels along each axis.
    is_last
        Whether the layer is known to work on channels that come last.

    Returns
    -------
    Arrangement or str
        (channels, *cells) lies on the window's axes; on all but the first of a window one voxel
        deep, if one axis is missing; (tokens, channels) is a grid of patches that are as nearly
        cubic as the number of tokens allows. A sentence, if none of these fits.
    """
    window, shape = tuple(window), tuple(shape)
    text = f"output of shape {shape} for a window of {window}"
    if len(shape) == 2:
        found = _patches(shape[0], window)
        if found is None:
            return f"{text}: {shape[0]} tokens are no grid of patches"
        n_prefix, cells = found
        return Arrangement(shape[1], cells, n_prefix, is_tokens=True)
    if len(shape) == len(window) == 3 and window[0] == 1:
        shape = (shape[0], 1, *shape[1:])
    if len(shape) != len(window) + 1:
        return f"{text}: no axes that belong to the window's"
    first, last = _spread(shape[1:], window), _spread(shape[:-1], window)
    if last <= first and not math.isinf(last) and (is_last or last < min(first, _CUBIC)):
        return f"{text}: channels come last; take a layer where they come first"
    if math.isinf(first):
        return f"{text}: no grid of cells"
    return Arrangement(shape[0], shape[1:])


def _spread(cells: Sequence[int], window: Sequence[int]) -> float:
    """How far cells are from cubic, in powers of two; infinite where they cannot be cells."""
    if any(not 1 <= n <= 2 * w for n, w in zip(cells, window, strict=True)):
        return math.inf
    sizes = [math.log2(w / n) for n, w in zip(cells, window, strict=True)]
    return max(sizes) - min(sizes)


def _patches(n_tokens: int, window: tuple[int, ...]) -> tuple[int, tuple[int, ...]] | None:
    """Prefix tokens and grid of patches: cubic, with the fewest prefix tokens; else the nearest."""
    if len(window) == 3 and window[0] == 1:
        found = _patches(n_tokens, window[1:])
        return None if found is None else (found[0], (1, *found[1]))
    for n_prefix in range(min(_MOST_PREFIX, n_tokens - 1) + 1):
        for size in range(1, max(window) + 1):
            cells = tuple(n // size for n in window)
            if all(n % size == 0 for n in window) and math.prod(cells) == n_tokens - n_prefix:
                return n_prefix, cells
    for n_prefix in (0, 1):
        grids = [
            cells
            for cells in itertools.product(*[[n for n in _divisors(w) if n > 1] for w in window])
            if math.prod(cells) == n_tokens - n_prefix
        ]
        grids.sort(key=lambda cells: _spread(cells, window))
        spreads = [_spread(cells, window) for cells in grids[:2]]
        if grids and len(set(spreads)) == len(spreads):
            return n_prefix, grids[0]
    return None


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]


def upsample(values: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """Interpolate (n, channels, *cells) linearly to the voxels of a window.

    A value keeps its place: it is put at the centre of its cell, a box of w/n voxels. Beyond
    the outermost centres it goes on unchanged. What one cell away from the border holds has its
    centroid at the cell's centre, where w/n is a whole number; else within 0.1 voxels of it.
    """
    mode = "bilinear" if len(window) == 2 else "trilinear"
    return F.interpolate(values, size=tuple(window), mode=mode, align_corners=False)


def upsample_tf1(values: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """Interpolate (n, channels, *cells) linearly, each value put at its cell's first voxel.

    Voxel v of w reads the place v·n/w between the n cells of its axis; beyond the last cell's
    first voxel its value goes on unchanged. So the map lies half a cell less half a voxel too
    near to the first voxel, 19.5 of 320 where there are 8 cells. It is TensorFlow 1's
    ``resize_bilinear`` with ``align_corners=False``, of use to repeat published maps.
    """
    for axis, n_voxels in enumerate(window, start=2):
        n_cells = values.shape[axis]
        place = torch.arange(n_voxels, device=values.device) * n_cells
        left = place // n_voxels
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        weight = (place % n_voxels).to(values).reshape(shape) / n_voxels
        low = values.index_select(axis, left)
        high = values.index_select(axis, (left + 1).clamp_max(n_cells - 1))
        values = low + weight * (high - low)
    return values
