"""Files of a repaired image: whole or not at all, and recognised when they are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.counterfactual.apply import Applied
from voxplain.errors import OutputError, all_faults
from voxplain.records.archive import file_sha256
from voxplain.records.provenance import Provenance
from voxplain.space.nifti import write_nifti
from voxplain.space.write import atomic_folder

FORMAT = "voxplain counterfactual"
_RUN_WITH = ("device", "batch")
"""Parameters that decide how it was run, not what is asked for."""


def write_applied(
    applied: Applied,
    folder: Path,
    name: str,
    provenance: Provenance,
    *,
    is_8_bit: bool = False,
) -> tuple[str, ...]:
    """Write everything of one image, or nothing.

    3D: NAME_counterfactual.nii.gz, NAME_difference.nii.gz, NAME_mask.nii.gz. 2D:
    NAME_counterfactual.png (8-bit grey) or .tif (float32), NAME_difference.npy and .png (drawn,
    colours symmetric about zero), NAME_mask.png (0 and 255). Both: NAME_slices.csv, NAME.json.

    Parameters
    ----------
    applied
        What was found.
    folder
        May exist; other files in it stay.
    name
        Of the image, safe in file names.
    provenance
        Kept in NAME.json with a hash of every file, by which `finished` knows them.
    is_8_bit
        Whether the image was an 8-bit picture: its counterfactual becomes one too, rounded,
        unless its values do not fit.

    Returns
    -------
    tuple of str
        Names of the files.

    Raises
    ------
    OutputError
        If the disk refuses, or a NAME.json is there that this did not write.
    """
    check_foreign(folder, [name])
    with atomic_folder(folder) as place:
        if applied.grid.rank == 3:
            _write_volume(applied, place, name)
        else:
            _write_picture(applied, place, name, is_8_bit)
        applied.table.to_csv(place / f"{name}_slices.csv", index=False)
        hashes = {file.name: file_sha256(file) for file in sorted(place.iterdir())}
        said = {
            "format": FORMAT,
            "unit": applied.unit,
            "notes": applied.notes,
            "provenance": provenance.to_dict(),
        }
        text = json.dumps({**said, "files": hashes}, indent=2, ensure_ascii=False)
        (place / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return (f"{name}.json", *hashes)


def check_foreign(folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace a NAME.json that `write_applied` did not write.

    Raises
    ------
    OutputError
        All of them.
    """
    files = [folder / f"{name}.json" for name in names]
    faults = [
        f"{file} is there and is no record of a repaired image; it is not replaced"
        for file in files
        if file.is_file() and not _is_ours(file)
    ]
    if faults:
        raise OutputError(f"{all_faults(str(folder), faults)}\nchoose another --out")


def _is_ours(file: Path) -> bool:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False  # neither torn nor other text is ours: it is written whole
    return isinstance(found, dict) and found.get("format") == FORMAT


def finished(folder: Path, name: str, provenance: Provenance) -> bool:
    """Whether a folder holds the same result, whole: asked for alike, and no file has changed.

    Cost, versions, device and batch size may differ.
    """
    try:
        found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        is_same = found["format"] == FORMAT and _asked(
            Provenance.from_dict(found["provenance"])
        ) == _asked(provenance)
        files: Mapping[str, str] = found["files"]
        return is_same and all(
            (folder / file).is_file() and file_sha256(folder / file) == digest
            for file, digest in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # none, or not one of ours: it is made again


def _asked(provenance: Provenance) -> dict[str, Any]:
    """Leave out what does not decide the result."""
    parameters = {k: v for k, v in provenance.parameters.items() if k not in _RUN_WITH}
    values = replace(provenance, parameters=parameters).to_dict()
    return {k: v for k, v in values.items() if k not in ("cost", "versions", "created")}


def _write_volume(applied: Applied, place: Path, name: str) -> None:
    write_nifti(place / f"{name}_counterfactual.nii.gz", applied.counterfactual, applied.grid)
    write_nifti(place / f"{name}_difference.nii.gz", applied.difference, applied.grid)
    write_nifti(place / f"{name}_mask.nii.gz", applied.mask, applied.grid, np.uint8)


def _write_picture(applied: Applied, place: Path, name: str, is_8_bit: bool) -> None:
    import tifffile
    from PIL import Image

    rounded = np.rint(applied.counterfactual)
    fits = np.isfinite(rounded).all() and rounded.min() >= 0 and rounded.max() <= 255
    if is_8_bit and applied.unit == "image" and fits:
        Image.fromarray(rounded.astype(np.uint8)).save(place / f"{name}_counterfactual.png")
    else:
        tifffile.imwrite(
            place / f"{name}_counterfactual.tif", applied.counterfactual, photometric="minisblack"
        )
    np.save(place / f"{name}_difference.npy", applied.difference)
    (place / f"{name}_difference.png").write_bytes(_drawn(applied.difference))
    Image.fromarray(applied.mask * np.uint8(255)).save(place / f"{name}_mask.png")


def _drawn(difference: NDArray[np.float32]) -> bytes:
    """Draw a signed difference with its scale; white is no change."""
    import pandas as pd

    from voxplain.report.drawing import Drawing, blank

    rows, columns = difference.shape
    figure = blank(6.0, 5.0 * min(2.0, max(0.5, rows / columns)))
    axes = figure.add_axes((0.02, 0.02, 0.8, 0.96))
    limit = float(np.abs(difference).max()) or 1.0
    shown = axes.imshow(difference, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, label="counterfactual − image (intensity)", fraction=0.05)
    return Drawing(figure, pd.DataFrame()).png(dpi=100)
