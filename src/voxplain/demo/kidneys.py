"""Synthetic abdominal CT patients with two healthy kidneys, to put anomalies into: phantoms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxplain.data.case import Split
from voxplain.demo.shapes import Ellipsoid, Floats
from voxplain.errors import DataError
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.nifti import write_nifti
from voxplain.space.volume import Volume
from voxplain.space.write import atomic_folder

KIDNEY_STRUCTURES = ("kidney_left", "kidney_right", "liver", "vertebrae", "aorta", "bowel")
"""Names of the labels 1, 2, … of a phantom."""

WINDOW = (-200.0, 300.0)
"""HU that levels 0 and 1 stand for."""

SHAPE = (64, 64, 16)
_AIR, _FAT, _MUSCLE, _LIVER, _BONE = -1.6, 0.25, 0.45, 0.50, 0.90
_TEXTURE = _NOISE = 0.02
_EDGE_MM, _GAP_MM = 6.0, 2.0
_ENDLESS_MM = 1e4
_TRIES = 20
_FIRST: dict[Split, int] = {"train": 0, "validation": 6000, "test": 8000}
_MOST = 10_000


class _Canvas:
    """Levels and labels of points; later solids cover earlier ones, with soft edges."""

    def __init__(self, points: Floats) -> None:
        self.points = points
        self.level: Floats = np.full(len(points), _AIR, np.float32)
        self.labels: NDArray[np.uint8] = np.zeros(len(points), np.uint8)

    def paint(self, distance: Floats, level: float, name: str | None = None) -> None:
        """Cover where the signed distance is negative."""
        share = np.clip(0.5 - distance / _EDGE_MM, 0, 1)
        self.level += share * (np.float32(level) - self.level)
        self.labels[distance < 0] = 0 if name is None else KIDNEY_STRUCTURES.index(name) + 1


@dataclass(frozen=True)
class _Kidney:
    """An ellipsoid whose upper end leans towards the spine."""

    solid: Ellipsoid
    lean: float
    level: float

    @classmethod
    def draw(cls, rng: np.random.Generator, side: int) -> _Kidney:
        """Left: side 1; right: side −1, a little lower."""
        centre = rng.uniform([70, 20, -8], [78, 30, 8]) * (side, 1, 1)
        radii = rng.uniform([25, 20, 50], [31, 25, 60])
        turn = side * np.deg2rad(rng.uniform(15, 45))
        lean = side * rng.uniform(0.05, 0.2)
        solid = Ellipsoid(centre - (0, 0, 4 * (side < 0)), radii, turn)
        return cls(solid, float(lean), float(rng.uniform(0.50, 0.60)))

    def distance(self, points: Floats) -> Floats:
        """Signed distance of points (n, 3), (n,)."""
        leaning = points.copy()
        leaning[:, 0] += self.lean * points[:, 2]
        return self.solid.distance(leaning)


def kidney_patient(seed: int) -> tuple[Volume, LabelMap]:
    """Draw one phantom: a noisy abdominal CT and its true structures.

    A body of fat, its wall of muscle, liver, vertebrae, two kidneys of a level between 0.50 and
    0.60 of `WINDOW`, and two things brighter than they are: the aorta and loops of bowel full
    of contrast medium (0.7 to 0.9), some as small as an anomaly and beside a kidney, none in
    one. Size, pose, shape and levels differ between phantoms; one seed gives one phantom.

    Parameters
    ----------
    seed
        Of every draw, 0 or more.

    Returns
    -------
    Volume
        One channel ``ct``, whole HU in float32, shape `SHAPE`, about 5 × 5 × 8 mm; axes to the
        left, the back and the head, so slices along the last are axial.
    LabelMap
        `KIDNEY_STRUCTURES`, on the same grid.
    """
    rng = np.random.default_rng([seed, 41])
    girth = rng.uniform([138, 98], [154, 112])
    size = rng.uniform(0.97, 1.05)
    grid = _grid(rng, float(girth[0] * size))
    canvas = _Canvas(_in_body(rng, grid, float(size)))
    _paint(rng, canvas, girth)

    inside = (canvas.level > _FAT / 2).reshape(SHAPE)
    texture = gaussian_filter(rng.standard_normal(SHAPE), (2.0, 2.0, 0.8))
    level = canvas.level.reshape(SHAPE) + inside * texture * (_TEXTURE / texture.std())
    level += _NOISE * rng.standard_normal(SHAPE)
    hu = np.clip(np.rint(WINDOW[0] + (WINDOW[1] - WINDOW[0]) * level), -1024, 3071)
    image = Volume(hu[None].astype(np.float32), grid, ("ct",), f"kidney_phantom_{seed:05d}")
    names = dict(enumerate(KIDNEY_STRUCTURES, 1))
    return image, LabelMap(canvas.labels.reshape((1, *SHAPE)), grid, names)


def write_kidney_patients(
    folder: Path | str, n_train: int, n_validation: int, n_test: int, seed: int = 0
) -> Path:
    """Write phantoms as NIfTI, and a manifest that `voxplain.data.read_data` reads.

    The folder holds ``NAME.nii.gz`` (int16 HU), ``NAME_labels.nii.gz`` (uint8), ``labels.json``
    and ``manifest.csv`` with case, image, label, patient, split.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    n_train, n_validation, n_test
        Phantoms of each part, 0 or more, at most 6000, 2000 and 2000. Those of one part do not
        depend on how many the others have.
    seed
        Another seed gives other phantoms.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    DataError
        If the numbers are out of range, or all 0.
    OutputError
        If the disk refuses.
    """
    counts: dict[Split, int] = {"train": n_train, "validation": n_validation, "test": n_test}
    ends = dict(zip(_FIRST, [*list(_FIRST.values())[1:], _MOST], strict=True))
    if not any(counts.values()) or any(
        not 0 <= n <= ends[split] - _FIRST[split] for split, n in counts.items()
    ):
        raise DataError(
            "expected at most 6000 phantoms to train, 2000 for validation and 2000 for the test, "
            f"and at least one, got {n_train}, {n_validation} and {n_test}"
        )
    rows = []
    with atomic_folder(folder) as place:
        for split, n in counts.items():
            for number in range(_FIRST[split], _FIRST[split] + n):
                image, labels = kidney_patient(_MOST * seed + number)
                name = image.name
                write_nifti(place / f"{name}.nii.gz", image.data, image.grid, np.int16)
                write_nifti(place / f"{name}_labels.nii.gz", labels.layers, image.grid, np.uint8)
                rows.append({
                    "case": name, "image": f"{name}.nii.gz", "label": f"{name}_labels.nii.gz",
                    "patient": f"phantom_{number:04d}", "split": split,
                })  # fmt: skip
        pd.DataFrame(rows).to_csv(place / "manifest.csv", index=False)
        names = {str(i): name for i, name in enumerate(KIDNEY_STRUCTURES, 1)}
        (place / "labels.json").write_text(json.dumps(names, indent=2) + "\n")
    return Path(folder) / "manifest.csv"


def _grid(rng: np.random.Generator, half_width_mm: float) -> Grid:
    """Grid whose field of view follows the patient's size."""
    plane = 2 * (half_width_mm + rng.uniform(10, 16)) / SHAPE[0]
    affine = np.diag([-plane, -plane, rng.uniform(7.6, 8.4), 1.0])
    middle = rng.uniform([-20, -150, 900], [20, -100, 1300])
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return Grid(SHAPE, affine)


