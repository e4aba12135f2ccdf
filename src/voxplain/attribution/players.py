"""Players of a game: parts of the image that are present or absent."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.changed import Change
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input
from voxplain.inference.rolling import Emit
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap

Paint = Literal["density", "value"]

SPECS = "regions, cubes:N, supervoxels:N, channels, or channels* with one of the others"


class Players:
    """Which voxels of an image each player holds.

    A voxel is absent where any of its players is absent; a voxel without a player is always
    present. So overlapping regions need no rule of their own: removing one removes all of it.

    Parameters
    ----------
    question
        The image.
    names
        One a player.
    index
        (n_layers, 1 or n_channels, *image shape) player of each voxel, −1 for none; one
        channel holds for all channels of the image.
    """

    def __init__(
        self, question: Question, names: Sequence[str], index: NDArray[np.integer]
    ) -> None:
        self.names = tuple(names)
        self.index = index
        self._pipeline = question.pipeline
        self._locals: dict[int, NDArray[np.intp]] = {}

    def __len__(self) -> int:
        """Count the players."""
        return len(self.names)

    @property
    def has_channels(self) -> bool:
        """Whether players differ between image channels."""
        return bool(self.index.shape[1] > 1)

    def n_voxels(self) -> NDArray[np.int64]:
        """Voxels of each player, over all its channels."""
        held = self.index[self.index >= 0]
        return np.bincount(held, minlength=len(self)).astype(np.int64)

    def crop(self, box: Box) -> NDArray[np.integer]:
        """Players on a box of the padded volume; padding belongs to none."""
        inner = self._pipeline.plan.inner()
        found = np.full((*self.index.shape[:2], *box.shape), -1, self.index.dtype)
        common = box.intersect(inner)
        if common is not None:
            every = (slice(None), slice(None))
            found[(*every, *common.within(box))] = self.index[(*every, *common.within(inner))]
        return found

    def local(self, window: int) -> NDArray[np.intp]:
        """Players that hold a voxel of a window, ascending."""
        if window not in self._locals:
            held = self.crop(self._pipeline.plan.box(window))
            counts = np.bincount(held[held >= 0], minlength=len(self))
            self._locals[window] = np.flatnonzero(counts)
        return self._locals[window]

    def is_absent(self, is_present: NDArray[np.bool_], box: Box) -> torch.Tensor:
        """Voxels of a box that a coalition lacks, (1 or n_channels, *box.shape)."""
        absent = np.append(~is_present, False)  # its last entry is that of index −1
        return torch.from_numpy(absent[self.crop(box)].any(axis=0))

    def without(self, is_present: NDArray[np.bool_], fill: Input) -> Change:
        """Return the image in which absent players are filled.

        Parameters
        ----------
        is_present
            (n_players,).
        fill
            What stands in absent voxels.
        """

        def source(box: Box) -> torch.Tensor:
            return torch.where(
                self.is_absent(is_present, box), fill(box), self._pipeline.clean(box)
            )

        def key(window: int) -> Hashable:
            local = self.local(window)
            missing = local[~is_present[local]]
            return missing.tobytes() if len(missing) else None

        return Change(source, key)

    def paint(self, values: NDArray[np.float64], emit: Emit, *, is_density: bool = True) -> None:
        """Emit the map of values a player, (n_targets, n_players).

        Parameters
        ----------
        values
            What each player did for each target.
        emit
            Receives the whole image as one slab.
        is_density
            Deal a player's value out evenly over its voxels, so that a region sums to what its
            players did; else every voxel holds the whole value, as published programs draw it.
        """
        n_voxels = self.n_voxels()
        each = values / np.maximum(n_voxels, 1) if is_density else values
        each = np.concatenate([each, np.zeros((len(each), 1))], axis=1)
        inner = self._pipeline.plan.inner()
        dtype = self._pipeline.compute.dtype
        for start in range(inner.start[0], inner.stop[0], _SLAB):
            stop = min(start + _SLAB, inner.stop[0])
            box = Box((start, *inner.start[1:]), (stop, *inner.stop[1:]))
            held = self.crop(box)
            emit(box, torch.from_numpy(each[:, held].sum(axis=1)).to(dtype))


_SLAB = 16


def players_of(spec: str | LabelMap, question: Question) -> Players:
    """Return players from a text or a label map.

    Parameters
    ----------
    spec
        ``regions``: those of the question, by default the predicted classes with background.
        ``cubes:N``: about N cubes, of equal length in mm on every axis. ``supervoxels:N``: about
        N SLIC supervoxels of the prepared image. ``channels``: image channels.
        ``channels*regions`` (or cubes, supervoxels): every pair of them.
        ``agg2exp_cubes:N``: cubes of ⌊smallest side / N^(1/rank)⌋ voxels, whose numbers start
        again after N, as in the published program: player 1 is then also far away.
        A label map on the model's grid: its regions.
    question
        The image.

    Raises
    ------
    MethodError
        If the text is not understood.
    """
    if isinstance(spec, LabelMap):
        return _of_labels(spec, question)
    check_players(spec)
    channels = question.pipeline.image.channels
    if "*" in spec:
        parts = players_of(spec.partition("*")[2], question)
        n = len(parts)
        steps = (np.arange(len(channels)) * n).reshape(1, -1, *[1] * (parts.index.ndim - 2))
        index = np.where(parts.index < 0, -1, parts.index + steps)
        return Players(question, [f"{c}: {p}" for c in channels for p in parts.names], index)
    shape = question.pipeline.image.grid.shape
    if spec == "regions":
        return _of_labels(question.regions, question)
    if spec == "channels":
        numbers = np.arange(len(channels), dtype=np.int32)
        index = np.broadcast_to(
            numbers.reshape(1, -1, *[1] * len(shape)), (1, len(channels), *shape)
        )
        return Players(question, channels, index)
    kind, _, number = spec.partition(":")
    name, divide = _PARTS[kind]
    labels = divide(question, int(number))
    found, labels = np.unique(labels, return_inverse=True)
    names = [f"{name}_{i + 1}" for i in range(len(found))]
    return Players(question, names, labels.reshape(1, 1, *shape).astype(np.int32))


def check_players(spec: str) -> None:
    """Check a text that names players.

    Raises
    ------
    MethodError
        If it is not understood.
    """
    parts = spec.removeprefix("channels*")
    kind, _, number = parts.partition(":")
    is_counted = kind in _PARTS and number.isdigit() and int(number) > 0
    if not (is_counted or parts == "regions" or spec == "channels"):
        raise MethodError(f"players are {SPECS}; got {spec!r}")


def has_channels(spec: str) -> bool:
    """Whether players of this text are of single image channels."""
    return spec.startswith("channels")


def check_paint(paint: str) -> None:
    """Check the word for how values are drawn.

    Raises
    ------
    MethodError
        If it is none of density and value.
    """
    if paint not in get_args(Paint):
        raise MethodError(f"paint is {' or '.join(get_args(Paint))}, got {paint!r}")


def _of_labels(labels: LabelMap, question: Question) -> Players:
    """Regions in the order of their labels; background (in no region) is a player too."""
    numbers = sorted(labels.names)
    index = np.searchsorted(numbers, labels.layers).astype(np.int32)
    if len(index) > 1:
        in_none = (index == 0).all(axis=0)
        index[index == 0] = -1
        index[0][in_none] = 0
    return Players(question, [labels.names[n] for n in numbers], index[:, None])


def _cubes(question: Question, n: int) -> NDArray[np.int64]:
    grid = question.pipeline.image.grid
    side_mm = float(np.prod(np.multiply(grid.shape, grid.spacing)) / n) ** (1 / grid.rank)
    sides = [
        min(length, max(1, round(side_mm / mm)))
        for length, mm in zip(grid.shape, grid.spacing, strict=True)
    ]
    return _blocks(grid, sides)


def _agg2exp_cubes(question: Question, n: int) -> NDArray[np.int64]:
    grid = question.pipeline.image.grid
    side = int(min(grid.shape) // round(n ** (1 / grid.rank), 9))
    if side < 1:
        raise MethodError(
            f"agg2exp_cubes:{n} needs at least {round(n ** (1 / grid.rank))} voxels along each "
            f"axis, the image has {grid.shape}; use cubes:{n}"
        )
    return np.asarray(_blocks(grid, [side] * grid.rank) % n)


def _blocks(grid: Grid, sides: Sequence[int]) -> NDArray[np.int64]:
    """Give each voxel the number of its block, the last axis running fastest."""
    numbers = np.zeros(grid.shape, np.int64)
    for axis, (length, side) in enumerate(zip(grid.shape, sides, strict=True)):
        n_blocks = -(-length // side)
        step = np.arange(length) // side
        numbers = numbers * n_blocks + step.reshape(
            [-1 if a == axis else 1 for a in range(grid.rank)]
        )
    return numbers


def _supervoxels(question: Question, n: int) -> NDArray[np.int64]:
    """SLIC of the prepared image, intensities scaled to the range of each channel."""
    from skimage.segmentation import slic

    image = question.pipeline.image
    scale = np.maximum(question.intensity_range, np.finfo(np.float32).tiny)
    data = image.data / scale.reshape(-1, *[1] * image.grid.rank)
    labels = slic(
        data, n_segments=n, compactness=0.1, spacing=image.grid.spacing, channel_axis=0,
        convert2lab=False, start_label=0,
    )  # fmt: skip
    return np.asarray(labels, np.int64)


_PARTS = {
    "cubes": ("cube", _cubes),
    "agg2exp_cubes": ("cube", _agg2exp_cubes),
    "supervoxels": ("supervoxel", _supervoxels),
}
