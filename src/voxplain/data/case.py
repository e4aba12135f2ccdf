"""One case: the files of a patient's image and labels, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import DataError, GridError, LabelError
from voxplain.space import LabelMap, Volume, read_image, read_labels

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Case:
    """Where the image and the labels of one case lie; nothing is read before it is asked for.

    Parameters
    ----------
    name
        Name in tables, reports and file names: no slash, never a patient's name.
    images
        One file (or folder of a DICOM series) a channel; or one file with all channels.
    labels
        A label map; or one mask a structure, by the structure's name; or None.
    split
        Which part of a study it belongs to; None: not said.
    patient
        What is the same for cases of one patient; used to keep a patient in one split, never
        printed.
    metadata
        What else is known, e.g. age, sex, scanner: text or finite numbers. Their names are not
        those of the columns that a manifest has for the rest (``case``, ``image_…``, …).

    Raises
    ------
    DataError
        If the name cannot be a file name, the split is unknown, or metadata are neither or
        have a taken name.
    """

    name: str
    images: tuple[Path, ...]
    labels: Path | Mapping[str, Path] | None = None
    split: Split | None = None
    patient: str | None = None
    metadata: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.strip() or self.name in (".", "..") or set(self.name) & set("/\\\0"):
            raise DataError(
                f"the name of a case is also that of files, got {self.name!r}; use letters, "
                "digits, - and _"
            )
        if self.split not in (None, *get_args(Split)):
            raise DataError(
                f"{self.name}: split is {self.split!r}; choose one of "
                f"{', '.join(get_args(Split))}, or None"
            )
        for key, value in self.metadata.items():
            if is_taken(key):
                raise DataError(
                    f"{self.name}: metadata {key!r} has a name that is taken; rename it"
                )
            if not isinstance(value, str) and not math.isfinite(value):
                raise DataError(
                    f"{self.name}: metadata {key!r} is {value!r}, expected text or a finite "
                    "number; leave it out where it is not known"
                )
        object.__setattr__(self, "images", tuple(Path(p) for p in self.images))
        object.__setattr__(self, "metadata", dict(self.metadata))
        if isinstance(self.labels, Mapping):
            object.__setattr__(self, "labels", dict(self.labels))

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The label map, or every mask; empty without labels."""
        if self.labels is None:
            return ()
        return tuple(self.labels.values()) if isinstance(self.labels, Mapping) else (self.labels,)

    def read_image(self, channels: Sequence[str] | None = None) -> Volume:
        """Read the image, as `voxplain.space.read_image`.

        Parameters
        ----------
        channels
            One name a channel; default: the file's own.

        Raises
        ------
        ImageError
            If a file is missing or cannot be used, or the case has none.
        GridError
            If the channels are on different grids.
        """
        return read_image(self.images, channels or None, name=self.name)

    def read_labels(self, names: Mapping[int, str] | None = None) -> LabelMap:
        """Read the labels.

        Parameters
        ----------
        names
            Name of each label; default: ``labels.json`` beside the map. Of masks, it says
            which label each structure gets, so that cases agree; default: 1, 2, … in their
            order.

        Returns
        -------
        LabelMap
            One layer; masks that overlap are spread over as many layers as they need.

        Raises
        ------
        ImageError
            If a file is missing or cannot be used.
        GridError
            If masks are on different grids.
        LabelError
            If values are fractions or negative, a mask holds several labels or has no name in
            `names`, or the case has no labels.
        """
        if self.labels is None:
            raise LabelError(f"{self.name}: this case has no labels")
        if isinstance(self.labels, Mapping):
            return read_masks(self.labels, names)
        return read_labels(self.labels, names)


def is_image_column(column: str) -> bool:
    """Whether a column of a table of cases holds image files."""
    return column == "image" or column.startswith("image_")


def is_label_column(column: str) -> bool:
    """Whether a column of a table of cases holds label maps or masks."""
    return column == "label" or column.startswith("label_")


def is_taken(column: str) -> bool:
    """Whether a column of a table of cases holds something else than metadata."""
    is_file = is_image_column(column) or is_label_column(column)
    return is_file or column in ("case", "patient", "split")


def read_mask(path: Path) -> LabelMap:
    """Read a mask of one structure: at most one label beside 0 (1, or 255 in pictures).

    Raises
    ------
    LabelError
        If there are several.
    """
    mask = read_labels(path, names={})
    labels = [label for label in mask.names if label]
    if len(labels) > 1:
        raise LabelError(
            f"{path}: a mask of one structure holds 0 and one other value, got {labels}, as a "
            "label map of several structures does"
        )
    return mask


def read_masks(masks: Mapping[str, Path], names: Mapping[int, str] | None = None) -> LabelMap:
    """Join masks into as few layers as keep all of their voxels."""
    if not masks:
        raise LabelError("no mask was given")
    known = dict(enumerate(masks, 1)) if names is None else {k: v for k, v in names.items() if k}
    label_of = {name: label for label, name in known.items()}
    unnamed = [name for name in masks if name not in label_of]
    if unnamed:
        raise LabelError(f"masks without a label: {', '.join(unnamed)}; name each in names")
    dtype = np.min_scalar_type(max(known))
    layers: list[NDArray[np.unsignedinteger]] = []
    grid, first = None, next(iter(masks.values()))
    for name, path in masks.items():
        mask = read_mask(path)
        grid = grid or mask.grid
        if not mask.grid.matches(grid):
            raise GridError(
                f"masks of one case are on different grids: {first} has {grid.describe()}, "
                f"{path} has {mask.grid.describe()}; resample one with "
                "voxplain.space.resample_labels(labels, like=other)"
            )
        inside = mask.layers[0] > 0
        layer = next((layer for layer in layers if not layer[inside].any()), None)
        if layer is None:
            layer = np.zeros(grid.shape, dtype)
            layers.append(layer)
        layer[inside] = label_of[name]
    assert grid is not None
    return LabelMap(np.stack(layers), grid, known)
