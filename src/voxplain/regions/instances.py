"""Connected parts of a mask, each a region of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxplain.errors import GridError, LabelError
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap

_NEIGHBOURS = {2: {4: 1, 8: 2}, 3: {6: 1, 18: 2, 26: 3}}


def connectivity_of(neighbours: int | None, rank: int) -> int:
    """Translate a number of neighbours to the connectivity of `instances`.

    Parameters
    ----------
    neighbours
        Of a voxel: 6, 18 or 26 in 3D, 4 or 8 in 2D. None: 18, or 4.
    rank
        Number of axes, 2 or 3.

    Returns
    -------
    int
        Along how many axes at once a neighbour may differ.

    Raises
    ------
    LabelError
        If a voxel of this rank has no such neighbourhood.
    """
    if neighbours is None:
        return max(1, rank - 1)
    known = _NEIGHBOURS[rank]
    if neighbours not in known:
        raise LabelError(
            f"neighbours of a voxel are {', '.join(map(str, known))} in {rank}D, got {neighbours}"
        )
    return known[neighbours]


def instances(
    mask: NDArray[np.bool_],
    grid: Grid,
    *,
    name: str = "instance",
    connectivity: int | None = None,
    min_voxels: int = 1,
) -> LabelMap:
    """Label the connected components of a mask, largest first.

    Parameters
    ----------
    mask
        (*grid.shape) truth values.
    grid
        Where the voxels lie.
    name
        Components are named ``<name>_1``, ``<name>_2``, ….
    connectivity
        Along how many axes at once a neighbour may differ, 1…rank: in 3D 1 is the 6 faces,
        2 the 18 faces and edges, 3 all 26. Default: rank - 1, but at least 1 (3D: 18, 2D: 4).
    min_voxels
        Smaller components become background.

    Returns
    -------
    LabelMap
        Component i by size has label i; of equal sizes the one whose first voxel comes first
        in array order. Only background for an empty mask.

    Raises
    ------
    GridError
        If the mask is not of the grid's shape.
    LabelError
        If connectivity or min_voxels is out of range.
    """
    if mask.shape != grid.shape:
        raise GridError(f"the mask must have the shape of the grid {grid.shape}, got {mask.shape}")
    steps = max(1, grid.rank - 1) if connectivity is None else connectivity
    if not 1 <= steps <= grid.rank:
        raise LabelError(f"connectivity is 1 to {grid.rank} on this grid, got {connectivity}")
    if min_voxels < 1:
        raise LabelError(f"min_voxels is at least 1, got {min_voxels}")
    structure = ndimage.generate_binary_structure(grid.rank, steps)
    found, _ = ndimage.label(np.asarray(mask, dtype=bool), structure)
    sizes = np.bincount(found.ravel())
    sizes[0] = 0
    # scipy numbers components by their first voxel; a stable sort keeps that order in ties.
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= min_voxels]
    new = np.zeros(len(sizes), dtype=np.min_scalar_type(len(order)))
    new[order] = np.arange(1, len(order) + 1)
    return LabelMap(new[found][None], grid, {i: f"{name}_{i}" for i in range(1, len(order) + 1)})
