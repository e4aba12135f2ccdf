"""What is found while a wide table is read: impossible values, sums of shares, names of cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import DataError, all_faults
from voxplain.study.wide_columns import WideColumns, candidates

TOLERANCE = 0.01  # of the sum of a target's shares
_ROUNDING = 1e-6
_MAX_TOLD = 10

Floats = NDArray[np.float64]


def check_values(
    file: Path, columns: WideColumns, numbers: Floats, names: Sequence[str], first_row: int
) -> None:
    """Refuse values that cannot be what their column says.

    Parameters
    ----------
    file
        For messages.
    columns
        What the columns are.
    numbers
        (n_rows, n_columns).
    names
        Of those columns.
    first_row
        Number of the first of the rows.

    Raises
    ------
    DataError
        If a share, a mean or a positive part is below 0, a negative part is above 0 (or a share
        of it below), a Dice or an IoU is not in 0…1, or a value is infinite.
    """
    low, high = np.zeros(len(names)), np.full(len(names), np.inf)
    place = {name: i for i, name in enumerate(names)}
    for (value, _, _), name in columns.values.items():
        if value == "negative" and name not in columns.signed:
            low[place[name]], high[place[name]] = -np.inf, 0
    for name in columns.agreement.values():
        high[place[name]] = 1
    wrong = (numbers < low) | (numbers > high) | np.isinf(numbers)
    if wrong.any():
        found = np.argwhere(wrong)
        faults = [
            f"row {first_row + i}: {names[j]} is {numbers[i, j]:g}, expected "
            f"{low[j]:g}…{high[j]:g}".replace("-inf…", "at most ").replace("…inf", " or more")
            for i, j in found[:_MAX_TOLD]
        ]
        more = [f"and {len(found) - _MAX_TOLD} more"] if len(found) > _MAX_TOLD else []
        raise DataError(all_faults(str(file), [*faults, *more]))


class Names:
    """Names of the cases, each once.

    Parameters
    ----------
    file
        For messages.
    is_numbered
        Whether a name that comes again gets ``_2``, ``_3`` … after it; else it is refused.
    """

    def __init__(self, file: Path, *, is_numbered: bool) -> None:
        self._file = file
        self._is_numbered = is_numbered
        self._n_times: dict[str, int] = {}
        self._row_of: dict[str, int] = {}
        self.n_renamed = 0

    def take(self, names: Sequence[str], first_row: int) -> list[str]:
        """Name the cases of the next rows.

        Raises
        ------
        DataError
            If a row has no name, or one that is taken.
        """
        found, faults = [], []
        for row, name in enumerate(names, first_row):
            n_times = self._n_times[name] = self._n_times.get(name, 0) + 1
            told = f"{name}_{n_times}" if self._is_numbered and n_times > 1 else name
            self.n_renamed += told != name
            if not name:
                faults.append(f"row {row} has no name of a case")
            elif told in self._row_of:
                faults.append(f"row {row} names the case of row {self._row_of[told]} again")
            self._row_of.setdefault(told, row)
            found.append(told)
        if faults:
            more = [f"and {len(faults) - _MAX_TOLD} more"] if len(faults) > _MAX_TOLD else []
            advice = (
                "give every row a name of its own; if several rows are of one patient, choose the "
                "column that tells them apart with case_column (--case-column)"
            )
            raise DataError(all_faults(str(self._file), [*faults[:_MAX_TOLD], *more, advice]))
        return found


class ShareSums:
    """Sums of the shares of each target, which tell whether regions overlap.

    Parameters
    ----------
    columns
        What the columns are.
    extra
        Regions that overlap others; None: to be found.
    """

    def __init__(self, columns: WideColumns, extra: Sequence[str] | None) -> None:
        self._asked = extra
        self._maybe = candidates(columns) if extra is None else tuple(extra)
        pairs = columns.pairs
        of_target = np.array([[t == one for one in columns.targets] for t, _ in pairs], float)
        is_maybe = np.array([region in self._maybe for _, region in pairs])
        self._of_target = of_target
        self._of_parts = of_target * ~is_maybe[:, None]
        self._n = self._n_gaps = self._n_above = 0
        # without and with the regions that may overlap
        self._far, self._sum, self._n_off = np.zeros(2), np.zeros(2), np.zeros(2, int)

    def take(self, shares: Floats) -> None:
        """Count the next rows: (n_rows, n_pairs)."""
        known = np.isfinite(shares)
        filled = np.where(known, shares, 0.0)
        n_known = known.astype(np.float64) @ self._of_target
        is_told = n_known > 0
        self._n += int(is_told.sum())
        self._n_gaps += int((is_told & (n_known < self._of_target.sum(axis=0))).sum())
        self._n_above += int((filled > 1 + _ROUNDING).sum())
        for i, of_target in enumerate((self._of_parts, self._of_target)):
            sums = (filled @ of_target)[is_told]
            self._far[i] += np.abs(sums - 1).sum()
            self._sum[i] += sums.sum()
            self._n_off[i] += int((np.abs(sums - 1) > TOLERANCE).sum())

    @property
    def extra(self) -> tuple[str, ...]:
        """Regions that come on top: without them the shares sum up closer to 1."""
        if self._asked is not None:
            return tuple(self._asked)
        return self._maybe if self._far[0] < self._far[1] else ()

    def remarks(self) -> list[str]:
        """Sentences on what is not as it should be, or was decided."""
        found = []
        n = max(self._n, 1)
        if self._asked is None and self._maybe:
            means = [f"{total / n:.3f}" for total in self._sum]
            found.append(
                f"{', '.join(self._maybe)}: regions that are no target; taken as "
                f"{'extra regions that overlap others' if self.extra else 'parts of a whole'}, for "
                f"the shares of a target sum to {means[0]} without and to {means[1]} with them on "
                "average"
            )
        n_off = int(self._n_off[0 if self.extra else 1])
        if n_off:
            found.append(
                f"{n_off} of {self._n} maps (a case and a target) have shares that do not sum to 1 "
                f"within {TOLERANCE:.0%}: kept as they are"
            )
        if self._n_above:
            found.append(f"{self._n_above} shares are above 1: kept as they are")
        if self._n_gaps:
            found.append(
                f"{self._n_gaps} of {self._n} maps have a share in some regions and none in others"
            )
        return found
