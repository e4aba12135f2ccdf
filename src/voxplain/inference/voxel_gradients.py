"""Gradients of single voxels' scores, through the windows that hold them, and their statistics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.inference.compute import free_memory_bytes
from voxplain.inference.cotangent import Cotangent
from voxplain.inference.pipeline import Input, Job, Passes, Pipeline
from voxplain.space.box import Box

Unit = NDArray[np.int64]
"""Voxels of the padded volume that are summed before the gradient is taken, (n, rank)."""

Owned = tuple[int, Unit]
"""A unit, and the number of the target that it is a part of."""

Visit = Callable[[Sequence[int], Box, torch.Tensor], None]
"""Receives numbers of units, a box, and their gradients there, (n, n_channels, *box.shape)."""

_FEWEST, _MOST = 4, 16  # units that share a window's forward pass; their maps are held together
_MAPS_BYTES = 32 * 2**20  # of these maps, where that is more than the fewest


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


def voxel_passes(pipeline: Pipeline, units: Sequence[Owned]) -> Passes:
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
    cotangents: Sequence[Cotangent],
    units: Sequence[Owned],
    visit: Visit,
) -> None:
    """Give the gradient of each unit's part of its target, through the whole pipeline.

    The part of unit U is Σ_{v ∈ U} C(v)·L(v) with the cotangent C held, so that the gradients
    of a partition of the voxels add up to that of the target.

    Parameters
    ----------
    pipeline
        Model and image.
    source
        Input at which the gradients are taken.
    cotangents
        dT/dL at that input, one a target.
    units
        Each one voxel of a target, or several that are summed.
    visit
        Called for up to 16 units of the same windows at a time, each unit once, in no order;
        the box is that of these windows, and the gradients are zero elsewhere.

    Notes
    -----
    Units that lie in the same windows are taken together, of whichever targets: each view of such
    a window runs forward once for up to 16 of them and backward once for each, on the graph that
    is kept. Memory: the graph of a batch of windows, and 16 maps on the box of a voxel's windows
    (less than two windows long on an axis, where windows overlap by no more than half), or as
    many as 32 MiB hold, but no fewer than 4; the number of units that share a forward pass too.

    On CUDA, backward passes are taken together, as many as the free memory holds (vectorised
    vector-Jacobian products); each still counts as one. On a CPU that gains nothing: of a
    32-64-128-256-512 U-Net at 96³ on one thread a backward pass takes 0.20 s alone and 0.17 s
    among 8, of a DynUNet at 48³ 0.22 and 0.34, of a SwinUNETR at 64³ 1.5 and 2.0, and it takes
    more memory. So there, and under checkpointing, where memory counts most, they are taken one
    after another; so they are for a network with an operation that cannot be vectorised.
    """
    views = range(pipeline.model.n_views)
    for windows, numbers in _chunks(pipeline, units):
        box = _around(pipeline, windows)
        maps = torch.zeros(
            (len(numbers), pipeline.image.n_channels, *box.shape), dtype=pipeline.compute.dtype
        )
        added: set[tuple[Job, int]] = set()

        def run(
            part: Sequence[Job], maps: torch.Tensor = maps, box: Box = box,
            numbers: Sequence[int] = numbers, added: set[tuple[Job, int]] = added,
        ) -> None:  # fmt: skip
            batch = pipeline.stack([source(pipeline.plan.box(w)) for _, w, _ in part])
            targets = {units[i][0] for i in numbers}
            weighted = {
                (t, w): pipeline.weighted(cotangents[t], w) for t in targets for _, w, _ in part
            }
            with torch.enable_grad():
                leaf = batch.requires_grad_()
                logits = pipeline.forward_with_graph(leaf, part[0][0])
                parts = {
                    _classes(cotangents[t]): logits[:, cotangents[t].channels] for t in targets
                }
            left = list(enumerate(numbers))
            while left:
                classes = _classes(cotangents[units[left[0][1]][0]])
                outputs, scales = [], []
                for _, i in left[: _n_together(pipeline, len(part))]:
                    t, unit = units[i]
                    if _classes(cotangents[t]) != classes:
                        break
                    own = [_only(pipeline, unit, w, weighted[t, w]) for _, w, _ in part]
                    outputs.append(torch.stack(own))
                    scales.append(pipeline.loss_scale(outputs[-1]))
                    outputs[-1] = (outputs[-1] * scales[-1]).to(logits)
                now, left = left[: len(outputs)], left[len(outputs) :]
                gradients = _products(
                    pipeline, parts[classes], leaf, torch.stack(outputs), retain=bool(left)
                )
                for (row, _), values, scale in zip(now, gradients, scales, strict=True):
                    for job, of_window in zip(part, values.cpu() / scale, strict=True):
                        if (job, row) in added:  # a batch that ran out of memory is repeated
                            continue
                        place = (slice(None), *pipeline.plan.box(job[1]).within(box))
                        maps[row][place] += of_window
                        added.add((job, row))
            pipeline.count(len(part), len(part) * len(numbers))

        jobs = [(view, w, 0) for view in views for w in windows]
        pipeline.in_batches(jobs, run, {w: [0] for w in windows})
        visit(numbers, box, maps)
        del run, maps  # before the next ones are made


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
        held = self._best[(slice(None), *box.within(self._whole))]
        for one in maps:  # one by one, so that no copy of all of them is made
            is_larger = ~(one.abs() <= held.abs()) & ~held.isnan()  # a NaN comes in and stays
            torch.where(is_larger, one, held, out=held)

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
    pipeline: Pipeline, units: Sequence[Owned]
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Windows, and numbers of a few units that lie in just these."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, (_, unit) in enumerate(units):
        alike.setdefault(windows_of(pipeline, unit), []).append(i)
    for windows, numbers in alike.items():
        size = pipeline.image.n_channels * _around(pipeline, windows).n_voxels
        fits = _MAPS_BYTES // (size * pipeline.compute.dtype.itemsize)
        n = min(_MOST, max(_FEWEST, fits))
        for first in range(0, len(numbers), n):
            yield windows, numbers[first : first + n]


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


def _classes(cotangent: Cotangent) -> tuple[Any, ...]:
    """`channels` of a cotangent, to be compared (a slice is no key before Python 3.12)."""
    return cotangent.channels.start, cotangent.channels.stop, cotangent.channels.step


def _n_together(pipeline: Pipeline, n_windows: int) -> int:
    """Count the units that share a backward pass over a batch of windows."""
    if pipeline.cotangents_at_once is not None:
        return pipeline.cotangents_at_once
    if pipeline.device.type != "cuda" or pipeline.compute.checkpointing:
        return 1
    # what one backward pass holds at a time is less than the graph
    graph_bytes = max(1, pipeline.graph_bytes or 0) * n_windows
    return max(1, min(_MOST, free_memory_bytes(pipeline.device) // (2 * graph_bytes)))


def _products(
    pipeline: Pipeline,
    logits: torch.Tensor,
    leaf: torch.Tensor,
    outputs: torch.Tensor,
    *,
    retain: bool,
) -> Sequence[torch.Tensor]:
    """Vector-Jacobian products of n cotangents (n, *logits.shape), each like the leaf.

    Several are taken in one pass; where that fails, for an operation or for memory, they and all
    later ones of the pipeline are taken one by one.
    """
    if len(outputs) > 1:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # torch warns of operations that it only repeats
                (together,) = torch.autograd.grad(
                    logits, leaf, outputs, retain_graph=True, is_grads_batched=True
                )
        except (RuntimeError, MemoryError, Warning):
            pipeline.cotangents_at_once = 1
        else:
            return tuple(together)
    return [
        torch.autograd.grad(logits, leaf, one, retain_graph=retain or i + 1 < len(outputs))[0]
        for i, one in enumerate(outputs)
    ]
