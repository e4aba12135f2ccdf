"""The slices of a run: read from a cohort, divided, labelled, written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.counterfactual.config import DataConfig
from voxplain.counterfactual.division import PARTS, Division, divide, patient_of
from voxplain.counterfactual.labelling import check_column, finding, labelling_of
from voxplain.counterfactual.preparation import Preparation
from voxplain.counterfactual.reading import CaseReader
from voxplain.counterfactual.slices import Slices, read_slices
from voxplain.counterfactual.slices_writer import SlicesWriter, slices_writer
from voxplain.data import Case, Cohort
from voxplain.errors import DataError, VoxplainError, all_faults
from voxplain.space.intensity_range import foreign_range

Progress = Callable[[int, int], None]
"""Called with the number of images read, and of all that will be."""
MOST_VOXELS, MOST_VOXELS_IN_ALL = 1_000_000, 20_000_000
"""Of a case, and of all together, that percentiles are taken of."""
N_WINDOW_CASES = 5
"""Training images that a given window is checked on."""
_MOST_FAULTS = 20


@dataclass(frozen=True, eq=False)
class Gathered:
    """What a run learns from, tunes on and is tested on.

    Parameters
    ----------
    preparation
        How an image becomes these pictures.
    parts
        Slices of ``train``, ``validation`` and ``test``, on disk.
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
    cohort: Cohort,
    config: DataConfig,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> Gathered:
    """Read the slices of a cohort and write those of each part into a folder.

    Parameters
    ----------
    cohort
        Cases of one channel; with labels where the configuration names any.
    config
        Which slices.
    seed
        Of the split and of the voxels that percentiles are taken of.
    folder
        Gets ``train``, ``validation`` and ``test``; all or, after an error, none of them.
    progress
        Told after each image.

    Raises
    ------
    DataError
        If cases cannot be used (all are told, up to 20), the split cannot be made, no slice has
        the organ, images are constant, a part lacks slices, or normal or abnormal ones, or a
        given window is not of these images: it and the intensities from the 1st to the 99th
        percentile share less than 2 % of what both span.
    TrainingError
        If a label is not in the data.

    Notes
    -----
    One image and its slices are in memory at a time, however many there are. Without a given
    window, training images are read twice; with one, five of them are.
    With a 3D model, pixels are those of the image that it prepares, and labels are brought
    there, the nearest.
    """
    cases, notes = _usable(cohort, config)
    reader = CaseReader(config, labelling_of(cohort, config), _division(cases, config, seed), seed)
    divided = [case for part in PARTS for case in reader.division.cases[part]]
    to_window = reader.division.cases["train"]
    if config.intensity.window is not None:
        to_window = _spread(to_window, N_WINDOW_CASES)
    faults, n_read, n_all = _Faults(), 0, len(to_window) + len(divided)
    samples: list[NDArray[Any]] = []
    preparation = _first(config)
    most = min(MOST_VOXELS, max(1, MOST_VOXELS_IN_ALL // max(1, len(to_window))))
    for case in to_window:
        with faults.of(case):
            samples.append(reader.foreground(case, preparation, most))
        n_read = _told(progress, n_read, n_all)
    if config.intensity.window is None:
        faults.check()
    elif not faults.found:  # else the next pass finds them too, and those of all other cases
        _check_window(config, samples)
    preparation = _windowed(preparation, config, samples)
    patients = {name: i for i, name in enumerate(dict.fromkeys(map(patient_of, divided)))}
    n_empty = n_between = 0
    with ExitStack() as stack:
        writers = {
            part: stack.enter_context(slices_writer(folder / part, config.size)) for part in PARTS
        }
        for case in divided:
            with faults.of(case):
                rows, n = reader.rows(case, preparation)
                n_empty, n_between = n_empty + (not rows), n_between + n
                for row in rows:
                    writers[row.part].add(
                        (case.name, patients[patient_of(case)], row.plane, row.index),
                        images=row.image, labels=row.label, truth=row.truth, organ=row.organ,
                        inside=row.inside,
                    )  # fmt: skip
            n_read = _told(progress, n_read, n_all)
        faults.check()
        _check(writers, config)
    if n_empty:
        notes.append(f"{n_empty} cases have no slice that was asked for")
    if n_between:
        notes.append(
            f"{n_between} slices with 1 to {config.abnormal.min_pixels} pixels of "
            f"{', '.join(map(str, config.abnormal.labels))} are left out (data.abnormal.between)"
        )
    parts = {part: read_slices(folder / part) for part in PARTS}
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
            text = text if text.startswith(case.name) else f"{case.name}: {text}"
            if text not in self.found:  # images may be read twice
                self.found.append(text)
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
    needs = bool(config.organ or config.abnormal.labels or config.intensity.foreground)
    cases = [case for case in cohort if case.labels is not None or not needs]
    if not cases:
        raise DataError(
            f"{cohort.root}: no case has labels, and data.organ, abnormal.labels or "
            "intensity.foreground ask for some"
        )
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


def _check_window(config: DataConfig, samples: Sequence[NDArray[Any]]) -> None:
    """Check that a given window is of these images: else pictures are blank."""
    assert config.intensity.window is not None
    low, high = config.intensity.window
    values = np.concatenate([np.zeros(0, np.float32), *samples])
    foreign = foreign_range(values, low, high)
    if foreign is None:
        return
    first, last = foreign
    prepared = "" if config.intensity.model is None else " after the model's preparation"
    raise DataError(
        f"data.intensity.window is [{low:g}, {high:g}], and the training images{prepared} lie "
        f"between {first:g} and {last:g} (1st to 99th percentile of the foreground): pictures "
        "would be blank; set the window to what the images have, "
        f'e.g. "data.intensity.window=[{first:.3g}, {last:.3g}]", or to null for percentiles'
    )


def _spread(cases: Sequence[Case], n: int) -> tuple[Case, ...]:
    """Return at most `n` of the cases, evenly spread."""
    chosen = np.linspace(0, len(cases) - 1, min(n, len(cases))).round().astype(int)
    return tuple(cases[i] for i in chosen)


def _check(parts: dict[str, SlicesWriter], config: DataConfig) -> None:
    """Check that there is something to learn from, to tune on and to test."""
    if not any(one.n for one in parts.values()):
        organ = ", ".join(map(str, config.organ))
        raise DataError(
            f"no case has a slice with more than {config.min_organ_pixels} pixels of {organ}; "
            "lower data.min_organ_pixels or name another data.organ"
        )
    if not any(one.is_varied for one in parts.values()):
        raise DataError(
            "every slice is constant: all intensities lie on one side of the window; widen "
            "data.intensity.window, or take data.intensity.percentiles"
        )
    faults = [f"{part}: no slice" for part, one in parts.items() if not one.n]
    if config.abnormal.synthetic is None:
        for part, one in parts.items():
            counts = {"abnormal": one.n_abnormal, "normal": one.n - one.n_abnormal}
            for word, n in counts.items():
                if one.n and not n:
                    faults.append(f"{part}: no {word} slice among {one.n}")
    if faults:
        advice = "add cases, change data.split or seed, or what is called abnormal"
        raise DataError(all_faults("slices", [f"{fault}; {advice}" for fault in faults]))


def _told(progress: Progress | None, n_read: int, n_all: int) -> int:
    if progress is not None:
        progress(n_read + 1, n_all)
    return n_read + 1