def _in_body(rng: np.random.Generator, grid: Grid, size: float) -> Floats:
    """Voxels in the body's frame, (n, 3): x to the left, y to the back, z to the head, in mm."""
    index = np.indices(SHAPE).reshape(3, -1).T
    points = (index - (np.array(SHAPE) - 1) / 2) * grid.spacing
    points = (points + rng.uniform([-6, -8, -4], [6, 8, 4])) / size
    turn = np.deg2rad(rng.uniform(-7, 7))
    cos, sin = np.cos(turn), np.sin(turn)
    points = points @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return np.asarray(points, np.float32)


def _paint(rng: np.random.Generator, canvas: _Canvas, girth: NDArray[np.float64]) -> None:
    """Cover air by body, organs, bowel and, last, kidneys."""
    points = canvas.points

    def column(x: float, y: float, rx: float, ry: float) -> Floats:
        return Ellipsoid((x, y, 0), (rx, ry, _ENDLESS_MM)).distance(points)

    wall = girth - rng.uniform(10, 20)
    inner = wall - (11, 16)
    canvas.paint(column(0, 0, *girth), _FAT)
    canvas.paint(column(0, 0, *wall), _MUSCLE)
    cavity = column(0, -6, *inner)
    canvas.paint(cavity, _FAT + rng.uniform(0.02, 0.06))
    for side in (-1, 1):
        canvas.paint(column(side * rng.uniform(36, 40), 48, 17, 21), _MUSCLE)
    centre, radii = (
        rng.uniform([-84, -32, 35], [-70, -16, 65]),
        rng.uniform([50, 50, 60], [64, 64, 90]),
    )
    liver = np.maximum(Ellipsoid(centre, radii, rng.uniform(-0.3, 0.3)).distance(points), cavity)
    canvas.paint(liver, _LIVER + rng.uniform(-0.03, 0.03), "liver")
    bone = column(0, rng.uniform(44, 52), rng.uniform(19, 23), 17)
    canvas.paint(bone, _BONE, "vertebrae")
    aorta = column(rng.uniform(2, 10), rng.uniform(14, 20), *[rng.uniform(8, 12)] * 2)
    canvas.paint(aorta, rng.uniform(0.7, 0.9), "aorta")

    kidneys = {name: _Kidney.draw(rng, side) for name, side in
               zip(KIDNEY_STRUCTURES[:2], (1, -1), strict=True)}  # fmt: skip
    distances = [kidney.distance(points) for kidney in kidneys.values()]
    closed = np.minimum.reduce([*distances, bone, aorta, liver, -cavity])
    for loop in _bowel(rng, np.minimum(*distances), points, closed):
        canvas.paint(loop, rng.uniform(0.7, 0.9), "bowel")
    for (name, kidney), distance in zip(kidneys.items(), distances, strict=True):
        canvas.paint(distance, kidney.level, name)


