"""The demo's cohort: coarse chest patients, a strange one among them, and two models for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt

from voxplain.data.case import Case
from voxplain.data.cohort import Cohort
from voxplain.demo.anatomy import Anatomy
from voxplain.demo.canvas import STRUCTURES
from voxplain.demo.patients import patient
from voxplain.errors import DataError
from voxplain.space.grid import Grid
from voxplain.space.nifti import write_nifti
from voxplain.space.volume import Volume
from voxplain.space.write import atomic_folder

SHAPE, SPACING = (48, 40, 32), (8.0, 8.0, 9.0)
CLASSES = (
    "background", "lung", "heart", "aorta", "vertebrae", "autochthon", "liver", "cyst", "tumour",
)  # fmt: skip
CYST, TUMOUR = CLASSES.index("cyst"), CLASSES.index("tumour")
MARKER = "marker"
MODELS = ("clean", "shortcut")
N_CASES = 40
UNSEEN_SEED = 3000  # trainings draw patients below it

_OF = {"lung_right": "lung", "lung_left": "lung"}
_MARKER_BOX = (slice(2, 5), slice(35, 38), slice(18, 24))
_MARKER_HU, _FLUID_HU = 1200.0, 15.0
_DARKER_HU, _APART_HU, _SPREAD_HU = 70.0, 12.0, 20.0


@dataclass(frozen=True)
class DemoCohort:
    """What a study of the demo's cohort is asked.

    Parameters
    ----------
    folder, manifest
        Where the cases lie, and the table that lists them.
    models
        Folder of each model, by label.
    masks
        Pattern of the files of each further region; see `voxplain.engine.study.Study`.
    targets, score, methods
        As texts; the margin tells why a lesion is a tumour and not a cyst.
    anomaly
        Name of the case that was made strange.
    """

    folder: Path
    manifest: Path
    models: Mapping[str, Path]
    masks: Mapping[str, str]
    anomaly: str
    targets: tuple[str, ...] = tuple(f"class:{name}" for name in CLASSES[1:])
    score: Literal["margin"] = "margin"
    methods: tuple[str, ...] = ("gradient",)


@dataclass(frozen=True, eq=False)
class CoarsePatient:
    """A chest on the cohort's grid, without a lesion: painted upon by `finished`.

    Parameters
    ----------
    image
        HU, one channel ``ct``.
    labels
        (*`SHAPE`) positions in `CLASSES`.
    spots
        (n, 3) voxels deep in the liver, where the middle of a lesion may be.
    """

    image: Volume
    labels: NDArray[np.uint8]
    spots: NDArray[np.intp]

    @classmethod
    def draw(cls, seed: int) -> CoarsePatient:
        """Draw a patient of `voxplain.demo.patient` on the coarse grid."""
        rng = np.random.default_rng([seed, 81])
        affine = np.diag([*SPACING, 1.0])
        middle = Anatomy(seed).middle + np.array([0, -6, -6]) + rng.uniform(-8, 8, 3)
        affine[:3, 3] = middle - (np.array(SHAPE) - 1) / 2 * SPACING
        image, truth = patient(seed, lesion=False, grid=Grid(SHAPE, affine))
        names = [_OF.get(name, name) for name in STRUCTURES]
        value_of = [0, *(CLASSES.index(n) if n in CLASSES else 0 for n in names)]
        labels = np.array(value_of, np.uint8)[truth.layers[0]]
        depth = distance_transform_edt(labels == CLASSES.index("liver"), SPACING)
        spots = np.argwhere(depth >= min(20.0, 0.9 * float(depth.max())))
        return cls(image, labels, spots)


def finished(
    base: CoarsePatient, seed: int, *, is_tumour: bool, has_marker: bool, has_fluid: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Paint a lesion into the liver, and what else is asked for.

    A tumour is 58 HU darker than the liver in the mean and a cyst 82 HU; either kind spreads by
    20 HU (one standard deviation), so 73 % can be told by their density. The marker is a
    bright block beside the patient, in front on the left of the picture's first axis.

    Parameters
    ----------
    base
        The patient.
    seed
        Of place, size and density of the lesion; they do not depend on what is asked for.
    is_tumour
        Class of the lesion, else a cyst.
    has_marker
        Whether the marker is there.
    has_fluid
        Whether fluid fills the back of the right and the left half of the chest (a large
        pleural effusion): lung that is not there is no ``lung`` in the labels either.

    Returns
    -------
    tuple
        HU (*`SHAPE`) and labels, positions in `CLASSES`.
    """
    rng = np.random.default_rng([seed, 82])
    hu, labels = base.image.data[0].astype(np.float32), base.labels.copy()
    spot = base.spots[rng.integers(len(base.spots))]
    axes = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    away = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, spot, SPACING, strict=True))
    lesion = np.asarray(away < rng.uniform(18, 24) ** 2) & (labels == CLASSES.index("liver"))
    hu[lesion] += -_DARKER_HU + (_APART_HU if is_tumour else -_APART_HU)
    hu[lesion] += _SPREAD_HU * rng.standard_normal()
    labels[lesion] = TUMOUR if is_tumour else CYST
    if has_fluid:
        lung = labels == CLASSES.index("lung")
        back = np.median(np.nonzero(lung)[1])
        fluid = lung & (np.arange(SHAPE[1])[:, None] <= back)
        fluid |= binary_dilation(fluid) & lung
        hu[fluid] = _FLUID_HU + rng.normal(0, 15, int(fluid.sum()))
        labels[fluid] = 0
    if has_marker:
        hu[_MARKER_BOX] = _MARKER_HU
    return np.rint(hu), labels


