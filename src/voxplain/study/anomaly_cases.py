"""Cases in an order of their own, and their shares as far as they are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError
from voxplain.records.cohort_table import CohortTable

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

SUM_TOLERANCE = 1e-3
"""Shares of the parts that are there sum to 1 within this: a part that is not there is 0."""


@dataclass(frozen=True, eq=False)
class CaseOrder:
    """An order of cases that does not depend on how they were listed.

    Parameters
    ----------
    order
        (n,) positions: by the digest of the patient, then by the case's name.
    rank
        (n,) place of each case's patient among all patients, by digest, from 0.
    keys
        Digest of each patient, by rank.
    """

    order: Codes
    rank: Codes
    keys: tuple[bytes, ...]

    @classmethod
    def of(cls, table: CohortTable, seed: int) -> CaseOrder:
        """Order the cases of a table; the seed chooses which order."""
        owner, names = pd.factorize(np.asarray(table.patients, object))
        keys = [
            hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest() for name in names
        ]
        by_key = sorted(range(len(keys)), key=keys.__getitem__)
        place = np.empty(len(keys), np.intp)
        place[by_key] = np.arange(len(keys))
        rank = place[owner]
        order = np.lexsort((table.cases.index.to_numpy(str), rank))
        return cls(order, rank, tuple(keys[i] for i in by_key))

    @property
    def digests(self) -> frozenset[bytes]:
        """Digests of all patients."""
        return frozenset(self.keys)

    def is_of(self, digests: frozenset[bytes]) -> NDArray[np.bool_]:
        """(n,) whether each case's patient is among these."""
        return np.array([key in digests for key in self.keys], bool)[self.rank]

    def n_patients(self, at: Codes) -> int:
        """Count the patients of some cases."""
        return int(np.count_nonzero(np.bincount(self.rank[at])))


class Shares(NamedTuple):
    """Shares of one target.

    Parameters
    ----------
    values
        (n_cases, n_parts), in the table's order of cases; finite where they are known.
    known
        Positions of cases that can be scored, in the order of `CaseOrder`.
    is_absent, is_incomplete
        (n_cases,) no map; or shares are missing that are not just zero.
    """

    values: Floats
    known: Codes
    is_absent: NDArray[np.bool_]
    is_incomplete: NDArray[np.bool_]


def shares_of(table: CohortTable, target: str, parts: Sequence[str], cases: CaseOrder) -> Shares:
    """Take the shares of one target.

    Parameters
    ----------
    table
        With shares.
    target
        Which.
    parts
        Regions, in the order wanted.
    cases
        Order of the table's cases.

    Returns
    -------
    Shares
        A region without a row in a case whose other shares sum to 1 has the share 0.

    Raises
    ------
    DataError
        If a share is negative.
    TargetError
        If there is no such target.
    LabelError
        If shares were not loaded.
    """
    values = table.of_target(target, "share")[list(parts)].to_numpy(np.float64, copy=True)
    if (values < 0).any():
        raise DataError(f"shares are 0 or above; the least of {target} is {np.nanmin(values):g}")
    is_missing = ~np.isfinite(values)
    values[is_missing] = 0
    total = values.sum(axis=1)
    is_absent = total == 0
    has_gap = is_missing.any(axis=1) & ~is_absent
    is_incomplete = has_gap & (np.abs(total - 1) > SUM_TOLERANCE)
    is_known = ~is_absent & ~is_incomplete
    return Shares(values, cases.order[is_known[cases.order]], is_absent, is_incomplete)
