"""Named regions of voxels: disjoint labels, or several layers where regions overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import LabelError
from voxplain.space.grid import Grid

BACKGROUND = "background"
MANY_LABELS = 2**16  # above, labels are found by sorting, not by counting


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Regions on a grid, each an integer label with a name.

    Parameters
    ----------
    layers
        (n_layers, *grid.shape) integers. Regions of one layer are disjoint; regions of
        different layers may overlap. One layer is an ordinary label map.
    grid
        Where the voxels lie.
    names
        Name of each label; 0 is always ``background``: in no region of any layer. Labels may
        be named that occur nowhere (an absent class is a normal case). A label belongs to
        one layer.

    Raises
    ------
    LabelError
        If shapes disagree, a label occurs without a name or in two layers, a name is used
        twice, or a label is negative.
    """

    layers: NDArray[np.integer[Any]]
    grid: Grid
    names: Mapping[int, str]

    def __post_init__(self) -> None:
        layers = np.asarray(self.layers)
        if layers.shape[1:] != self.grid.shape or len(layers) == 0:
            raise LabelError(f"labels must be (layers, *{self.grid.shape}), got {layers.shape}")
        if not np.issubdtype(layers.dtype, np.integer):
            raise LabelError(f"labels are integers, got {layers.dtype}")
        names = {0: BACKGROUND, **{int(k): str(v) for k, v in self.names.items()}}
        seen: dict[int, int] = {}
        for index, layer in enumerate(layers):
            for label in _present(layer):
                if label not in names:
                    raise LabelError(
                        f"label {label} occurs in the map and has no name; named are "
                        f"{sorted(names)}"
                    )
                if label and seen.setdefault(label, index) != index:
                    raise LabelError(f"label {label} ({names[label]}) occurs in two layers")
        if len(set(names.values())) != len(names):
            raise LabelError(f"two labels have one name: {sorted(names.values())}")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "names", names)

    @classmethod
    def of(
        cls, labels: NDArray[Any], grid: Grid, names: Mapping[int, str] | None = None
    ) -> LabelMap:
        """Take disjoint regions from one array; unnamed labels become ``label_N``.

        Booleans are one region; floats must be whole numbers.
        """
        array = np.asarray(labels)
        if array.dtype == np.bool_:
            array = array.astype(np.uint8)
        if not np.issubdtype(array.dtype, np.integer):
            rounded = np.rint(array)
            if not np.isfinite(array).all() or not np.array_equal(rounded, array):
                raise LabelError("a label map holds whole numbers; this one holds fractions or NaN")
            array = rounded.astype(np.int32)
        known = {} if names is None else dict(names)
        found = {label: known.get(label, f"label_{label}") for label in _present(array) if label}
        return cls(array[None], grid, {**known, **found})

    @classmethod
    def from_masks(cls, masks: Mapping[str, NDArray[np.bool_]], grid: Grid) -> LabelMap:
        """Take regions that may overlap, one mask a name; each becomes a layer."""
        if not masks:
            raise LabelError("no mask was given")
        for name, mask in masks.items():
            if np.shape(mask) != grid.shape:
                raise LabelError(
                    f"mask {name!r} must have the grid's shape {grid.shape}, got {np.shape(mask)}"
                )
        dtype = np.uint8 if len(masks) < 256 else np.int32
        layers = np.stack([np.asarray(m, bool) * dtype(i) for i, m in enumerate(masks.values(), 1)])
        return cls(layers.astype(dtype), grid, dict(enumerate(masks, 1)))

    @property
    def is_disjoint(self) -> bool:
        """Whether no two regions can share a voxel (one layer)."""
        return len(self.layers) == 1

    @property
    def region_names(self) -> tuple[str, ...]:
        """Names in order of their labels, background first."""
        return tuple(self.names[label] for label in sorted(self.names))

    def label(self, name: str) -> int:
        """Label of a region's name; the error suggests the nearest names."""
        for label, known in self.names.items():
            if known == name:
                return label
        raise LabelError(f"no region {name!r}{nearest(name, self.region_names)}")

    def mask(self, region: str | int) -> NDArray[np.bool_]:
        """Boolean array of one region, on the grid."""
        label = self.label(region) if isinstance(region, str) else region
        if label == 0:
            return np.asarray((self.layers == 0).all(axis=0))
        return np.asarray((self.layers == label).any(axis=0))


def _present(labels: NDArray[np.integer[Any]]) -> list[int]:
    """Find the labels that occur, ascending, without sorting the voxels.

    Raises
    ------
    LabelError
        If one is negative.
    """
    if labels.size == 0:
        return []
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise LabelError(f"labels are not negative, got {low}")
    if high >= MANY_LABELS:
        return [int(label) for label in np.unique(labels)]
    seen = np.zeros(high + 1, np.bool_)
    for slab in labels:
        seen |= np.bincount(slab.ravel().astype(np.intp), minlength=high + 1) > 0
    return [int(label) for label in np.flatnonzero(seen)]


def nearest(name: str, known: Sequence[str]) -> str:
    """End of an error message: the names most like `name`, and all of them."""
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"{hint} Known: {', '.join(known)}"
