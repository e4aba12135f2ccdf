"""Region-to-region importance of many cases as arrays, for statistics over a cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import LabelError, TargetError
from voxplain.space.labelmap import nearest

CohortValue = Literal["share", "mean", "positive", "negative", "n_voxels"]

_KNOWN = ("patient", "split", "image_sha256")


@dataclass(frozen=True, eq=False)
class CohortTable:
    """What one model and one method give for many cases: (cases, targets, regions).

    Parameters
    ----------
    model, method
        Labels of the study.
    cases
        One row a case. Index ``case``, unique; column ``patient`` (text, rows of one patient
        share it); where known, ``split``, and ``image_sha256`` (what tells two images of one name
        apart); every other column is metadata: text or numbers, missing where not known.
    targets, regions
        Names, in the order of the arrays.
    values
        By name (``share``, ``mean``, ``positive``, ``negative``, ``n_voxels``; see
        `voxplain.records.region_table.RegionTable`), channels summed, each
        (n_cases, n_targets, n_regions) float64. NaN: the case has no such row, or its map is
        zero everywhere (an absent class).
    dice
        Index ``case`` as `cases`, a column a class (a target of that name is about it); NaN where
        it is not known (no true labels, or the class is in neither map).
    extra_regions
        Those of `regions` that overlap the others, e.g. masks of pathologies: their share comes
        on top, and is not a part of 1.

    Raises
    ------
    LabelError
        If shapes or cases disagree, a name comes twice, or `cases` has no ``patient``.
    """

    model: str
    method: str
    cases: pd.DataFrame
    targets: tuple[str, ...]
    regions: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    dice: pd.DataFrame = field(default_factory=pd.DataFrame)
    extra_regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.cases), len(self.targets), len(self.regions))
        for name, array in self.values.items():
            if name not in get_args(CohortValue) or array.shape != shape:
                raise LabelError(
                    f"a cohort table has arrays (cases, targets, regions) = {shape} of "
                    f"{', '.join(get_args(CohortValue))}; {name!r} is {array.shape}"
                )
        for what, names in (
            ("cases", tuple(self.cases.index)), ("targets", self.targets),
            ("regions", self.regions),
        ):  # fmt: skip
            if len(set(names)) < len(names):
                raise LabelError(f"{what} of a cohort table have one name twice")
        if "patient" not in self.cases:
            raise LabelError("cases of a cohort table need the column patient")
        if len(self.dice.columns) and not self.dice.index.equals(self.cases.index):
            raise LabelError("dice of a cohort table needs the same cases in the same order")
        unknown = set(self.extra_regions) - set(self.regions)
        if unknown:
            raise LabelError(f"extra regions that are not there: {', '.join(sorted(unknown))}")

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient of each case."""
        return tuple(map(str, self.cases["patient"]))

    @property
    def metadata(self) -> pd.DataFrame:
        """What is known of the cases beside their patient, split and image; index ``case``."""
        return self.cases.drop(columns=[c for c in _KNOWN if c in self.cases])

    @property
    def parts(self) -> tuple[str, ...]:
        """Regions whose shares are parts of a whole: all but the extra ones."""
        return tuple(r for r in self.regions if r not in self.extra_regions)

    def of_target(
        self, target: str, value: CohortValue = "share", *, parts_only: bool = False
    ) -> pd.DataFrame:
        """Cases × regions of one target.

        Parameters
        ----------
        target
            Name of a target.
        value
            Which number.
        parts_only
            Leave out `extra_regions`.

        Raises
        ------
        TargetError
            If there is no such target.
        LabelError
            If the value was not loaded.
        """
        if target not in self.targets:
            raise TargetError(f"no target {target!r}{nearest(target, self.targets)}")
        if value not in self.values:
            raise LabelError(f"no {value!r} here{nearest(value, tuple(self.values))}")
        array = self.values[value][:, self.targets.index(target)]
        frame = pd.DataFrame(array, index=self.cases.index, columns=pd.Index(self.regions))
        return frame[list(self.parts)] if parts_only else frame

    def take(self, cases: NDArray[np.bool_] | NDArray[np.intp]) -> CohortTable:
        """Keep some cases, by a truth value each or by position."""
        chosen = np.flatnonzero(cases) if cases.dtype == np.bool_ else cases
        return CohortTable(
            self.model,
            self.method,
            self.cases.iloc[chosen],
            self.targets,
            self.regions,
            {name: array[chosen] for name, array in self.values.items()},
            self.dice.iloc[chosen] if len(self.dice.columns) else self.dice,
            self.extra_regions,
        )
