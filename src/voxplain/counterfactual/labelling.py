"""What the labels of a case say of its voxels: organ, lesion, foreground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.counterfactual.config import AbnormalConfig, DataConfig
from voxplain.data import Case, Cohort
from voxplain.data.cohort import NAMES_FILE
from voxplain.errors import DataError, GridError, all_faults
from voxplain.space import Grid, LabelMap, resample_labels
from voxplain.train.classes import Joining, join
from voxplain.train.settings_file import among

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Labelling:
    """Reads masks of a case on the grid that its slices are cut from.

    Parameters
    ----------
    organ, lesion
        Labels that are meant; None: none are named.
    everything
        Those of the foreground; None: all, and the data do not name them.
    """

    organ: Joining | None
    lesion: Joining | None
    everything: Joining | None

    def read_organ(self, case: Case, image: Grid, prepared: Grid) -> Mask | None:
        """Return the voxels of the organ, (*prepared.shape); None where none is named."""
        return None if self.organ is None else _read(self.organ, case, image, prepared)

    def read_lesion(self, case: Case, image: Grid, prepared: Grid) -> Mask | None:
        """Return the voxels of the lesions, as `read_organ`."""
        return None if self.lesion is None else _read(self.lesion, case, image, prepared)

    def read_foreground(self, case: Case, image: Grid, prepared: Grid) -> Mask | None:
        """Return voxels of the foreground, (*prepared.shape); None for a case without labels."""
        if case.labels is None:
            return None
        if self.everything is not None:
            return _read(self.everything, case, image, prepared)
        found = case.read_labels({})
        if not found.grid.matches(image):
            raise GridError(
                f"labels and image are on different grids, {found.grid.describe()} and "
                f"{image.describe()}; run voxplain data check"
            )
        return _placed(np.asarray((found.layers > 0).any(axis=0)), image, prepared)


def labelling_of(cohort: Cohort, config: DataConfig) -> Labelling:
    """Find the labels that a configuration names.

    Raises
    ------
    DataError
        If a name is given and the data name no labels.
    TrainingError
        If a name, pattern or number is not in the data; the nearest names are told.
    """
    organ = _joined(cohort, "data.organ", config.organ)
    lesion = _joined(cohort, "data.abnormal.labels", config.abnormal.labels)
    everything = _joined(cohort, "data.intensity.foreground", config.intensity.foreground)
    if everything is None and (known := _names(cohort)):
        everything = join(cohort, {"foreground": sorted(known)})
    return Labelling(organ, lesion, everything)


def finding(case: Case, abnormal: AbnormalConfig) -> bool | None:
    """Return whether the column says that a case is abnormal; None where it says nothing."""
    assert abnormal.column is not None
    value = case.metadata.get(abnormal.column)
    if value is None:
        return None
    return _plain(value) not in [_plain(one) for one in abnormal.normal]


def check_column(cases: Sequence[Case], abnormal: AbnormalConfig) -> None:
    """Check that every case has a value in the column, and that some value is a normal one.

    Raises
    ------
    DataError
        If not.
    """
    column = abnormal.column
    assert column is not None
    known = sorted({name for case in cases for name in case.metadata})
    if column not in known:
        raise DataError(f"data.abnormal.column: no column {column!r}{among(column, known)}")
    faults = [f"{c.name}: nothing in {column!r}" for c in cases if finding(c, abnormal) is None]
    if not faults and all(finding(case, abnormal) for case in cases):
        plain = {_plain(case.metadata[column]) for case in cases}
        values = [f"{value}" for value in sorted(plain, key=lambda v: (isinstance(v, str), v))]
        faults.append(
            f"none of the values of {column!r} ({', '.join(values[:8])}) is in "
            f"data.abnormal.normal ({', '.join(map(str, abnormal.normal))}); say which are normal, "
            f'e.g. --set "data.abnormal.normal=[{values[0]}]"'
        )
    if faults:
        raise DataError(all_faults("data.abnormal.column", faults))


def _plain(value: object) -> str | int | float:
    """Return the number that a value is or writes, a whole one as such; else its text."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    if not np.isfinite(number):
        return text
    return int(number) if number.is_integer() else number


def _joined(cohort: Cohort, where: str, wanted: Sequence[str | int]) -> Joining | None:
    if not wanted:
        return None
    known = _names(cohort)
    if not known and any(isinstance(part, str) for part in wanted):
        raise DataError(
            f"{where}: the data do not name their labels; give them by number, or name them in "
            f"{cohort.root / NAMES_FILE}"
        )
    parts: list[str | int] = []
    for part in wanted:
        union = cohort.regions.get(part) if isinstance(part, str) else None
        parts += [part] if union is None else union
    return join(cohort, {where: parts})


def _names(cohort: Cohort) -> Mapping[int, str]:
    return join(cohort, {}).labels


def _read(joining: Joining, case: Case, image: Grid, prepared: Grid) -> Mask:
    return _placed(joining.read(case, image) > 0, image, prepared)


def _placed(mask: NDArray[Any], image: Grid, prepared: Grid) -> Mask:
    if prepared == image:
        return np.asarray(mask)
    moved = resample_labels(LabelMap.of(mask, image), like=prepared)
    return np.asarray(moved.layers[0] > 0)
