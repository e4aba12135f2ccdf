"""Synthetic chest CT patients: known anatomy, realistic intensities, an oblique grid."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from voxplain.demo.anatomy import Anatomy
from voxplain.demo.canvas import STRUCTURES
from voxplain.demo.shapes import rotation
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.nifti import write_nifti
from voxplain.space.volume import Volume
from voxplain.space.write import atomic_file

SHAPE = (96, 72, 64)


def acquisition(seed: int) -> Grid:
    """Grid of a patient's scan: LPS order, anisotropic and oblique, as DICOM readers give it.

    The field of view follows the patient's size, so the spacing is different in every patient
    (about 3.3 to 4.3 mm in the plane, 4.3 to 4.8 mm between slices), and the scan is turned a
    few degrees against the patient's axes.
    """
    rng = np.random.default_rng([seed, 2])
    anatomy = Anatomy(seed)
    needed = max(anatomy.width_mm() / SHAPE[0], (anatomy.depth_mm() + 22) / SHAPE[1])
    plane = needed * rng.uniform(1.03, 1.08)
    spacing = np.array([plane, plane, rng.uniform(4.3, 4.8)])
    angles = np.deg2rad(rng.choice([-1, 1], 3) * rng.uniform(1.5, 4.5, 3))
    directions = rotation(*angles) @ np.diag([-1.0, -1.0, 1.0])  # to the left, the back, the head
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    middle = anatomy.middle + np.array([0, -6, -6]) + rng.uniform(-4, 4, 3)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return Grid(SHAPE, affine)


def patient(
    seed: int, *, lesion: bool | None = None, grid: Grid | None = None
) -> tuple[Volume, LabelMap]:
    """Draw one patient: a noisy chest CT in HU and its true structures.

    Structures (label 1, 2, …): right and left lung with vessels, trachea with carina and main
    bronchi, heart with four chambers, aorta with arch, esophagus, vertebrae with processes and
    discs, spinal cord, ribs, sternum, scapulae, autochthonous back muscles, liver, spleen,
    stomach with an air bubble, and in some patients a lung nodule. Size, pose, shape, contrast
    medium and noise differ between patients; one seed gives one patient.

    Parameters
    ----------
    seed
        Seed of every draw, 0 or more.
    lesion
        Whether there is a nodule; None: drawn, one patient in two.
    grid
        Where to sample; default the patient's own scan (`acquisition`).

    Returns
    -------
    tuple[Volume, LabelMap]
        One channel ``ct`` of whole HU in float32, and the labels, on the same grid.
    """
    where = acquisition(seed) if grid is None else grid
    anatomy = Anatomy(seed, lesion)
    index = np.indices(where.shape).reshape(3, -1).T
    canvas = anatomy.paint(where.to_world(index), edge_mm=float(np.mean(where.spacing)))
    rng = np.random.default_rng([seed, 3])
    grain = gaussian_filter(rng.standard_normal(where.shape), (0.75, 0.75, 0.4))
    noise = grain / grain.std() * rng.uniform(9, 20)
    hu = np.clip(np.rint(canvas.hu.reshape(where.shape) + noise), -1024, 3071)
    image = Volume(hu[None].astype(np.float32), where, ("ct",), f"patient_{seed:03d}")
    names = dict(enumerate(STRUCTURES, 1))
    return image, LabelMap(canvas.labels.reshape((1, *where.shape)), where, names)


def write_patients(
    folder: Path | str, seeds: Iterable[int], *, lesion: bool | None = None
) -> list[Path]:
    """Write patients as NIfTI: ``NAME.nii.gz``, ``NAME_labels.nii.gz`` and one ``labels.json``.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    seeds
        One a patient.
    lesion
        Whether each has a nodule; None: by the seed, about half of them.

    Returns
    -------
    list[Path]
        The CT files (int16 HU), in order of the seeds; their labels (uint8) lie beside them.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    images = []
    folder = Path(folder)
    for seed in seeds:
        image, labels = patient(seed, lesion=lesion)
        images.append(folder / f"{image.name}.nii.gz")
        write_nifti(images[-1], image.data, image.grid, np.int16)
        write_nifti(folder / f"{image.name}_labels.nii.gz", labels.layers, image.grid, np.uint8)
    with atomic_file(folder / "labels.json") as path:
        path.write_text(json.dumps({str(k): v for k, v in enumerate(STRUCTURES, 1)}, indent=2))
    return images
