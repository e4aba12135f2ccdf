"""Voxels and where they lie in the patient: grids, images, labels, windows, files."""

from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.nifti import write_nifti
from voxplain.space.read import read_image, read_labels
from voxplain.space.resample import (
    above,
    best_class,
    resample,
    resample_contributions,
    resample_labels,
)
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings
from voxplain.space.write import atomic_file, atomic_folder

__all__ = [
    "Box",
    "Grid",
    "LabelMap",
    "Volume",
    "WindowPlan",
    "WindowSettings",
    "above",
    "atomic_file",
    "atomic_folder",
    "best_class",
    "read_image",
    "read_labels",
    "resample",
    "resample_contributions",
    "resample_labels",
    "write_nifti",
]
