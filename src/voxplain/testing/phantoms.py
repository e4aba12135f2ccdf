"""Small made-up patients: never cubic, never symmetric, never along the axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

SHAPE = (5, 7, 11)
SPACING = (0.7, 1.1, 2.3)


def oblique_grid(
    shape: Sequence[int] = SHAPE, spacing: Sequence[float] = SPACING, seed: int = 0
) -> Grid:
    """Make a grid that is turned by 5 to 20 degrees about each axis and off the origin.

    Parameters
    ----------
    shape
        2 or 3 lengths.
    spacing
        In mm, as many.
    seed
        Draws angles and origin.

    Returns
    -------
    Grid
        Of orientation RAS (2D: RA), oblique.
    """
    rng = np.random.default_rng(seed)
    rank = len(shape)
    angles = rng.uniform(5, 20, 3) * rng.choice([-1, 1], 3)
    turn = Rotation.from_euler("xyz" if rank == 3 else "z", angles[: 2 * rank - 3], degrees=True)
    affine = np.eye(rank + 1)
    affine[:rank, :rank] = turn.as_matrix().reshape(3, 3)[:rank, :rank] * np.asarray(spacing)
    affine[:rank, rank] = rng.uniform(-80, 80, rank)
    return Grid(tuple(shape), affine)


def volume(grid: Grid | None = None, n_channels: int = 1, seed: int = 0) -> Volume:
    """Make an image with a different slope along each axis, one bright corner, and noise.

    Parameters
    ----------
    grid
        Default: `oblique_grid()`.
    n_channels
        Each has its own slopes and noise.
    seed
        Draws slopes and noise.

    Returns
    -------
    Volume
        float32, values of order 1.
    """
    grid = oblique_grid() if grid is None else grid
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.linspace(0, 1, n) for n in grid.shape], indexing="ij"))
    slopes = rng.uniform(0.5, 2, (n_channels, grid.rank)) * np.arange(1, grid.rank + 1)
    data = np.tensordot(slopes, places, axes=1) + rng.normal(0, 0.1, (n_channels, *grid.shape))
    corner = tuple(slice(-(-n // 3)) for n in grid.shape)
    data[(slice(None), *corner)] += 2
    return Volume(data.astype(np.float32), grid, name="phantom")


def labels(grid: Grid | None = None, n_labels: int = 3, seed: int = 0) -> LabelMap:
    """Make boxes of different sizes: label 1, the largest, to `n_labels`, some of it covered.

    Parameters
    ----------
    grid
        Default: `oblique_grid()`.
    n_labels
        Besides the background, named ``organ_1``, …; each occurs.
    seed
        Draws where the boxes are.

    Returns
    -------
    LabelMap
        One layer.

    Raises
    ------
    ValueError
        If the grid has no room for so many labels.
    """
    grid = oblique_grid() if grid is None else grid
    rng = np.random.default_rng(seed)
    for _ in range(100):
        array = np.zeros(grid.shape, np.uint8 if n_labels < 256 else np.uint16)
        for label in range(1, n_labels + 1):
            size = np.maximum(1, np.asarray(grid.shape) // (label + 1))
            start = rng.integers(0, np.asarray(grid.shape) - size + 1)
            array[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
        if len(np.unique(array)) == n_labels + 1:
            return LabelMap(array[None], grid, {i: f"organ_{i}" for i in range(1, n_labels + 1)})
    raise ValueError(f"{n_labels} labels and background do not fit on a grid of {grid.shape}")
