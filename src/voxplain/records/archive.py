"""How records lie on disk: arrays as NIfTI, their meaning as JSON beside them."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import GridError, RecordError
from voxplain.space.grid import Grid
from voxplain.space.nifti import read_nifti
from voxplain.space.write import atomic_file

INDEX = "provenance.json"
"""File of a result's folder that says how it was made, and the hashes of its other files."""

_FLOAT32_STEP = float(np.finfo(np.float32).eps)


def grid_to_dict(grid: Grid) -> dict[str, Any]:
    """Shape and float64 affine, ready for JSON; NIfTI headers round the affine to float32."""
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def grid_from_dict(values: Mapping[str, Any]) -> Grid:
    """Inverse of `grid_to_dict`, to the last bit."""
    return Grid(tuple(values["shape"]), np.array(values["affine"], dtype=np.float64))


def read_array(path: Path, grid: Grid) -> NDArray[Any]:
    """Read the values of a NIfTI file that should lie on a known grid.

    Parameters
    ----------
    path
        A file that `voxplain.space.nifti.write_nifti` wrote.
    grid
        Where its voxels should lie.

    Returns
    -------
    NDArray
        (n_channels, *grid.shape) values, of the type they were written in.

    Raises
    ------
    ImageError
        If the file cannot be read as NIfTI.
    GridError
        If its header puts the voxels elsewhere.
    """
    values, found = read_nifti(path)
    if grid.rank == 2:
        values, found = values[..., 0], _plane_of(found)
    reach = float(np.abs(grid.to_world(grid.corners())).max())
    tolerance_mm = 1e-3 * min(grid.spacing) + 8 * _FLOAT32_STEP * reach
    if not found.matches(grid, tolerance_mm):
        raise GridError(
            f"{path} and the JSON file beside it disagree on the grid: {found.describe()} in the "
            f"header against {grid.describe()}; the file was changed since it was saved"
        )
    return values


def _plane_of(slice_grid: Grid) -> Grid:
    """2D grid that `write_nifti` placed in the patient as this one slice."""
    if slice_grid.shape[2] != 1:
        raise GridError(f"expected one slice of a 2D grid, got {slice_grid.describe()}")
    affine = np.eye(3)
    affine[:2] = -slice_grid.affine[[1, 0]][:, [0, 1, 3]]
    return Grid(slice_grid.shape[:2], affine)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON that a person can read.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False)
    with atomic_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path, form: str, version: int) -> dict[str, Any]:
    """Read JSON that says it holds `form` in a `version` that is understood.

    Raises
    ------
    RecordError
        If the file is missing, is not JSON, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict) or values.get("format") != form:
        raise RecordError(f"{path} does not hold {form!r}")
    if values.get("version") != version:
        raise RecordError(
            f"{path} is version {values.get('version')!r} of {form!r}, this voxplain reads "
            f"version {version}; use the voxplain that wrote it, or write it again"
        )
    return values


def saved_files(folder: Path) -> set[str]:
    """Names of the files that a result left in a folder, its report's among them."""
    try:
        known = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        names = set(known["files"]) if known["format"].startswith("voxplain ") else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()  # not a result's folder
    # a damaged index must not reach outside the folder
    inside = {n for n in map(str, names) if not Path(n).is_absolute() and ".." not in Path(n).parts}
    return {"report.html", INDEX, *inside} if names else set()


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes.

    Raises
    ------
    RecordError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Give each name a part of a file name that is safe on every system, all different.

    Parameters
    ----------
    names
        Any different texts.

    Returns
    -------
    dict
        Name: letters, digits, ``_`` and ``-`` of ASCII, at most 80 of them; ``class:lung left``
        becomes ``class_lung_left``. Later names that would collide, also where only capitals
        differ, end in ``_2``, ``_3``, ….
    """
    taken: set[str] = set()
    chosen: dict[str, str] = {}
    for name in names:
        ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", ascii_name).strip("_")[:80] or "target"
        slug, n = stem, 1
        while slug.lower() in taken:
            n += 1
            slug = f"{stem}_{n}"
        taken.add(slug.lower())
        chosen[name] = slug
    return chosen
