"""Gradients of single voxels' scores, in batches, through the windows that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.inference.cotangent import Cotangent
from voxplain.inference.pipeline import Input, Job, Passes, Pipeline
from voxplain.space.box import Box

Unit = NDArray[np.int64]
"""Voxels of the padded volume that are summed before the gradient is taken, (n, rank)."""

Visit = Callable[[Sequence[int], torch.Tensor], None]
"""Receives numbers of units and their gradients (n, n_channels, *box.shape)."""

_AT_ONCE = 8  # units whose gradients are held together


def support_voxels(cotangent: Cotangent) -> Unit:
    """Return the voxels with a non-zero cotangent, (n, rank), in array order."""
    if cotangent.support is None:
        return np.zeros((0, 0), np.int64)
    held = cotangent.crop(cotangent.support).ne(0).any(0).numpy()
    return np.asarray(np.argwhere(held) + np.asarray(cotangent.support.start))


def windows_of(pipeline: Pipeline, unit: Unit) -> list[int]:
    """Windows whose logits reach a voxel of a unit."""
    low, high = unit.min(0), unit.max(0) + 1
    around = pipeline.windows_for(Box(tuple(low.tolist()), tuple(high.tolist())))
    if len(unit) == 1:
        return around
    return [w for w in around if len(_inside(pipeline, unit, w)[0])]


def voxel_passes(pipeline: Pipeline, units: Sequence[Unit]) -> Passes:
    """Count the passes of `voxel_gradients`: one forward and one backward a unit and window."""
    n = pipeline.model.n_views * sum(len(windows_of(pipeline, unit)) for unit in units)
    return Passes(n_forward=n, n_backward=n)


def voxel_gradients(
    pipeline: Pipeline,
    source: Input,
    cotangent: Cotangent,
    units: Sequence[Unit],
    box: Box,
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
    box
        Voxels on which gradients are given; must hold all windows of all units.
    visit
        Called for a few units at a time, in order.

    Notes
    -----
    A batch holds one window several times, each with another unit's share of the cotangent,
    so one backward pass answers several units. One forward and one backward pass for each
    unit, window that holds it, and view. Memory: a batch's graph and eight maps on `box`.
    """
    reached = [windows_of(pipeline, unit) for unit in units]
    views = range(pipeline.model.n_views)
    for first in range(0, len(units), _AT_ONCE):
        numbers = range(first, min(len(units), first + _AT_ONCE))
        maps = torch.zeros(
            (len(numbers), pipeline.image.n_channels, *box.shape), dtype=pipeline.compute.dtype
        )
        jobs = sorted((v, w, i) for i in numbers for w in reached[i] for v in views)

        def run(part: Sequence[Job], maps: torch.Tensor = maps, first: int = first) -> None:
            batch = pipeline.stack([source(pipeline.plan.box(w)) for _, w, _ in part])
            outputs = torch.stack([_share(pipeline, cotangent, units[i], w) for _, w, i in part])
            scale = pipeline.loss_scale(outputs)
            with torch.enable_grad():
                leaf = batch.requires_grad_()
                logits = pipeline.forward_with_graph(leaf, part[0][0])[:, cotangent.channels]
            (found,) = torch.autograd.grad(logits, leaf, (outputs * scale).to(logits))
            for (_, w, i), values in zip(part, found, strict=True):
                place = (slice(None), *pipeline.plan.box(w).within(box))
                maps[i - first][place] += values.cpu() / scale
            pipeline.count(len(part), len(part))

        pipeline.in_batches(jobs, run, {w: [0] for _, w, _ in jobs})
        visit(numbers, maps)


def _inside(pipeline: Pipeline, unit: Unit, window: int) -> tuple[NDArray[np.int64], ...]:
    """Index of a unit's voxels in a window's output box."""
    box = pipeline.output_box(window)
    at = unit - np.asarray(box.start)
    return tuple(at[((at >= 0) & (at < np.asarray(box.shape))).all(1)].T)


def _share(pipeline: Pipeline, cotangent: Cotangent, unit: Unit, window: int) -> torch.Tensor:
    """C·g_w/Σg over the views at a unit's voxels, 0 elsewhere, on a window's output box."""
    weighted = pipeline.weighted(cotangent, window).cpu()
    alone = torch.zeros_like(weighted)
    for index in zip(*_inside(pipeline, unit, window), strict=True):
        place: tuple[slice | int, ...] = (slice(None), *(int(i) for i in index))
        alone[place] = weighted[place]
    return alone
