"""Gradients of single voxels' scores, through the windows that hold them, and their statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.inference.cotangent import Cotangent
from voxplain.inference.pipeline import Input, Job, Passes, Pipeline
from voxplain.space.box import Box

Unit = NDArray[np.int64]
"""Voxels of the padded volume that are summed before the gradient is taken, (n, rank)."""

Visit = Callable[[Sequence[int], Box, torch.Tensor], None]
"""Receives numbers of units, a box, and their gradients there, (n, n_channels, *box.shape)."""

_AT_ONCE = 16  # units that share a window's forward pass; their maps are held together


def support_voxels(cotangent: Cotangent) -> Unit:
    """Return the voxels with a non-zero cotangent, (n, rank), in array order."""
    if cotangent.support is None:
        return np.zeros((0, 0), np.int64)
    held = cotangent.crop(cotangent.support).ne(0).any(0).numpy()
    return np.asarray(np.argwhere(held) + np.asarray(cotangent.support.start))


def windows_of(pipeline: Pipeline, unit: Unit) -> tuple[int, ...]:
    """Windows whose logits reach a voxel of a unit, ascending."""
    low, high = unit.min(0), unit.max(0) + 1
    around = pipeline.windows_for(Box(tuple(low.tolist()), tuple(high.tolist())))
    if len(unit) == 1:
        return tuple(around)
    return tuple(w for w in around if len(_inside(pipeline, unit, w)[0]))


def voxel_passes(pipeline: Pipeline, units: Sequence[Unit]) -> Passes:
    """Count the passes of `voxel_gradients`."""
    n_views = pipeline.model.n_views
    found = Passes()
    for windows, numbers in _chunks(pipeline, units):
        found.n_forward += n_views * len(windows)
        found.n_backward += n_views * len(windows) * len(numbers)
    return found


def voxel_gradients(
    pipeline: Pipeline,
    source: Input,
    cotangent: Cotangent,
    units: Sequence[Unit],
    visit: Visit,
) -> None:
    """Give the gradient of each unit's part of a target, through the whole pipeline.

    The part of unit U is Σ_{v ∈ U} C(v)·L(v) with the cotangent C held, so that the gradients
    of a partition of the voxels add up to that of the target.

    Parameters
    ----------
    pipeline
        Model and image.
    source
        Input at which the gradients are taken.
    cotangent
        dT/dL at that input.
    units
        Each one voxel, or several that are summed.
    visit
        Called for up to 16 units of the same windows at a time, each unit once, in no order;
        the box is that of these windows, and the gradients are zero elsewhere.

    Notes
    -----
    Units that lie in the same windows are taken together: each view of such a window runs
    forward once for up to 16 of them and backward once for each, on the graph that is kept.
    Memory: the graph of a batch of windows, and 16 maps on the box of a voxel's windows (less
    than two windows long on an axis, where windows overlap by no more than half).
    """
    views = range(pipeline.model.n_views)
    for windows, numbers in _chunks(pipeline, units):
        box = _around(pipeline, windows)
        maps = torch.zeros(
            (len(numbers), pipeline.image.n_channels, *box.shape), dtype=pipeline.compute.dtype
        )

        def run(
            part: Sequence[Job], maps: torch.Tensor = maps, box: Box = box,
            numbers: Sequence[int] = numbers,
        ) -> None:  # fmt: skip
            batch = pipeline.stack([source(pipeline.plan.box(w)) for _, w, _ in part])
            weighted = {w: pipeline.weighted(cotangent, w) for _, w, _ in part}
            with torch.enable_grad():
                leaf = batch.requires_grad_()
                logits = pipeline.forward_with_graph(leaf, part[0][0])[:, cotangent.channels]
            found = []  # added at the end: a batch that runs out of memory is repeated
            for i in numbers:
                own = [_only(pipeline, units[i], w, weighted[w]) for _, w, _ in part]
                outputs = torch.stack(own)
                scale = pipeline.loss_scale(outputs)
                (values,) = torch.autograd.grad(
                    logits, leaf, (outputs * scale).to(logits), retain_graph=i != numbers[-1]
                )
                found.append(values.cpu() / scale)
            for held, values in zip(maps, found, strict=True):
                for (_, w, _), of_window in zip(part, values, strict=True):
                    held[(slice(None), *pipeline.plan.box(w).within(box))] += of_window
            pipeline.count(len(part), len(part) * len(numbers))

        jobs = [(view, w, 0) for view in views for w in windows]
        pipeline.in_batches(jobs, run, {w: [0] for w in windows})
        visit(numbers, box, maps)


class Statistic(Protocol):
    """Taken, voxel by voxel of a box, over maps that come a few at a time."""

    def add(self, box: Box, maps: torch.Tensor) -> None:
        """Take (n, n_channels, *box.shape); these maps are zero outside the box."""

    def result(self) -> torch.Tensor:
        """Return the statistic, (n_channels, *whole box)."""


class Largest:
    """Value of largest magnitude, with its sign; NaN where one is.

    Parameters
    ----------
    whole
        Box that holds those of all maps.
    n_channels
        Of the maps.
    dtype
        Of the maps.
    """

    def __init__(self, whole: Box, n_channels: int, dtype: torch.dtype) -> None:
        self._whole = whole
        self._best = torch.zeros((n_channels, *whole.shape), dtype=dtype)

    def add(self, box: Box, maps: torch.Tensor) -> None:
        """Take (n, n_channels, *box.shape); these maps are zero outside the box."""
        place = (slice(None), *box.within(self._whole))
        held = torch.cat([self._best[place][None], maps])
        self._best[place] = held.gather(0, held.abs().argmax(0, keepdim=True))[0]

    def result(self) -> torch.Tensor:
        """Return the statistic, (n_channels, *whole box)."""
        return self._best


class Quantile:
    """Exact q-quantile of n values, linear between order statistics; NaN where one is.

    Of the n values only the tail that the quantile lies in is kept. Maps that do not reach a
    voxel count as zeros there: they are put into the order at the end.

    Parameters
    ----------
    whole, n_channels, dtype
        See `Largest`.
    q
        0 to 1.
    n
        Number of maps that will come.

    Notes
    -----
    Memory: ⌈(1 − q)·(n − 1)⌉ + 1 maps (q instead of 1 − q for q < 1/2) and one of numbers.
    """

    def __init__(
        self, whole: Box, n_channels: int, dtype: torch.dtype, *, q: float, n: int
    ) -> None:
        self._whole = whole
        self._n = n
        self._sign = 1.0 if q >= 0.5 else -1.0
        place = (n - 1) * max(q, 1 - q)
        low = math.floor(place)
        self._part = place - low
        self._kept = torch.full((n - low, n_channels, *whole.shape), -torch.inf, dtype=dtype)
        self._n_reaching = torch.zeros(whole.shape, dtype=torch.int64)

    def add(self, box: Box, maps: torch.Tensor) -> None:
        """Take (n, n_channels, *box.shape); these maps are zero outside the box."""
        index = box.within(self._whole)
        place = (slice(None), slice(None), *index)
        held = torch.cat([self._kept[place], self._sign * maps])
        self._kept[place] = held.topk(len(self._kept), dim=0).values
        self._n_reaching[index] += len(maps)

    def result(self) -> torch.Tensor:
        """Return the statistic, (n_channels, *whole box)."""
        low = self._largest(len(self._kept))
        high = self._largest(max(1, len(self._kept) - 1))
        values = self._sign * (low + self._part * (high - low))
        return torch.where(self._kept[0].isnan(), torch.nan, values)  # NaN sorts before all

    def _largest(self, k: int) -> torch.Tensor:
        """Value number k from above, of those kept and the zeros of maps that do not reach."""
        n_zeros = self._n - self._n_reaching
        n_above = (self._kept > 0).sum(0)
        after = (k - n_zeros).clamp_min(1).expand_as(n_above)
        below = self._kept.gather(0, after[None] - 1)[0]
        value = torch.where(k <= n_above + n_zeros, 0.0, below)
        return torch.where(k <= n_above, self._kept[k - 1], value)


def _chunks(
    pipeline: Pipeline, units: Sequence[Unit]
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Windows, and numbers of a few units that lie in just these."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, unit in enumerate(units):
        alike.setdefault(windows_of(pipeline, unit), []).append(i)
    for windows, numbers in alike.items():
        for first in range(0, len(numbers), _AT_ONCE):
            yield windows, numbers[first : first + _AT_ONCE]


def _around(pipeline: Pipeline, windows: Sequence[int]) -> Box:
    box = pipeline.plan.box(windows[0])
    for w in windows[1:]:
        box = box.union(pipeline.plan.box(w))
    return box


def _inside(pipeline: Pipeline, unit: Unit, window: int) -> tuple[NDArray[np.int64], ...]:
    """Index of a unit's voxels in a window's output box."""
    box = pipeline.output_box(window)
    at = unit - np.asarray(box.start)
    return tuple(at[((at >= 0) & (at < np.asarray(box.shape))).all(1)].T)


def _only(pipeline: Pipeline, unit: Unit, window: int, weighted: torch.Tensor) -> torch.Tensor:
    """Keep the values of a unit's voxels, 0 elsewhere, on a window's output box."""
    index = [torch.from_numpy(i) for i in _inside(pipeline, unit, window)]
    place: tuple[slice | torch.Tensor, ...] = (slice(None), *index)
    alone = torch.zeros_like(weighted)
    alone[place] = weighted[place]
    return alone
