"""Everything that can be said of one case by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from voxplain.data.case import Case, read_mask
from voxplain.data.cohort import Cohort
from voxplain.data.fault import Fault, fault_of, shown
from voxplain.data.header import Header, read_header
from voxplain.data.images import holds_dicom
from voxplain.errors import VoxplainError
from voxplain.space import Grid, LabelMap, read_image, read_labels

Level = Literal["quick", "full"]


@dataclass
class Examined:
    """What was found in one case.

    Parameters
    ----------
    case
        The case.
    faults
        Faults and remarks.
    grid
        Of the first image that can be read.
    n_channels
        In all of its images; None if one cannot be read.
    labels
        Names of the classes that occur; None if voxels were not read.
    sha256
        Hash of each image's voxels and place; empty if voxels were not read.
    """

    case: Case
    faults: list[Fault] = field(default_factory=list)
    grid: Grid | None = None
    n_channels: int | None = None
    labels: set[str] | None = None
    sha256: list[str] = field(default_factory=list)


def examine(
    case: Case, cohort: Cohort, level: Level, tell: Callable[[], None] = lambda: None
) -> Examined:
    """Open the files of one case, every one of them whatever the others say.

    Parameters
    ----------
    case
        The case.
    cohort
        What it belongs to: names of channels and classes.
    level
        ``quick``: headers. ``full``: voxels too.
    tell
        Called after each file.

    Returns
    -------
    Examined
        With its faults and remarks.
    """
    found = Examined(case)
    headers = [_look(found, file, cohort, level, tell) for file in case.images]
    first = next((i for i, header in enumerate(headers) if header is not None), None)
    if first is not None:
        found.grid = headers[first].grid  # type: ignore[union-attr]
    if case.images and all(headers):
        found.n_channels = sum(header.n_channels for header in headers if header)
    _check_channels(found, cohort)
    for file, header in zip(case.images, headers, strict=True):
        if first is not None and header is not None:
            _check_grid(found, cohort.root, file, header, case.images[first])
    maps = [_look(found, file, cohort, level, tell, is_label=True) for file in case.label_files]
    for file, header in zip(case.label_files, maps, strict=True):
        if first is not None and header is not None:
            _check_grid(found, cohort.root, file, header, case.images[first], is_label=True)
    if found.labels == set() and all(maps):
        place = shown(case.label_files[0], cohort.root) if len(maps) == 1 else None
        what, advice = "no voxel is labelled", "fine if nothing is there to label"
        found.faults.append(Fault(what, advice, case.name, place, "remark"))
    return found


def _look(
    found: Examined, file: Path, cohort: Cohort, level: Level, tell: Callable[[], None],
    is_label: bool = False,
) -> Header | None:  # fmt: skip
    """Open one file; None, and a fault, if it cannot be used."""
    try:
        if fault := _absent(file, found.case, cohort.root):
            found.faults.append(fault)
            return None
        if level == "full":
            if is_label:
                return _full_labels(found, file, cohort)
            return _full_image(found, file, cohort.root)
        return read_header(file, is_label) if file.is_file() else None
    except VoxplainError as error:
        found.faults.append(fault_of(error, file, cohort.root, found.case.name))
        return None
    finally:
        tell()


def _absent(file: Path, case: Case, root: Path) -> Fault | None:
    """Say that a file is not there or empty; ``DIR#N`` is one series of a folder."""
    place = shown(file, root)
    if not file.exists() and "#" in file.name:
        file = file.with_name(file.name.rpartition("#")[0])
    if file.is_dir():
        if holds_dicom(file):
            return None
        return Fault("is a folder without a DICOM series", "give an image file", case.name, place)
    if not file.exists():
        return Fault("the file is missing", "add it or remove the case", case.name, place)
    if file.stat().st_size == 0:
        return Fault("the file is empty (0 bytes)", "copy it again", case.name, place)
    return None


def _full_image(found: Examined, file: Path, root: Path) -> Header:
    image = read_image(file, name=file.name)
    for name, data in zip(image.channels, image.data, strict=True):
        if data.min() == data.max():
            what = "every voxel" if image.n_channels == 1 else f"every voxel of {name}"
            what, advice = f"{what} is {data.flat[0]:g}", "look at it: is it the right file?"
            found.faults.append(Fault(what, advice, found.case.name, shown(file, root), "remark"))
    found.sha256.append(image.sha256())
    return Header(image.grid, image.n_channels)


def _full_labels(found: Examined, file: Path, cohort: Cohort) -> Header:
    """Read a label map or one mask; note labels that are not declared."""
    masks = found.case.labels
    if isinstance(masks, Mapping):
        mask = read_mask(file)
        own = [name for name, path in masks.items() if path == file and (mask.layers > 0).any()]
        found.labels = (found.labels or set()) | set(own)
        return Header(mask.grid, 1)
    labels = read_labels(file, dict(cohort.classes) or None)
    present = _present(labels)
    unknown = [label for label in present if label and label not in cohort.classes]
    if cohort.classes and unknown:
        known = ", ".join(f"{label} {name}" for label, name in sorted(cohort.classes.items()))
        found.faults.append(
            Fault(
                f"holds {'label' if len(unknown) == 1 else 'labels'} "
                f"{', '.join(map(str, unknown))}, declared are {known}",
                "declare or change them",
                found.case.name,
                shown(file, cohort.root),
            )
        )
    found.labels = {labels.names[label] for label in present if label}
    return Header(labels.grid, 1)


def _present(labels: LabelMap) -> list[int]:
    values = pd.unique(labels.layers.ravel())
    return sorted(int(value) for value in np.asarray(values))


def _check_channels(found: Examined, cohort: Cohort) -> None:
    n = len(cohort.channels)
    if not found.case.images:
        found.faults.append(Fault("has no image", "add one or remove the case", found.case.name))
    elif n and found.n_channels is not None and found.n_channels != n:
        found.faults.append(
            Fault(
                f"its images hold {found.n_channels} channels, expected {n} "
                f"({', '.join(cohort.channels)})",
                "give each channel once",
                found.case.name,
            )
        )


def _check_grid(
    found: Examined, root: Path, file: Path, header: Header, first: Path, is_label: bool = False
) -> None:
    """Note a file that does not lie where the first image does."""
    assert found.grid is not None
    if header.grid.matches(found.grid):
        return
    what = "labels are" if is_label else "image is"
    function = "resample_labels(labels, like=image)" if is_label else "resample(image, like=other)"
    shift = _shift(header.grid, found.grid)
    found.faults.append(
        Fault(
            f"{what} on another grid than {shown(first, root)}: {header.grid.describe()} against "
            f"{found.grid.describe()}{shift}",
            f"resample with voxplain.space.{function}",
            found.case.name,
            shown(file, root),
        )
    )


def _shift(grid: Grid, other: Grid) -> str:
    """How far corners lie apart, for grids of one shape."""
    if grid.shape != other.shape:
        return ""
    corners = grid.corners()
    distance = np.linalg.norm(grid.to_world(corners) - other.to_world(corners), axis=1).max()
    return f", up to {distance:.3g} mm apart"
