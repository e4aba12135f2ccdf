"""Synthetic brain MR patients: FLAIR and MPRAGE with white-matter lesions and their truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxplain.demo.brain_anatomy import TISSUES, BrainAnatomy
from voxplain.demo.brain_lesions import Spot, draw_spots
from voxplain.demo.shapes import Floats, Waves, rotation
from voxplain.errors import ImageError
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.nifti import write_nifti
from voxplain.space.volume import Volume

CHANNELS = ("flair", "mprage")
SHAPE = (88, 104, 76)
_LEVELS = np.array([[55.0, 75.0], [305.0, 285.0], [258.0, 425.0]])  # tissue × channel


def brain_model_path() -> Path:
    """Folder of the shipped model: card, weights and what it finds in unseen patients."""
    return Path(str(files("voxplain.demo") / "brain_model"))


def brain_case(seed: int = 903) -> tuple[Volume, LabelMap]:
    """Patient unseen in training, with lesions that are found, missed and falsely found."""
    return brain_patient(seed)


def brain_acquisition(seed: int) -> Grid:
    """Grid of a patient's scan: LPS order, 1.7 to 2 mm, a few degrees oblique, no cube.

    Parameters
    ----------
    seed
        Of the patient.
    """
    rng = np.random.default_rng([seed, 14])
    plane = rng.uniform(1.80, 1.90)
    spacing = np.array([plane, plane, rng.uniform(1.92, 2.02)])
    shape = np.array(SHAPE) + 2 * rng.integers(-1, 3, 3)
    angles = np.deg2rad(rng.choice([-1, 1], 3) * rng.uniform(1.5, 6, 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation(*angles) @ np.diag([-1.0, -1.0, 1.0]) * spacing
    middle = BrainAnatomy(seed).middle + np.array([0, -4, 0]) + rng.uniform(-2, 2, 3)
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(tuple(int(n) for n in shape), affine)


def brain_patient(
    seed: int,
    *,
    lesions: bool = True,
    channels_with_lesions: Sequence[str] = CHANNELS,
    grid: Grid | None = None,
) -> tuple[Volume, LabelMap]:
    """Draw one patient: skull-stripped FLAIR and MPRAGE, and the true lesions.

    In FLAIR grey matter is a little brighter than white and lesions are bright, in MPRAGE white
    matter is brightest and lesions are dark; fluid is dark in both. Some lesions are faint, and
    there are bright spots that are no lesions (`voxplain.demo.brain_lesions`). One seed gives
    one patient.

    Parameters
    ----------
    seed
        Seed of every draw, 0 or more.
    lesions
        Whether there are any, 3 to 25.
    channels_with_lesions
        Channels in which they show; the truth does not depend on it.
    grid
        Where to sample; default the patient's own scan (`brain_acquisition`).

    Returns
    -------
    tuple[Volume, LabelMap]
        Channels ``flair`` and ``mprage``, whole numbers in float32, 0 outside the brain and at
        least 1 inside; and label 1 ``lesion`` on the same grid.

    Raises
    ------
    ImageError
        If a channel is not one of the two.
    """
    unknown = [name for name in channels_with_lesions if name not in CHANNELS]
    if unknown:
        raise ImageError(f"lesions show in channels {CHANNELS}, got {unknown[0]!r}")
    where = brain_acquisition(seed) if grid is None else grid
    drawn = _Drawn(seed, where)
    rng = np.random.default_rng([seed, 15])
    values = drawn.shares @ (_LEVELS + rng.normal(0, 6, _LEVELS.shape))
    truth = np.zeros(len(values), bool)
    for spot in draw_spots(seed, drawn.anatomy, lesions=lesions):
        index, share, core = drawn.spot(spot)
        shown = [not spot.lesion or name in channels_with_lesions for name in CHANNELS]
        values[index] += share[:, None] * (np.array(spot.change) * shown)
        truth[index[core]] |= spot.lesion
    data = np.zeros((2, len(drawn.inside)))
    bias = [Waves.draw(rng, 140, 320, 5) for _ in CHANNELS]
    for channel, field in enumerate(bias):
        noise = gaussian_filter(rng.standard_normal(where.shape), 0.45)
        noise *= rng.uniform(7, 13) / noise.std()
        shading = np.exp(0.045 * field.at(drawn.points)) * rng.uniform(0.8, 1.25)
        scanned = values[:, channel] * shading + noise.ravel()[drawn.inside]
        data[channel, drawn.inside] = np.clip(np.rint(scanned), 1, 4095)
    image = Volume(
        data.reshape(2, *where.shape).astype(np.float32), where, CHANNELS, f"brain_{seed:03d}"
    )
    labels = np.zeros(len(drawn.inside), np.uint8)
    labels[drawn.inside] = truth
    return image, LabelMap(labels.reshape(1, *where.shape), where, {1: "lesion"})


def brain_truth(seed: int, grid: Grid) -> LabelMap:
    """Draw only the true lesions of a patient, label 1, on any grid."""
    drawn = _Drawn(seed, grid)
    truth = np.zeros(len(drawn.points), np.uint8)
    for spot in draw_spots(seed, drawn.anatomy, lesions=True):
        if spot.lesion:
            index, _, core = drawn.spot(spot)
            truth[index[core]] = 1
    labels = np.zeros(len(drawn.inside), np.uint8)
    labels[drawn.inside] = truth
    return LabelMap(labels.reshape(1, *grid.shape), grid, {1: "lesion"})


def brain_tissues(seed: int, grid: Grid | None = None) -> LabelMap:
    """Tissue that most of a voxel is, healthy or not: 1 ``csf``, 2 ``gm``, 3 ``wm``.

    Parameters
    ----------
    seed
        Of the patient.
    grid
        Where to sample; default the patient's own scan.
    """
    where = brain_acquisition(seed) if grid is None else grid
    drawn = _Drawn(seed, where)
    labels = np.zeros(len(drawn.inside), np.uint8)
    labels[drawn.inside] = drawn.shares.argmax(axis=1) + 1
    return LabelMap(labels.reshape(1, *where.shape), where, dict(enumerate(TISSUES, 1)))


def write_brains(folder: Path | str, seeds: Iterable[int], *, lesions: bool = True) -> list[Path]:
    """Write patients: ``NAME_flair``, ``NAME_mprage`` and ``NAME_lesions``, all ``.nii.gz``.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    seeds
        One a patient.
    lesions
        Whether they have any.

    Returns
    -------
    list[Path]
        The FLAIR files (int16), in order of the seeds; the others lie beside them.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    written = []
    folder = Path(folder)
    for seed in seeds:
        image, truth = brain_patient(seed, lesions=lesions)
        for channel, data in zip(image.channels, image.data, strict=True):
            path = folder / f"{image.name}_{channel}.nii.gz"
            write_nifti(path, data[None], image.grid, np.int16)
        write_nifti(folder / f"{image.name}_lesions.nii.gz", truth.layers, truth.grid, np.uint8)
        written.append(folder / f"{image.name}_{CHANNELS[0]}.nii.gz")
    return written


