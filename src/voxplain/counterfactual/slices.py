"""Slices as networks see them, with what is known of each, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError
from voxplain.space.write import atomic_folder

COLUMNS = ("case", "patient", "plane", "index")
"""Of the table: name of the case; number of the patient, not its name; plane; slice number."""

ARRAYS = {
    "images": np.float32,
    "labels": np.int8,
    "truth": np.bool_,
    "organ": np.bool_,
    "inside": np.bool_,
    "clean": np.float32,
}
"""Of a slice, each in a file of its own, and their types."""
TABLE = "slices.csv"


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices of one part of the split.

    Parameters
    ----------
    images
        (n, 1, rows, columns) float32 in [−1, 1].
    labels
        (n,) 1 for abnormal, 0 for normal. Training slices that get their anomalies when they
        are drawn are all 0.
    truth
        (n, rows, columns) pixels of the lesion; false where it is not known.
    organ
        (n, rows, columns) pixels of the organ; true everywhere where there is none to name.
    inside
        (n, rows, columns) pixels that are of the image; the rest is padding.
    clean
        (n, 1, rows, columns): the images before anomalies were put in; None: not known.
    table
        One row a slice, columns `COLUMNS`.

    Raises
    ------
    DataError
        If shapes disagree.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int8]
    truth: NDArray[np.bool_]
    organ: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    table: pd.DataFrame
    clean: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n, *_ = shape = self.images.shape
        flat = (n, *shape[2:])
        wanted = {"labels": (n,), "truth": flat, "organ": flat, "inside": flat}
        faults = [
            f"{name} has shape {getattr(self, name).shape}, expected {size}"
            for name, size in wanted.items()
            if getattr(self, name).shape != size
        ]
        if len(shape) != 4 or shape[1] != 1:
            faults.append(f"images are (n, 1, rows, columns), got {shape}")
        if self.clean is not None and self.clean.shape != shape:
            faults.append(f"clean has shape {self.clean.shape}, expected {shape}")
        if len(self.table) != n or tuple(self.table.columns) != COLUMNS:
            faults.append(f"table: {n} rows of {', '.join(COLUMNS)} are expected")
        if faults:
            raise DataError("slices: " + "; ".join(faults))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def has_truth(self) -> bool:
        """Whether the lesion of any slice is known."""
        return bool(self.truth.any())

    def at(self, chosen: Sequence[int] | NDArray[Any]) -> Slices:
        """Return some of the slices, in memory."""
        index = np.asarray(chosen) if len(chosen) else np.zeros(0, np.intp)
        values = {
            name: np.ascontiguousarray(array[index])
            for name in ARRAYS
            if (array := getattr(self, name)) is not None
        }
        return Slices(**values, table=self.table.iloc[index].reset_index(drop=True))

    def abnormal(self, n: int | None = None) -> Slices:
        """Return the abnormal slices; at most `n`, evenly spread."""
        chosen = np.flatnonzero(self.labels)
        if n is not None and len(chosen) > n:
            chosen = chosen[np.linspace(0, len(chosen) - 1, n).round().astype(int)]
        return self.at(chosen)

    def write(self, folder: Path) -> None:
        """Write one array a file, whole or not at all; arrays that there are none of now go."""
        for name in ARRAYS:
            if getattr(self, name) is None:
                (folder / f"{name}.npy").unlink(missing_ok=True)
        with atomic_folder(folder) as place:
            for field in fields(self):
                if field.name in ARRAYS and (array := getattr(self, field.name)) is not None:
                    np.save(place / f"{field.name}.npy", array)
            self.table.to_csv(place / TABLE, index=False)


def read_slices(folder: Path) -> Slices:
    """Open what `Slices.write` wrote; arrays stay on disk until they are used.

    Raises
    ------
    DataError
        If a file is missing or torn.
    """
    try:
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ARRAYS
            if name != "clean" or (folder / "clean.npy").is_file()
        }
        table = pd.read_csv(folder / TABLE, dtype={"case": str, "plane": str}, na_filter=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be read as slices: {error}") from None
    return Slices(**arrays, table=table)
