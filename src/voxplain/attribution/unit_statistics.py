"""Statistics over the gradients of single voxels, or parts, of targets, with their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.method import Outcome
from voxplain.attribution.question import MapSum, Question
from voxplain.attribution.smoothgrad import region_shares
from voxplain.inference.pipeline import Input, Passes
from voxplain.inference.rolling import Emit
from voxplain.inference.voxel_gradients import (
    Owned,
    Statistic,
    Unit,
    voxel_gradients,
    voxel_passes,
)
from voxplain.space.box import Box

Units = tuple[list[Unit], int]
"""Voxels, or parts, of one target that are taken, and how many there are to draw from."""

Make = Callable[[Box, int], Statistic]
"""Makes a statistic over a number of maps that lie in a box."""

_LEAST = 2  # voxels in a group


def _owned(units: Sequence[Units], targets: Sequence[int]) -> list[Owned]:
    return [(t, unit) for t in targets for unit in units[t][0]]


def unit_passes(units: Sequence[Units], question: Question, *, together: bool) -> Passes:
    """Count the passes of `unit_statistics` at one input whose logits are known."""
    every = list(range(len(units)))
    each = [
        voxel_passes(question.pipeline, _owned(units, targets))
        for targets in ([every] if together else [[t] for t in every])
    ]
    return Passes(sum(p.n_forward for p in each), sum(p.n_backward for p in each))


def unit_statistics(
    question: Question, units: Sequence[Units], make: Make, sources: Sequence[Input], emit: Emit,
    *, n_groups: int, together: bool,
) -> Outcome:  # fmt: skip
    """Emit the mean over sources of a statistic over units, with its error where drawn.

    Units of all targets are taken `together`, so that they share passes forward, or target by
    target, so that the statistic of one alone is held. Errors come from `n_groups` groups of
    drawn units.
    """
    total = MapSum(question)
    is_drawn = any(len(taken) < n_all for taken, n_all in units)
    without = [MapSum(question) for _ in range(n_groups if is_drawn else 0)]
    every = [t for t, (taken, _) in enumerate(units) if taken]
    for source in sources:
        cotangents = question.cotangents(source)
        for targets in [every] if together and every else [[t] for t in every]:
            held = {t: _Held(units[t], total.box, make, n_groups) for t in targets}
            owned = _owned(units, targets)
            first = {t: next(i for i, (owner, _) in enumerate(owned) if owner == t) for t in held}

            def visit(
                numbers: Sequence[int], box: Box, maps: torch.Tensor,
                held: dict[int, _Held] = held, owned: list[Owned] = owned,
                first: dict[int, int] = first,
            ) -> None:  # fmt: skip
                for t, one in held.items():
                    rows = [row for row, i in enumerate(numbers) if owned[i][0] == t]
                    if rows:
                        one.add([numbers[row] - first[t] for row in rows], box, maps[rows])

            voxel_gradients(question.pipeline, source, cotangents, owned, visit)
            for t, one in held.items():
                total.values[t] += one.statistic.result() / len(sources)
                for sums, other in zip(without, one.others, strict=False):  # none, or each
                    sums.values[t] += other.result() / len(sources)
    total.emit(emit)
    settings = {"n_voxels": [len(taken) for taken, _ in units]}
    errors = _errors(question, units, total, without)
    return Outcome(share_errors=errors, settings=settings)


class _Held:
    """The statistic of one target, and those that leave out a group of drawn units each."""

    def __init__(self, units: Units, box: Box, make: Make, n_groups: int) -> None:
        taken, n_all = units
        has_groups = n_groups * _LEAST <= len(taken) < n_all
        self._groups = np.arange(len(taken)) % n_groups  # drawn in random order
        self.statistic = make(box, len(taken))
        self.others = [
            make(box, int((self._groups != g).sum())) for g in range(n_groups * has_groups)
        ]

    def add(self, numbers: Sequence[int], box: Box, maps: torch.Tensor) -> None:
        """Take the maps of some units, by their number among those of the target."""
        self.statistic.add(box, maps)
        for g, other in enumerate(self.others):
            chosen = self._groups[list(numbers)] != g
            if chosen.any():
                other.add(box, maps[torch.from_numpy(chosen)])


def _errors(
    question: Question, units: Sequence[Units], total: MapSum, without: Sequence[MapSum]
) -> NDArray[np.float64] | None:
    """Root mean square errors of the region shares: a jackknife's bias and standard error."""
    if not without:
        return None
    groups = np.stack([region_shares(question, *sums.inner()) for sums in without])
    n = len(without)
    bias = (n - 1) * (groups.mean(axis=0) - region_shares(question, *total.inner()))
    errors = np.sqrt((n - 1) * np.var(groups, axis=0) + bias**2)
    for t, (taken, n_all) in enumerate(units):
        if n_all:  # none for a mask that is taken whole
            errors[t] = errors[t] * np.sqrt(1 - len(taken) / n_all) if len(taken) < n_all else 0.0
    return np.asarray(errors)
