"""Checks that every model, of whatever family, has to pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.inference.compute import Compute
from voxplain.inference.cotangent import DenseCotangent
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model
from voxplain.models.probe import evaluating
from voxplain.models.weights import weights_sha256
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import BACKGROUND
from voxplain.space.volume import Volume

_MOST_VOXELS = 24  # an axis; geometry is checked on a part of a large image
_STEP = 1e-6  # of the finite difference, in standard deviations of the image
_GRADIENT = 1e-4  # of the sum of absolute contributions; kinks of ReLU cost about the step
_PLACE = (0.3, 0.6, 0.4)  # of the bright spot, as a share of each axis


def check_model(model: Model, image: Volume) -> None:
    """Check a model against the contract of `voxplain.models.Model`.

    Checked are: `prepare` (the argument unchanged, the same result twice, axes parallel to the
    image's, a bright spot kept where it lies in the patient, also for oblique, flipped, permuted
    and anisotropic grids), the logits of each view (shape, finite, the same twice, each item of
    a batch on its own), their gradient (against finite differences), the label image (on the
    image's grid, the classes' names, a spot of one class kept where it lies), and that the module
    is left as it was (weights, modes, gradients asked for, hooks), also after an error.

    Parameters
    ----------
    model
        To be checked; a few windows are run.
    image
        One that the model is made for.

    Raises
    ------
    AssertionError
        With a sentence that says what is broken.
    """
    before = _state(model.module)
    _check_info(model)
    prepared = _check_prepare(model, image)
    small = _cropped(image)
    for grid in _geometries(small.grid):
        blob = _check_geometry(model, image, grid)
        if model.info.kind == "segmentation":
            _check_label_image(model, blob)
    _check_logits(model, prepared)
    _check_gradient(model, small)
    _fail_while_lent(model, small)
    for what, old, new in zip(_STATE, before, _state(model.module), strict=True):
        _require(old == new, f"the module's {what} changed")


def _require(condition: object, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


# -- the module ---------------------------------------------------------------------------
_STATE = ("weights", "training modes", "requires_grad flags", "gradients", "hooks")


def _state(module: nn.Module) -> tuple[Any, ...]:
    parts = list(module.modules())
    hooks = [
        tuple(len(getattr(part, name)) for name in vars(part) if name.endswith("_hooks"))
        for part in parts
    ]
    parameters = list(module.parameters())
    return (
        weights_sha256(module),
        [part.training for part in parts],
        [parameter.requires_grad for parameter in parameters],
        [parameter.grad is None for parameter in parameters],
        hooks,
    )


# -- description and preparation ----------------------------------------------------------
def _check_info(model: Model) -> None:
    info = model.info
    _require(info.rank in (2, 3), f"rank is 2 or 3, got {info.rank}")
    _require(info.channel_names, "the model names no input channel")
    _require(info.class_names, "the model names no class")
    for what, names in (("channels", info.channel_names), ("classes", info.class_names)):
        _require(len(set(names)) == len(names), f"two {what} have one name: {names}")
    _require(
        info.window is None or len(info.window.size) == info.rank,
        f"the window {info.window} has not {info.rank} axes",
    )
    _require(len(info.sha256) == 64, f"sha256 is 64 hexadecimal digits, got {info.sha256!r}")


def _check_prepare(model: Model, image: Volume) -> Volume:
    data, grid = image.data.copy(), image.grid
    prepared = model.prepare(image)
    _require(
        np.array_equal(data, image.data) and grid == image.grid, "prepare changes its argument"
    )
    again = model.prepare(image)
    _require(
        np.array_equal(prepared.data, again.data) and prepared.grid == again.grid,
        "prepare gives two results for one image",
    )
    n_channels = len(model.info.channel_names)
    _require(
        prepared.n_channels == n_channels,
        f"prepare gives {prepared.n_channels} channels, the model has {n_channels}",
    )
    return prepared


def _cropped(image: Volume) -> Volume:
    """Middle of an image: at most 24 voxels an axis."""
    grid = image.grid
    shape = tuple(min(n, _MOST_VOXELS) for n in grid.shape)
    start = [(n - m) // 2 for n, m in zip(grid.shape, shape, strict=True)]
    place = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    return image.with_data(image.data[(slice(None), *place)], grid.crop(start, shape))


def _geometries(small: Grid) -> Iterator[Grid]:
    """Yield the grid, tilted, flipped, permuted and stretched."""
    rank, shape = small.rank, small.shape
    yield small
    turn = np.eye(rank + 1)
    for first, second, angle in ((0, 1, 0.2), (0, 2, -0.15), (1, 2, 0.1))[: 1 if rank == 2 else 3]:
        plane = np.eye(rank + 1)
        cos, sin = np.cos(angle), np.sin(angle)
        plane[first, first] = plane[second, second] = cos
        plane[first, second], plane[second, first] = -sin, sin
        turn = turn @ plane
    yield Grid(shape, turn @ small.affine)
    letters = small.orientation.translate(str.maketrans("LRPAIS", "RLAPSI"))
    yield small.reorient(letters)
    yield small.reorient(small.orientation[1:] + small.orientation[0])
    stretch = np.diag([*(1.0, 1.3, 1.7)[:rank], 1.0])
    yield Grid(shape, turn @ small.affine @ stretch)


def _place(grid: Grid) -> tuple[int, ...]:
    return tuple(round(share * (n - 1)) for share, n in zip(_PLACE, grid.shape, strict=False))


def _check_geometry(model: Model, image: Volume, grid: Grid) -> Volume:
    """Check where a bright spot lies after `prepare`; its image."""
    spot = _place(grid)
    blob = _spot(model, image, grid, spot)
    prepared = model.prepare(blob)
    _require(
        _is_parallel(prepared.grid, grid),
        f"the axes of the prepared image ({prepared.grid.describe()}) are not parallel to those "
        f"of the image ({grid.describe()})",
    )
    true = grid.to_world(spot)
    half_voxel = 0.6 * float(np.linalg.norm(prepared.grid.spacing))
    for channel, values in zip(prepared.channels, prepared.data, strict=True):
        found = _brightest(values, prepared.grid, true)
        distance = float(np.linalg.norm(found - true))
        _require(
            distance <= half_voxel,
            f"channel {channel}: a bright spot at {np.round(true, 2)} mm of an image of "
            f"{grid.describe()} is at {np.round(found, 2)} mm after prepare",
        )
    return blob


def _check_label_image(model: Model, image: Volume) -> None:
    """Check that a ball of the last class comes back to the image where it lies."""
    info, grid = model.info, model.prepare(image).grid
    centre = image.grid.to_world(_place(image.grid))
    radius = 1.5 * max(*grid.spacing, *image.grid.spacing)
    logits = np.full((info.n_classes, *grid.shape), -4 * radius, np.float32)
    if info.is_exclusive:
        logits[0] = 0
    logits[-1] = radius - _distances(grid, centre)
    labels = model.label_image(logits, grid, image)
    _require(
        labels.grid == image.grid,
        f"the label image lies on {labels.grid.describe()}, the image on {image.grid.describe()}",
    )
    _require(
        labels.names == {0: BACKGROUND, **info.label_names},
        f"the label image names {labels.names}, the model {info.label_names}",
    )
    distances = _distances(image.grid, centre)
    found = labels.mask(info.class_names[-1])
    margin = 0.6 * float(max(np.linalg.norm(g.spacing) for g in (grid, image.grid)))
    is_outside = bool(found[distances > radius + margin].any())
    is_empty = not found[distances <= max(radius - margin, distances.min())].all()
    _require(
        not (is_outside or is_empty),
        f"a ball of class {info.class_names[-1]} around {np.round(centre, 2)} mm is elsewhere in "
        f"the label image of {image.grid.describe()}",
    )


def _distances(grid: Grid, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every voxel's centre from a point, mm."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return np.asarray(np.linalg.norm(grid.to_world(index) - point, axis=-1))


def _spot(model: Model, image: Volume, grid: Grid, spot: tuple[int, ...]) -> Volume:
    """Image of a smooth spot that is wide enough for the model's grid."""
    plain = replace(image, data=_blob(image, grid, spot, max(grid.spacing)), grid=grid)
    width = max(*grid.spacing, *model.prepare(plain).grid.spacing)
    return replace(image, data=_blob(image, grid, spot, width), grid=grid)


