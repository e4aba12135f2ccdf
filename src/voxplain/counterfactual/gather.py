"""The slices of a run: read from a cohort, divided, labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.counterfactual.config import DataConfig
from voxplain.counterfactual.division import PARTS, Division, divide, patient_of
from voxplain.counterfactual.labelling import check_column, finding, labelling_of
from voxplain.counterfactual.preparation import Preparation
from voxplain.counterfactual.reading import CaseReader, Row
from voxplain.counterfactual.slices import COLUMNS, Slices
from voxplain.data import Case, Cohort
from voxplain.errors import DataError, VoxplainError, all_faults

Progress = Callable[[int, int], None]
"""Called with the number of images read, and of all that will be."""
MOST_VOXELS, MOST_VOXELS_IN_ALL = 1_000_000, 20_000_000
"""Of a case, and of all together, that percentiles are taken of."""
_MOST_FAULTS = 20


@dataclass(frozen=True, eq=False)
class Gathered:
    """What a run learns from, tunes on and is tested on.

    Parameters
    ----------
    preparation
        How an image becomes these pictures.
    parts
        Slices of ``train``, ``validation`` and ``test``.
    notes
        What a reader must know of the data.
    n_cases, n_patients
        Of each part, with at least one slice.
    """

    preparation: Preparation
    parts: dict[str, Slices]
    notes: tuple[str, ...]
    n_cases: dict[str, int]
    n_patients: dict[str, int]


def gather(
    cohort: Cohort, config: DataConfig, seed: int, progress: Progress | None = None
) -> Gathered:
    """Read the slices of a cohort.

    Parameters
    ----------
    cohort
        Cases of one channel; with labels where the configuration names any.
    config
        Which slices.
    seed
        Of the split and of the voxels that percentiles are taken of.
    progress
        Told after each image.

    Raises
    ------
    DataError
        If cases cannot be used (all are told, up to 20), the split cannot be made, no slice has
        the organ, images are constant, or a part lacks slices, or normal or abnormal ones.
    TrainingError
        If a label is not in the data.

    Notes
    -----
    One image is in memory at a time; without a given window, training images are read twice.
    With a 3D model, pixels are those of the image that it prepares, and labels are brought
    there, the nearest.
    """
    cases, notes = _usable(cohort, config)
    reader = CaseReader(config, labelling_of(cohort, config), _division(cases, config, seed), seed)
    divided = [case for part in PARTS for case in reader.division.cases[part]]
    to_window = reader.division.cases["train"] if config.intensity.window is None else ()
    faults, n_read, n_all = _Faults(), 0, len(to_window) + len(divided)
    samples, rows = [], []
    preparation = _first(config)
    most = min(MOST_VOXELS, max(1, MOST_VOXELS_IN_ALL // max(1, len(to_window))))
    for case in to_window:
        with faults.of(case):
            samples.append(reader.foreground(case, preparation, most))
        n_read = _told(progress, n_read, n_all)
    faults.check()
    preparation = _windowed(preparation, config, samples)
    for case in divided:
        with faults.of(case):
            rows += reader.rows(case, preparation)
        n_read = _told(progress, n_read, n_all)
    faults.check()
    patients = {name: i for i, name in enumerate(dict.fromkeys(map(patient_of, divided)))}
    parts = {part: _slices([r for r in rows if r.part == part], patients, config) for part in PARTS}
    _check(parts, config)
    n_empty = len(divided) - len({row.case.name for row in rows})
    if n_empty:
        notes.append(f"{n_empty} cases have no slice that was asked for")
    return Gathered(
        preparation,
        parts,
        (*notes, *reader.division.notes),
        {part: int(slices.table["case"].nunique()) for part, slices in parts.items()},
        {part: int(slices.table["patient"].nunique()) for part, slices in parts.items()},
    )


class _Faults:
    """What is wrong with cases; reading goes on to tell all of it, up to a number."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def of(self, case: Case) -> Iterator[None]:
        try:
            yield
        except VoxplainError as error:
            text = str(error)
            self.found.append(text if text.startswith(case.name) else f"{case.name}: {text}")
            if len(self.found) == _MOST_FAULTS:
                self.found.append("reading was stopped here")
                self.check()

    def check(self) -> None:
        if self.found:
            raise DataError(all_faults("cases", self.found)) from None