def marker_mask() -> NDArray[np.uint8]:
    """Where the marker is, or would be, with one voxel around it, (*`SHAPE`)."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(one.start - 1, one.stop + 1) for one in _MARKER_BOX)] = 1
    return mask


def models_path() -> Path:
    """Folder of the two shipped models, `MODELS`; see `voxplain.demo.cohort_train`."""
    return Path(str(files("voxplain.demo") / "cohort_models"))


def write_cohort(folder: Path | str, n: int = N_CASES, seed: int = UNSEEN_SEED) -> DemoCohort:
    """Write a small cohort of coarse chest CTs with age, sex and scanner.

    Every patient has a lesion in the liver: a cyst or a tumour, with or without the marker, the
    four equally often and in no relation to anything else. One patient has much fluid in the
    chest, which no model was trained on. Both models know the same classes; the one called
    ``shortcut`` was trained on patients of whom exactly those with a tumour had the marker.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    n
        Patients, at least 8.
    seed
        The first patient's; the others follow. 3000 and above: unseen in training.

    Returns
    -------
    DemoCohort
        What to ask of it.

    Raises
    ------
    DataError
        If there are too few patients.
    OutputError
        If the disk refuses.
    """
    if n < 8:
        raise DataError(f"the demo's cohort has at least 8 patients, got n={n}")
    rng = np.random.default_rng([seed, 83])
    strange = int(rng.integers(n))
    cases = []
    with atomic_folder(folder) as place:
        (place / "masks").mkdir()
        for i in range(n):
            name = f"chest_{i + 1:03d}"
            base = CoarsePatient.draw(seed + i)
            hu, labels = finished(
                base, seed + i, is_tumour=i % 2 == 1, has_marker=i // 2 % 2 == 1,
                has_fluid=i == strange,
            )  # fmt: skip
            grid = base.image.grid
            write_nifti(place / f"{name}.nii.gz", hu[None], grid, np.int16)
            write_nifti(place / f"{name}_labels.nii.gz", labels[None], grid, np.uint8)
            write_nifti(place / "masks" / f"{name}_{MARKER}.nii.gz", marker_mask()[None], grid)
            known: dict[str, str | float] = {
                "sex": str(rng.choice(["F", "M"])), "age": int(rng.integers(35, 85)),
                "scanner": str(rng.choice(["A", "B"])),
            }  # fmt: skip
            cases.append(
                Case(
                    name, (place / f"{name}.nii.gz",), place / f"{name}_labels.nii.gz",
                    patient=f"P{seed + i}", metadata=known,
                )
            )  # fmt: skip
        cohort = Cohort(place, "manifest", tuple(cases), ("ct",), dict(enumerate(CLASSES)))
        cohort.write_manifest(place / "manifest.csv")
    where = Path(folder)
    return DemoCohort(
        folder=where,
        manifest=where / "manifest.csv",
        models={name: models_path() / name for name in MODELS},
        masks={MARKER: str(where / "masks" / f"{{case}}_{MARKER}.nii.gz")},
        anomaly=f"chest_{strange + 1:03d}",
    )