def _blob(image: Volume, grid: Grid, spot: tuple[int, ...], width: float) -> NDArray[np.floating]:
    """Give a smooth spot between the least and the greatest intensity of every channel."""
    profile = np.exp(-(_distances(grid, grid.to_world(spot)) ** 2) / (2 * width**2))
    axes = tuple(range(1, image.data.ndim))
    low = image.data.min(axis=axes, keepdims=True)
    high = image.data.max(axis=axes, keepdims=True)
    high = np.where(high > low, high, low + 1)
    return np.asarray(low + (high - low) * profile, image.data.dtype)


def _brightest(
    values: NDArray[np.floating], grid: Grid, expected: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Find where the values differ most from those far away (the mean place of a plateau)."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    world = grid.to_world(index)
    far = np.linalg.norm(world - expected, axis=-1).argmax()
    difference = np.abs(values - values.reshape(-1)[far])
    highest = difference >= difference.max() * (1 - 1e-6)
    return np.asarray(world[highest].mean(axis=0))


def _is_parallel(one: Grid, other: Grid) -> bool:
    rank = one.rank
    first = one.affine[:rank, :rank] / np.asarray(one.spacing)
    second = other.affine[:rank, :rank] / np.asarray(other.spacing)
    cosines = np.abs(first.T @ second)
    return bool(np.allclose(np.sort(cosines, axis=1)[:, -1], 1.0, atol=1e-6))


# -- logits -------------------------------------------------------------------------------
def _check_logits(model: Model, prepared: Volume) -> None:
    info = model.info
    size = prepared.grid.shape if info.window is None else info.window.size
    batch = _windows(model.module, prepared, size)
    for view in range(model.n_views):
        _check_view(model, batch, view, size)


def _check_view(model: Model, batch: torch.Tensor, view: int, size: tuple[int, ...]) -> None:
    info = model.info
    with torch.no_grad(), evaluating(model.module):
        alone = model.forward(batch[:1].clone(), view)
        again = model.forward(batch[:1].clone(), view)
        together = model.forward(batch.clone(), view)
    expected = (len(batch), info.n_classes, *(size if info.kind == "segmentation" else ()))
    _require(
        tuple(together.shape) == expected,
        f"logits have shape {tuple(together.shape)}, expected {expected} (batch, classes, …)",
    )
    _require(
        alone.shape == (1, *expected[1:]),
        f"logits of one window have shape {tuple(alone.shape)}, expected {(1, *expected[1:])}",
    )
    _require(bool(torch.isfinite(together).all()), "logits are NaN or infinite")
    _require(bool(torch.equal(alone, again)), "one window gives two results in evaluation mode")
    tolerance = 1e-9 if alone.dtype == torch.float64 else 1e-3
    scale = max(1.0, float(alone.abs().max()))
    difference = float((alone[0] - together[0]).abs().max())
    _require(
        difference <= tolerance * scale,
        f"a window's logits depend on the rest of the batch (they differ by {difference:.3g})",
    )


def _windows(module: nn.Module, prepared: Volume, size: tuple[int, ...]) -> torch.Tensor:
    """Cut one window (padded by repetition) and add two others that differ from it."""
    first = prepared.data
    for axis, length in enumerate(size, 1):
        first = np.take(first, np.arange(length) % first.shape[axis], axis=axis)
    noise = np.random.default_rng(0).normal(size=(2, *first.shape)) * (first.std() + 1.0)
    batch = np.concatenate([first[None], first[None] + noise])
    tensors = [*module.parameters(), *module.buffers()]
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    return torch.as_tensor(batch).to(like)


def _check_gradient(model: Model, image: Volume) -> None:
    """Compare the windowed gradient with the change of the logits along a random direction."""
    rng = np.random.default_rng(0)
    with open_pipeline(model, image, Compute("cpu", precision="float64")) as pipeline:
        everything = Box.whole(pipeline.plan.padded_shape)
        clean = pipeline.clean(everything)
        shape = (model.info.n_classes, *pipeline.inner.shape)
        weight = torch.from_numpy(rng.normal(size=shape))
        step = torch.from_numpy(rng.normal(size=tuple(clean.shape))) * _STEP * clean.std()

        def value(sign: int) -> float:
            moved = clean + sign * step
            logits = pipeline.logits(lambda box: moved[(slice(None), *box.slices)], pipeline.inner)
            return float((logits * weight).sum())

        found, size = 0.0, 0.0

        def add(box: Box, values: torch.Tensor) -> None:
            nonlocal found, size
            part = values[0].cpu() * step[(slice(None), *box.slices)]
            found += float(part.sum())
            size += float(part.abs().sum())

        cotangent = DenseCotangent(weight, pipeline.inner)
        pipeline.gradients([pipeline.clean], [1.0], [cotangent], add)
        change = (value(+1) - value(-1)) / 2
    _require(
        abs(found - change) <= _GRADIENT * size + 1e-12,
        f"the gradient is not that of the logits: {found:.6g} along a direction in which they "
        f"change by {change:.6g}",
    )


def _fail_while_lent(model: Model, image: Volume) -> None:
    """Leave a pipeline by an error; the caller compares the module with what it was."""
    with suppress(ZeroDivisionError), open_pipeline(model, image, Compute("cpu")):
        raise ZeroDivisionError