def _usable(cohort: Cohort, config: DataConfig) -> tuple[list[Case], list[str]]:
    """Cases that have the labels that are asked for."""
    if not len(cohort):
        raise DataError(f"{cohort.root}: there are no cases")
    needs = bool(config.organ or config.abnormal.labels)
    cases = [case for case in cohort if case.labels is not None or not needs]
    if not cases:
        raise DataError(f"{cohort.root}: no case has labels, and data.organ or labels ask for some")
    n_left = len(cohort) - len(cases)
    return cases, [f"{n_left} cases without labels are left out"] if n_left else []


def _division(cases: Sequence[Case], config: DataConfig, seed: int) -> Division:
    abnormal = config.abnormal
    if abnormal.column is None:
        return divide(cases, config.split, seed)
    check_column(cases, abnormal)
    return divide(
        cases, config.split, seed, lambda case: "abnormal" if finding(case, abnormal) else "normal"
    )


def _first(config: DataConfig) -> Preparation:
    """Return the preparation up to the window, which is not known yet."""
    model = config.intensity.model
    if model is not None and Path(model).exists():
        model = str(Path(model).resolve())
    return Preparation(config.plane, config.size, config.pixel_mm, 0.0, 1.0, model)


def _windowed(
    first: Preparation, config: DataConfig, samples: Sequence[NDArray[Any]]
) -> Preparation:
    if config.intensity.window is not None:
        low, high = config.intensity.window
    else:
        values = np.concatenate([np.zeros(0, np.float32), *samples])
        if not len(values):
            raise DataError(
                "the training images have no labelled voxel to take a window from; say "
                "data.intensity.window"
            )
        low, high = np.percentile(values.astype(np.float64), config.intensity.percentiles)
    return replace(first, low=float(low), high=float(high))


def _slices(rows: Sequence[Row], patients: dict[str, int], config: DataConfig) -> Slices:
    size = config.size

    def stacked(arrays: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
        return np.stack(arrays) if arrays else np.zeros((0, *size), dtype)

    table = pd.DataFrame(
        [(r.case.name, patients[patient_of(r.case)], r.plane, r.index) for r in rows],
        columns=list(COLUMNS),
    )
    return Slices(
        images=stacked([r.image for r in rows], np.float32)[:, None],
        labels=np.array([r.label for r in rows], np.int8),
        truth=stacked([r.truth for r in rows], np.bool_),
        organ=stacked([r.organ for r in rows], np.bool_),
        inside=stacked([r.inside for r in rows], np.bool_),
        table=table,
    )


def _check(parts: dict[str, Slices], config: DataConfig) -> None:
    """Check that there is something to learn from, to tune on and to test."""
    if not any(len(slices) for slices in parts.values()):
        organ = ", ".join(map(str, config.organ))
        raise DataError(
            f"no case has a slice with more than {config.min_organ_pixels} pixels of {organ}; "
            "lower data.min_organ_pixels or name another data.organ"
        )
    if not any((np.ptp(one.images, axis=(1, 2, 3)) > 0).any() for one in parts.values()):
        raise DataError(
            "every slice is constant: all intensities lie on one side of the window; widen "
            "data.intensity.window, or take data.intensity.percentiles"
        )
    faults = [f"{part}: no slice" for part, slices in parts.items() if not len(slices)]
    if config.abnormal.synthetic is None:
        for part, slices in parts.items():
            n, n_abnormal = len(slices), int(slices.labels.sum())
            for n_one, one in ((n_abnormal, "abnormal"), (n - n_abnormal, "normal")):
                if n and not n_one:
                    faults.append(f"{part}: no {one} slice among {n}")
    if faults:
        advice = "add cases, change data.split or seed, or what is called abnormal"
        raise DataError(all_faults("slices", [f"{fault}; {advice}" for fault in faults]))


def _told(progress: Progress | None, n_read: int, n_all: int) -> int:
    if progress is not None:
        progress(n_read + 1, n_all)
    return n_read + 1