class _Drawn:
    """Tissues of a patient at the voxels of a grid that lie in the brain.

    Attributes
    ----------
    inside
        (voxels,) truth values.
    points, shares
        (n, 3) of those voxels: places in the head's frame, shares of tissues.
    """

    def __init__(self, seed: int, grid: Grid) -> None:
        self.anatomy = BrainAnatomy(seed)
        self.inside, self.points, self.shares = _sampled(
            seed, grid.shape, grid.affine.tobytes(), float(np.mean(grid.spacing))
        )

    def spot(self, spot: Spot) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
        """Points that a spot reaches, its share of each, and which are the spot's own."""
        index = spot.near(self.points)
        distance = spot.distance(self.points[index])
        fits = self.shares[index][:, list(spot.tissues)].sum(axis=1)
        share = np.clip(0.5 - distance / spot.soft_mm, 0, 1) * fits
        return index, share, (distance < 0) & (fits > 0.5)


@lru_cache(maxsize=4)  # image, truth and tissues of a patient are asked for in turn; 6 MB each
def _sampled(
    seed: int, shape: tuple[int, ...], affine: bytes, edge_mm: float
) -> tuple[NDArray[np.bool_], Floats, NDArray[np.float32]]:
    grid = Grid(shape, np.frombuffer(affine).reshape(4, 4))
    anatomy = BrainAnatomy(seed)
    points = anatomy.to_head(grid.to_world(np.indices(shape).reshape(3, -1).T))
    tissues = anatomy.tissues(points, edge_mm)
    inside = np.asarray(tissues.hull < 0)
    found = inside, points[inside], tissues.shares[inside]
    for shared in found:
        shared.flags.writeable = False
    return found
