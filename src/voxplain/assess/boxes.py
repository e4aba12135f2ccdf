"""Boxes that say where a finding lies, from a table, as masks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.data.metadata import is_absent, read_table
from voxplain.errors import DataError, all_faults
from voxplain.records.lesion_tables import check_columns
from voxplain.space.grid import Grid
from voxplain.space.labelmap import nearest

_AXES = "ijk"
_WHOLE = re.compile(r"[+-]?[0-9]+")
NEEDS = "expected the columns case, target, i0, j0, i1, j1 (2D), and k0, k1 for volumes"


def read_boxes(
    path: Path | str,
    *,
    cases: Collection[str] | None = None,
    targets: Collection[str] | None = None,
) -> pd.DataFrame:
    """Read a table of boxes.

    A box holds the voxels i0 ≤ i < i1, j0 ≤ j < j1 (and k0 ≤ k < k1): the first index is in it,
    the last is not, as in a Python slice, so that i1 - i0 is its number of voxels. Indices start
    at 0 and count voxels of the image as it was read: i, j, k are the axes of a NIfTI file's
    array; in a picture i is the row, from the top, and j the column. A box given as x, y, width,
    height in pixels is j0 = x, i0 = y, j1 = x + width, i1 = y + height.

    Parameters
    ----------
    path
        .csv, .tsv or .parquet; one row a box, several a case and target if need be. Other
        columns are not read.
    cases, targets
        Names that the table may hold; None: any.

    Returns
    -------
    DataFrame
        Columns case, target (text), i0, j0 (k0), i1, j1 (k1) and row (whole numbers). row: place
        in the file, the head being row 1; blank lines are not counted.

    Raises
    ------
    DataError
        If the file cannot be read or holds no box, a column is missing, or a cell is wrong; all
        faults at once, with row and column. Whether boxes lie in the image is asked by
        `box_masks`.
    """
    path = Path(path)
    frame = read_table(path)
    ends = _ends(path, [str(column) for column in frame.columns])
    if frame.empty:
        raise DataError(f"{path}: holds no box below its head; add one row a box")
    known = {"case": cases, "target": targets}
    faults: list[str] = []
    rows: list[dict[str, str | int]] = []
    for row, cells in enumerate(frame.to_dict(orient="records"), 2):
        texts = {str(column): str(cell) for column, cell in cells.items()}
        wrong = [*_name_faults(texts, known), *_end_faults(texts, ends)]
        faults += [f"row {row}, {fault}" for fault in wrong]
        if not wrong:
            rows.append(
                {"case": texts["case"], "target": texts["target"]}
                | {end: int(texts[end]) for end in ends}
                | {"row": row}
            )
    if faults:
        raise DataError(all_faults(str(path), faults))
    return pd.DataFrame(rows, columns=["case", "target", *ends, "row"])


def box_masks(table: pd.DataFrame, case: str, grid: Grid) -> dict[str, NDArray[np.bool_]]:
    """Draw the boxes of a case.

    Parameters
    ----------
    table
        From `read_boxes`.
    case
        Its name.
    grid
        Of the image as it was read.

    Returns
    -------
    dict
        For each target of the case, in the order of the table, a mask (*grid.shape) that is true
        in any of its boxes. Empty for a case without boxes.

    Raises
    ------
    DataError
        If the boxes have another number of axes than the image, or reach out of it; all faults
        at once, with row and column.
    LabelError
        If the table lacks a column.
    """
    check_columns(table, ("case", "target", "i0", "j0", "i1", "j1", "row"), "boxes")
    rank = 3 if "k0" in table.columns else 2
    if rank != grid.rank:
        raise DataError(
            f"boxes of case {case!r}: the table's boxes have {rank} axes, the image has "
            f"{grid.rank} (shape {grid.shape}); "
            + ("leave out k0 and k1" if rank == 3 else "add the columns k0 and k1")
        )
    masks: dict[str, NDArray[np.bool_]] = {}
    faults: list[str] = []
    for box in table[table["case"] == case].to_dict(orient="records"):
        slices = []
        for axis, length in zip(_AXES, grid.shape, strict=False):
            start, end = int(box[f"{axis}0"]), int(box[f"{axis}1"])
            slices.append(slice(start, end))
            if not 0 <= start < end <= length:
                faults.append(
                    f"row {box['row']}, {axis}0, {axis}1 are {start}, {end}, expected "
                    f"0 ≤ {axis}0 < {axis}1 ≤ {length}, the image's length; cut the box at its edge"
                )
        mask = masks.setdefault(str(box["target"]), np.zeros(grid.shape, bool))
        mask[tuple(slices)] = True
    if faults:
        raise DataError(all_faults(f"boxes of case {case!r}", faults))
    return masks


def _ends(path: Path, columns: list[str]) -> list[str]:
    """Columns of a box's ends; 3D if one of the third axis is there."""
    rank = 3 if {"k0", "k1"} & set(columns) else 2
    ends = [f"{axis}{end}" for end in "01" for axis in _AXES[:rank]]
    missing = [column for column in ("case", "target", *ends) if column not in columns]
    if missing:
        raise DataError(
            f"{path}: {NEEDS}; missing: {', '.join(missing)} among {', '.join(columns)}"
        )
    return ends


def _name_faults(
    texts: Mapping[str, str], known: Mapping[str, Collection[str] | None]
) -> Iterator[str]:
    for column, names in known.items():
        text = texts[column]
        if is_absent(text):
            yield f"{column} is empty; fill it in or remove the row"
        elif names is not None and text not in names:
            yield f"{column} is {text!r}, which is not known{nearest(text, sorted(names))}"


def _end_faults(texts: Mapping[str, str], ends: list[str]) -> Iterator[str]:
    rank = len(ends) // 2
    for first, last in zip(ends[:rank], ends[rank:], strict=True):
        wrong = [end for end in (first, last) if not _WHOLE.fullmatch(texts[end])]
        for end in wrong:
            yield f"{end} is {texts[end]!r}, expected a whole number of voxels"
        if wrong:
            continue
        if int(texts[first]) < 0:
            yield f"{first} is {texts[first]}, expected at least 0; cut the box at the image's edge"
        if int(texts[last]) <= int(texts[first]):
            yield (
                f"{last} is {texts[last]}, expected more than {first}, {texts[first]}: the end "
                "itself is not in the box"
            )
