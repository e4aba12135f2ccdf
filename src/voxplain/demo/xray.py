"""Synthetic frontal chest radiographs, with or without an opacity, and where it is."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects, gaussian_filter, label

from voxplain.data.case import Split
from voxplain.demo.xray_anatomy import Frame, Thorax
from voxplain.demo.xray_objects import Opacity, electrodes, marker
from voxplain.errors import DataError, ImageError
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.write import atomic_folder

CLASSES = ("normal", "opacity")
SHAPE = (96, 80)
BOX_COLUMNS = ("case", "target", "i0", "j0", "i1", "j1")
_SMALLEST = 48
_TWO_PICTURES, _TWO_OPACITIES = 0.3, 0.25  # shares of patients


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One picture and what is true of it.

    Parameters
    ----------
    image
        One channel ``radiograph``, whole numbers 0 to 255 in float32; axes (row, column).
    truth
        Label 1 ``opacity``, on the same grid; empty of a normal picture.
    marker
        (rows, columns) pixels of the letter in the corner; none where there is none.
    patient
        The same for pictures of one patient.
    """

    image: Volume
    truth: LabelMap
    marker: NDArray[np.bool_]
    patient: str

    @property
    def is_opaque(self) -> bool:
        """Whether there is an opacity."""
        return bool(self.truth.layers.any())

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Rows and columns i0, j0, i1, j1 around each part of the opacity, i1 and j1 excluded."""
        parts, _ = label(self.truth.layers[0], structure=np.ones((3, 3)))
        return tuple(
            (rows.start, columns.start, rows.stop, columns.stop)
            for rows, columns in find_objects(parts)
        )


def xray(
    seed: int,
    picture: int = 0,
    *,
    opacity: bool | None = None,
    shortcut: float = 0.5,
    shape: tuple[int, int] = SHAPE,
) -> Radiograph:
    """Draw one picture of one patient.

    Size, organs, ribs and opacity belong to the patient; position, exposure, noise, electrodes
    and the letter in the corner to the picture. One patient in four has two opacities, if any;
    in a second picture they have grown or shrunk. Bright and harmless: ribs, clavicles,
    vessels, breast shadows, electrodes, the letter. Pixels outside the opacity do not depend on
    whether there is one, unless the letter does.

    Parameters
    ----------
    seed
        Of the patient, 0 or more.
    picture
        Number of the picture, 0 or more.
    opacity
        Whether there is one; None: drawn, one patient in two.
    shortcut
        Probability of the letter where there is an opacity; 1 − shortcut where there is none.
        0.5: the letter tells nothing; 1: it tells all.
    shape
        Rows and columns.

    Raises
    ------
    ImageError
        If the shape is too small, or the shortcut no probability.
    """
    if min(shape) < _SMALLEST:
        raise ImageError(f"a radiograph has at least {_SMALLEST} rows and columns, got {shape}")
    if not 0 <= shortcut <= 1:
        raise ImageError(f"shortcut is a probability, 0 to 1, got {shortcut}")
    of_patient = np.random.default_rng([seed, 31])
    drawn = bool(of_patient.uniform() < 0.5)
    is_opaque = drawn if opacity is None else opacity
    thorax = Thorax(of_patient)
    of_lesions = np.random.default_rng([seed, 32])
    n_lesions = 2 if of_lesions.uniform() < _TWO_OPACITIES else 1
    lesions = [Opacity.draw(of_lesions, thorax) for _ in range(n_lesions)]

    rng = np.random.default_rng([seed, 33, picture])
    frame = Frame.draw(rng, shape)
    _, free = thorax.lungs(frame)
    growth = 1.0 if picture == 0 else rng.uniform(0.75, 1.3)
    added = [lesion.weakening(frame, free, growth) for lesion in lesions]
    total = thorax.weakening(frame) + electrodes(rng, frame)
    letter = marker(rng, shape)
    has_letter = rng.uniform() < (shortcut if is_opaque else 1 - shortcut)
    if is_opaque:
        total = total + np.maximum.reduce(added)
    data = _exposed(rng, total)
    if has_letter:
        data[letter] = 250
    grid = Grid(shape, np.eye(3))
    regions = [one.region(more) for one, more in zip(lesions, added, strict=True)]
    region = np.logical_or.reduce(regions) & is_opaque
    return Radiograph(
        Volume(data[None].astype(np.float32), grid, ("radiograph",), f"xray_{seed:04d}_{picture}"),
        LabelMap(region[None].astype(np.uint8), grid, {1: CLASSES[1]}),
        letter & has_letter,
        f"patient_{seed:04d}",
    )


def write_xrays(
    folder: Path | str,
    train: Iterable[int],
    test: Iterable[int] = (),
    *,
    shortcut: float = 0.5,
    shape: tuple[int, int] = SHAPE,
) -> Path:
    """Write pictures, masks, boxes and a manifest that `voxplain.data.read_data` reads.

    Three patients in ten have two pictures. The folder holds ``NAME.png`` (8 bit, grey),
    ``NAME_mask.png`` (0 and 1, of opacities only), ``labels.json``, ``boxes.csv`` (columns
    `BOX_COLUMNS`: one row a box of an opacity, target ``opacity``, in pixels from 0, i along
    rows and j along columns, i1 and j1 excluded) and ``manifest.csv`` with case, image, label,
    patient, split, finding (normal, opacity) and marker (0, 1).

    Parameters
    ----------
    folder
        Where to write; made if missing.
    train, test
        Seeds of the patients of each split, no seed in both.
    shortcut, shape
        As of `xray`.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    DataError
        If there is no patient, or one is drawn twice.
    OutputError
        If the disk refuses.
    """
    splits: list[tuple[Split, int]] = [("train", s) for s in train] + [("test", s) for s in test]
    seeds = [seed for _, seed in splits]
    if not seeds:
        raise DataError("there is no patient to draw; give seeds for train or test")
    if len(set(seeds)) != len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise DataError(f"each patient is drawn once and is in one split; seed {twice} is twice")
    rows: list[dict[str, Any]] = []
    boxes: list[tuple[Any, ...]] = []
    with atomic_folder(folder) as place:
        for split, seed in splits:
            for one in _pictures(seed, shortcut, shape):
                name = one.image.name
                Image.fromarray(one.image.data[0].astype(np.uint8)).save(place / f"{name}.png")
                if one.is_opaque:
                    Image.fromarray(one.truth.layers[0]).save(place / f"{name}_mask.png")
                boxes += [(name, CLASSES[1], *box) for box in one.boxes]
                rows.append({
                    "case": name, "image": f"{name}.png",
                    "label": f"{name}_mask.png" if one.is_opaque else "",
                    "patient": one.patient, "split": split,
                    "finding": CLASSES[one.is_opaque], "marker": int(one.marker.any()),
                })  # fmt: skip
        (place / "labels.json").write_text(f'{{"1": "{CLASSES[1]}"}}\n')
        _write_table(place / "boxes.csv", BOX_COLUMNS, boxes)
        _write_table(place / "manifest.csv", rows[0], [tuple(row.values()) for row in rows])
    return Path(folder) / "manifest.csv"


def _pictures(seed: int, shortcut: float, shape: tuple[int, int]) -> Iterator[Radiograph]:
    """All pictures of a patient, one or two."""
    has_two = np.random.default_rng([seed, 34]).uniform() < _TWO_PICTURES
    for picture in range(2 if has_two else 1):
        yield xray(seed, picture, shortcut=shortcut, shape=shape)


def _exposed(rng: np.random.Generator, weakening: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey values, 0 to 255, of a film of random exposure, contrast, sharpness and noise."""
    speed, contrast = rng.uniform(0.95, 1.5), rng.uniform(0.8, 1.35)
    shade = 1 + rng.uniform(-0.10, 0.10) * np.linspace(-1, 1, weakening.shape[1])
    blurred = gaussian_filter(weakening * shade, rng.uniform(0.35, 0.65))
    grey = 255 * (1 - np.exp(-speed * blurred)) ** contrast
    noise = rng.standard_normal(weakening.shape) * rng.uniform(3.5, 7.5)
    return np.asarray(np.clip(np.rint(grey + noise), 0, 255))


def _write_table(path: Path, columns: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
