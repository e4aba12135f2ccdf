"""A plain folder of images without labels: the last resort."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from voxplain.data.cohort import Cohort
from voxplain.data.draft import Draft, visible
from voxplain.errors import DataError
from voxplain.space import nifti, picture
from voxplain.space.read import case_name

NEEDS = "image files (NIfTI, PNG, JPEG, TIFF, NPY) or folders of one DICOM series each, no labels"
_SUFFIXES = (*nifti.SUFFIXES, *picture.SUFFIXES)
_NUMBERED = re.compile(r"_\d{4}\.")


def fits(path: Path) -> bool:
    """Whether a folder holds images or DICOM series."""
    return path.is_dir() and any(_is_image(p) or holds_dicom(p) for p in visible(path))


def _is_image(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(_SUFFIXES)


def holds_dicom(folder: Path) -> bool:
    """Whether a folder holds a DICOM file: by its first bytes, or else by its suffix."""
    return folder.is_dir() and any(
        file.suffix.lower() in (".dcm", ".ima") or _is_dicom(file)
        for file in visible(folder)
        if file.is_file()
    )


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read(path: Path) -> Cohort:
    """Read the folder.

    Parameters
    ----------
    path
        Folder of image files, or of folders with one DICOM series each.

    Returns
    -------
    Cohort
        Without labels, splits or metadata. Files CASE_0000, CASE_0001, … are channels of one
        case.

    Raises
    ------
    DataError
        If there is no image.
    """
    if not fits(path):
        raise DataError(f"{path}: expected {NEEDS}; found none")
    draft = Draft(path, "images")
    cases: defaultdict[str, list[Path]] = defaultdict(list)
    for entry in visible(path):
        if _is_image(entry):
            name = case_name(entry)
            cases[name if _NUMBERED.search(entry.name) else f"{name}\0{entry.name}"].append(entry)
        elif holds_dicom(entry):
            cases[f"{entry.name}\0"].append(entry)
        elif entry.is_dir():
            draft.remark("left out: holds no DICOM series", "move its images up", file=entry)
        else:
            draft.remark("left out: no known image format", "convert it", file=entry)
    for key, files in cases.items():
        draft.add(key.partition("\0")[0], files)
    return draft.finish()
