"""Images that ``voxplain counterfactual apply`` is given: files, folders, data folders, series."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from voxplain.data import read_data
from voxplain.data.images import holds_dicom
from voxplain.errors import DataError, all_faults
from voxplain.records.archive import slugs
from voxplain.report.cohort_rows import counted
from voxplain.space import nifti, picture
from voxplain.space.read import case_name

_TABLES = (".csv", ".tsv", ".parquet", ".json")
_LABEL_MAP = re.compile(r"(^|[_.-])(segmentations?|seg|labels?|masks?)$", re.IGNORECASE)
_MOST_TOLD = 5


def image_files(paths: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Find the images that files and folders mean, by name of the case.

    A manifest, a datalist and a data folder are their cases; any other folder is the image files
    and DICOM series in it, without label maps (named ``seg``, ``segmentation``, ``label`` or
    ``mask``, or ending in ``_seg``, …); a folder of DICOM files alone is one series.

    Returns
    -------
    dict of str to Path
        Name of the case, safe in file names, and its image.
    list of str
        What each folder was taken for, and what was left out.

    Raises
    ------
    DataError
        If two images have one name, a case has several channels, or a folder holds none.
    """
    found: dict[str, list[Path]] = {}
    told: list[str] = []
    for path in paths:
        if _is_data(path):
            named, words = _of_data(path)
            told.append(words)
        else:
            named = [(case_name(path), path)]
        for name, file in named:
            if file not in (same := found.setdefault(name, [])):
                same.append(file)
    faults = [
        f"{' and '.join(map(str, same))} are both called {name}; rename or move one"
        for name, same in found.items()
        if len(same) > 1
    ]
    if faults:
        raise DataError(all_faults("--image", faults))
    safe = slugs(found)
    return {safe[name]: same[0] for name, same in found.items()}, told


def _is_data(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix.lower() in _TABLES
    return not holds_dicom(path) or any(map(_is_image, path.iterdir()))


def _is_image(file: Path) -> bool:
    return file.is_file() and file.name.lower().endswith((*nifti.SUFFIXES, *picture.SUFFIXES))


def _of_data(path: Path) -> tuple[list[tuple[str, Path]], str]:
    """Give names and images of a data folder, and words on them."""
    cohort = read_data(path)
    left = [str(fault) for fault in cohort.faults]
    cases = []
    for case in cohort:
        if cohort.layout == "images" and _LABEL_MAP.search(case.name):
            left.append(f"{case.name}: named like a label map")
        else:
            cases.append(case)
    several = [case.name for case in cases if len(case.images) > 1]
    if several:
        raise DataError(
            f"{path}: {counted(len(several), 'case')} of several channels ({_few(several)}); "
            "name the files of one channel with --image"
        )
    if not cases:
        raise DataError(f"{path}: no image is left; left out: {_few(left)}")
    words = f"{path}: {counted(len(cases), 'image')}, read as {cohort.layout}"
    words += f"; left out: {_few(left)}" if left else ""
    return [(case.name, case.images[0]) for case in cases], words


def _few(names: Sequence[str]) -> str:
    n_more = len(names) - _MOST_TOLD
    return "; ".join([*names[:_MOST_TOLD], *([f"and {n_more} more"] if n_more > 0 else [])])
