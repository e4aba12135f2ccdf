"""What is lost when a box of the image, or one of its parts, is covered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np
import torch

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.changed import Change, ChangedValues
from voxplain.attribution.fills import PartFill, fill_for
from voxplain.attribution.games import player_rows
from voxplain.attribution.method import Outcome
from voxplain.attribution.players import (
    Paint,
    Players,
    check_paint,
    check_players,
    has_channels,
    players_of,
)
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes
from voxplain.inference.rolling import Emit
from voxplain.records.attribution import Kind
from voxplain.space.box import Box

_AT_ONCE = 64  # boxes whose values are asked for together


@dataclass(frozen=True)
class Occlusion:
    """What the target loses when a box is covered: T(x) − T(x with the box filled).

    With Δ_B the loss of box B, and n(v) boxes that hold voxel v: a(v) = 1/n(v) Σ_B Δ_B/|B|
    (density) or 1/n(v) Σ_B Δ_B (value).

    Parameters
    ----------
    size
        Side of the box in voxels of the model's grid; a box is cut where the image ends.
    stride
        Voxels from box to box; none: the size, so that boxes lie side by side.
    per_channel
        Cover one image channel at a time.
    fill
        What stands in the box; default 0 in the model's intensities.
    paint
        ``density``: a box's loss is dealt out over its voxels, so boxes side by side sum to all
        losses. ``value``: every voxel holds the mean loss, as captum draws it.

    Notes
    -----
    Passes: for each box the windows that it touches and that matter to a target, and each
    such window once as it is, times the views; targets that are not linear in the logits run
    windows as they are again where their logits did not fit the kept ones. Memory: one map
    a target. Padding is never covered. Losses of single boxes need not sum to
    T(x) − T(all covered); no gap is told.

    References
    ----------
    Zeiler & Fergus 2014, arXiv 1311.2901, section 4.2.
    """

    size: int = 16
    stride: int | None = None
    per_channel: bool = False
    fill: Baseline = field(default_factory=Constant)
    paint: Paint = "density"

    name: ClassVar[str] = "occlusion"
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    is_adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_paint(self.paint)
        if self.size < 1:
            raise MethodError(f"size is at least 1 voxel, got {self.size}")
        if self.stride is not None and not 1 <= self.stride <= self.size:
            raise MethodError(
                f"stride is 1 to size={self.size} voxels, for a larger one leaves voxels that are "
                f"never covered; got {self.stride}"
            )

    @property
    def has_channels(self) -> bool:
        """Whether channels are covered one at a time."""
        return self.per_channel

    def passes(self, question: Question) -> Passes:
        """Windows that boxes touch, and each such window as it is, times the views."""
        return ChangedValues(question).passes(self._changes(question)[1])

    def _changes(self, question: Question) -> tuple[list[tuple[Box, int | None]], list[Change]]:
        """Every box with its channel (None: all), and the image with it filled."""
        pipeline = question.pipeline
        inner = pipeline.plan.inner()
        step = self.size if self.stride is None else self.stride
        sides = [min(self.size, n) for n in inner.shape]
        starts = [
            range(0, max(1, -(-(n - side) // step) * step + 1), step)
            for n, side in zip(inner.shape, sides, strict=True)
        ]
        whole = Box.whole(inner.shape)
        channels = range(pipeline.image.n_channels) if self.per_channel else (None,)
        places: list[tuple[Box, int | None]] = []
        for start in itertools.product(*starts):
            stop = tuple(a + side for a, side in zip(start, sides, strict=True))
            box = Box(start, stop).intersect(whole)
            assert box is not None
            places += [(box.shift(inner.start), channel) for channel in channels]
        if isinstance(self.fill, PartFill):
            self.fill.check(pipeline.image)
            filled = lru_cache(_AT_ONCE)(partial(self._filled, question, self.fill))
            fills = [self._around(question, filled, box) for box, _ in places]
        else:
            fills = [self.fill.input(question)] * len(places)
        covered = [
            self._covered(question, fill, *place) for place, fill in zip(places, fills, strict=True)
        ]
        return places, covered

    def _covered(self, question: Question, fill: Input, box: Box, channel: int | None) -> Change:
        pipeline = question.pipeline
        which = slice(None) if channel is None else slice(channel, channel + 1)

        def source(crop: Box) -> torch.Tensor:
            values = pipeline.clean(crop).clone()
            common = crop.intersect(box)
            if common is not None:
                index = (which, *common.within(crop))
                values[index] = fill(crop)[index]
            return values

        def key(window: int) -> Hashable:
            common = pipeline.plan.box(window).intersect(box)
            if common is None:
                return None
            # an inpainted box also depends on what of it lies outside of the window
            return (box if isinstance(self.fill, PartFill) else common, channel)

        return Change(source, key)

    def _filled(self, question: Question, fill: PartFill, box: Box) -> torch.Tensor:
        """Inpainted values of one box, (n_channels, *box.shape)."""
        pipeline = question.pipeline
        start = pipeline.plan.inner().start
        grid = pipeline.image.grid
        near = fill.near(box.shift([-a for a in start]), grid).shift(start)
        is_part = np.zeros(near.shape, np.bool_)
        is_part[box.within(near)] = True
        channels = pipeline.clean(near).numpy()
        filled = [fill.around(own, is_part, grid)[box.within(near)] for own in channels]
        return torch.from_numpy(np.stack(filled))

    def _around(self, question: Question, filled: Callable[[Box], torch.Tensor], box: Box) -> Input:
        """Image in which one box is inpainted."""
        pipeline = question.pipeline

        def crop(asked: Box) -> torch.Tensor:
            values = pipeline.clean(asked).clone()
            common = asked.intersect(box)
            if common is not None:
                every = slice(None)
                values[(every, *common.within(asked))] = filled(box)[(every, *common.within(box))]
            return values

        return crop

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        places, changes = self._changes(question)
        changed = ChangedValues(question)
        clean = np.array([value for value, _ in question.linear])
        inner = question.pipeline.plan.inner()
        n_channels = question.pipeline.image.n_channels if self.per_channel else 1
        shape = (n_channels, *inner.shape)
        maps = torch.zeros((len(clean), *shape), dtype=question.pipeline.compute.dtype)
        counts = torch.zeros(shape, dtype=maps.dtype)
        for first in range(0, len(places), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            losses = clean - changed.values(changes[part])
            for (box, channel), loss in zip(places[part], losses, strict=True):
                each = loss / box.n_voxels if self.paint == "density" else loss
                which = slice(None) if channel is None else slice(channel, channel + 1)
                place = (which, *box.within(inner))
                values = torch.from_numpy(each).to(maps.dtype)
                maps[(slice(None), *place)] += values.reshape(-1, *[1] * len(shape))
                counts[place] += 1
        emit(inner, maps / counts)
        return Outcome(settings={"n_boxes": len(places)})


@dataclass(frozen=True)
class Ablation:
    """What the target loses when one part is removed: T(x) − T(x without the part).

    Parameters
    ----------
    players
        The parts: ``regions`` (default the predicted classes), ``channels``, ``cubes:N``, … (see
        `players_of`).
    fill
        What stands in place of the part; default 0 in the model's intensities.
    paint
        ``density``: a part's loss is dealt out over its voxels, so that regions sum; ``value``:
        every voxel holds it.

    Notes
    -----
    Passes: for each part the windows that hold a voxel of it and matter to a target, and each
    such window once as it is (for targets that are not linear in the logits: again where their
    logits did not fit the kept ones), times the views. Losses of single parts need not sum to
    T(x) − T(all removed); no gap is told. `shapley` is the mean over all contexts.

    References
    ----------
    Zeiler & Fergus 2014, arXiv 1311.2901, section 4.2, for boxes; captum's FeatureAblation.
    """

    players: str = "regions"
    fill: Baseline = field(default_factory=Constant)
    paint: Paint = "density"

    name: ClassVar[str] = "ablation"
    kind: ClassVar[Kind] = "contribution"
    unit: ClassVar[str] = "{}"
    is_adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_players(self.players)
        check_paint(self.paint)

    @property
    def has_channels(self) -> bool:
        """Whether parts are of single channels."""
        return has_channels(self.players)

    def passes(self, question: Question) -> Passes:
        """Windows that hold a part, and each such window as it is, times the views."""
        players = players_of(self.players, question)
        same = question.pipeline.clean  # what a window sees does not depend on the fill
        return ChangedValues(question).passes(self._changes(players, same))

    def _changes(self, players: Players, fill: Input) -> Sequence[Change]:
        return [players.without(row, fill) for row in ~np.eye(len(players), dtype=bool)]

    def attribute(self, question: Question, emit: Emit) -> Outcome:
        """Compute the maps of all targets."""
        players = players_of(self.players, question)
        clean = np.array([value for value, _ in question.linear])
        changes = self._changes(players, fill_for(self.fill, question, players))
        values = (clean - ChangedValues(question).values(changes)).T
        players.paint(values, emit, is_density=self.paint == "density")
        return Outcome(players=player_rows(question, players, values))