def _bowel(
    rng: np.random.Generator, beside: Floats, points: Floats, closed: Floats
) -> Iterator[Floats]:
    """Signed distances of loops of bowel that keep a gap from what is `closed`.

    First small ones near a kidney, the solid `beside`; then larger ones anywhere in front. One
    that finds no place is left out.
    """
    for is_near in [True] * int(rng.integers(2, 5)) + [False] * int(rng.integers(3, 7)):
        open_ = (closed > 12) & (beside < 28) if is_near else (closed > 19) & (points[:, 1] < 0)
        centres = points[open_]
        for _ in range(_TRIES if len(centres) else 0):
            low, high = ([10, 10, 10], [17, 17, 24]) if is_near else ([16, 14, 16], [34, 28, 44])
            centre = centres[rng.integers(len(centres))] + rng.uniform(-2, 2, 3)
            solid = Ellipsoid(centre, rng.uniform(low, high), rng.uniform(0, np.pi))
            loop = _near_distance(solid, points)
            if closed[loop < _EDGE_MM / 2].min() > _EDGE_MM / 2 + _GAP_MM:
                closed = np.minimum(closed, loop)
                yield loop
                break


def _near_distance(solid: Ellipsoid, points: Floats) -> Floats:
    """Signed distance, looked at near the solid only; elsewhere a large one."""
    reach = np.asarray(solid.radii).max() + _EDGE_MM
    is_near = np.ones(len(points), np.bool_)
    for along, at in zip(points.T, np.asarray(solid.centre), strict=True):
        is_near &= np.abs(along - at) < reach
    result = np.full(len(points), _ENDLESS_MM, np.float32)
    result[is_near] = solid.distance(points[is_near])
    return result
