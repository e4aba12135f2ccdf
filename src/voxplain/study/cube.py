"""Rows of region tables put into arrays (cases, targets, regions), file by file."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import RecordError

_NAMES = ("target", "region")


class Filler:
    """Collects the region sums of cases, channels added up.

    Parameters
    ----------
    cases
        Names, in the order of the arrays.
    targets, regions
        Known names in their order; others that occur follow, sorted.
    values
        Columns to collect.
    """

    def __init__(
        self, cases: Sequence[str], targets: Sequence[str], regions: Sequence[str],
        values: Sequence[str],
    ) -> None:  # fmt: skip
        self._case = {name: i for i, name in enumerate(cases)}
        self._known = {"target": list(targets), "region": list(regions)}
        self._found: dict[str, dict[str, int]] = {name: {} for name in _NAMES}
        self._values = tuple(values)
        self._rows: list[tuple[NDArray[np.int32], ...]] = []
        self._numbers: dict[str, list[NDArray[np.float64]]] = {v: [] for v in self._values}

    def add(self, file: Path, cases: Set[str]) -> None:
        """Take the rows of some cases of a Parquet file, a row group at a time.

        Raises
        ------
        RecordError
            If it is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = ["case", *_NAMES]
        try:
            with pq.ParquetFile(file, read_dictionary=names) as source:
                for batch in source.iter_batches(1 << 20, columns=[*names, *self._values]):
                    self._take(batch, cases)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise RecordError(f"{file} is damaged: {error}") from error

    def _take(self, batch: Any, cases: Set[str]) -> None:
        place = {name: self._case[name] for name in cases}
        rows = _codes(batch.column("case"), place)
        keep = rows >= 0
        found = [rows[keep]]
        for name in _NAMES:
            column = batch.column(name)
            known = self._found[name]
            for value in column.dictionary.to_pylist():
                known.setdefault(value, len(known))
            found.append(_codes(column, known)[keep])
        self._rows.append(tuple(found))
        for value in self._values:
            numbers = batch.column(value).to_numpy(zero_copy_only=False)
            self._numbers[value].append(numbers[keep].astype(np.float64, copy=False))

    def finish(self) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, NDArray[np.float64]]]:
        """Return targets, regions, and (n_cases, n_targets, n_regions) of each value."""
        orders = [self._order(name) for name in _NAMES]
        shape = (len(self._case), len(orders[0][0]), len(orders[1][0]))
        parts = []
        self._rows.reverse()
        while self._rows:  # each is let go as soon as its places are known
            case, target, region = self._rows.pop()
            codes = case, orders[0][1][target], orders[1][1][region]
            parts.append(np.ravel_multi_index(codes, shape))
        arrays = {}
        for value in self._values:
            sums, n = np.zeros(shape).reshape(-1), np.zeros(shape, np.uint8).reshape(-1)
            for index, numbers in zip(parts, self._numbers.pop(value), strict=True):
                if value == "n_voxels":  # the same in every channel
                    sums[index] = numbers
                else:
                    np.add.at(sums, index, numbers)
                n[index] = 1
            sums[n == 0] = np.nan
            arrays[value] = sums.reshape(shape)
        return tuple(orders[0][0]), tuple(orders[1][0]), arrays

    def _order(self, name: str) -> tuple[list[str], NDArray[np.intp]]:
        """Names in their order, and the place there of each found name."""
        found = self._found[name]
        known = [one for one in self._known[name] if one in found]
        names = [*known, *sorted(set(found) - set(known))]
        place = {one: i for i, one in enumerate(names)}
        return names, np.array([place[one] for one in found], np.intp)


def _codes(column: Any, place: dict[str, int]) -> NDArray[np.int32]:
    """Place of each value of a dictionary column; -1: not among them."""
    of_code = np.array([place.get(v, -1) for v in column.dictionary.to_pylist()], np.int32)
    codes: NDArray[np.int32] = of_code[column.indices.to_numpy(zero_copy_only=False)]
    return codes
