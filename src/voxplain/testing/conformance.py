"""Checks that every model, of whatever family, has to pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.models import Model
from voxplain.models.probe import evaluating
from voxplain.models.weights import weights_sha256
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume

_MOST_VOXELS = 24  # an axis; geometry is checked on a part of a large image
_PLACE = (0.3, 0.6, 0.4)  # of the bright spot, as a share of each axis


def check_model(model: Model, image: Volume) -> None:
    """Check a model against the contract of `voxplain.models.Model`.

    Checked are: `prepare` (the argument unchanged, the same result twice, the grid of
    `grid_of`, axes parallel to the image's, a bright spot kept where it lies in the patient,
    also for oblique, flipped, permuted and anisotropic grids), the logits (shape, finite, the
    same twice, each item of a batch on its own), and that the module is left as it was
    (weights, modes, gradients asked for, hooks).

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
    for grid in _geometries(image.grid):
        _check_geometry(model, image, grid)
    _check_logits(model, prepared)
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


def _geometries(grid: Grid) -> Iterator[Grid]:
    """Yield the grid (at most 24 voxels an axis), tilted, flipped, permuted and stretched."""
    rank = grid.rank
    shape = tuple(min(n, _MOST_VOXELS) for n in grid.shape)
    small = grid.crop([(n - m) // 2 for n, m in zip(grid.shape, shape, strict=True)], shape)
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


def _check_geometry(model: Model, image: Volume, grid: Grid) -> None:
    spot = tuple(round(share * (n - 1)) for share, n in zip(_PLACE, grid.shape, strict=False))
    blob = replace(image, data=_blob(image, grid, spot, model.grid_of(grid)), grid=grid)
    prepared = model.prepare(blob)
    _require(
        prepared.grid == model.grid_of(grid),
        f"prepare gives a grid of {prepared.grid.describe()}, grid_of says "
        f"{model.grid_of(grid).describe()}",
    )
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


def _blob(image: Volume, grid: Grid, spot: tuple[int, ...], like: Grid) -> NDArray[np.floating]:
    """Give a smooth spot between the least and the greatest intensity of every channel."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    squared = ((grid.to_world(index) - grid.to_world(spot)) ** 2).sum(axis=-1)
    width = max(*grid.spacing, *like.spacing)
    profile = np.exp(-squared / (2 * width**2))
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
    with torch.no_grad(), evaluating(model.module):
        alone = model.forward(batch[:1].clone())
        again = model.forward(batch[:1].clone())
        together = model.forward(batch.clone())
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
