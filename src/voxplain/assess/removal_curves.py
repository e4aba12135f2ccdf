"""Deletion and insertion: the targets while voxels are removed in the order of a map."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.assess.curves import FRACTIONS, Curves, Mode, checked_fractions
from voxplain.assess.map_peak import map_flags
from voxplain.assess.ranking import (
    Order,
    RankBy,
    Ranking,
    rank_voxels,
    relevance,
)
from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.changed import Change, ChangedValues
from voxplain.attribution.maps import Maps
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes
from voxplain.space.box import Box

_STREAM = 0xDE1E7E  # of the generator: order among equal scores


class Curver:
    """Follows the maps of all methods of one image, and runs no window content twice.

    Parameters
    ----------
    question
        Targets, model and image.
    fill
        What stands in removed voxels; default 0 in the model's intensities. Padding stays.

    Notes
    -----
    Passes: one forward pass for each view of each window and new content of it, of the windows
    that reach a target; a window in which a step changes nothing is not run. `curve_passes` is
    the most that this can be. Of targets that are not linear in the logits a step is computed
    anew where it changes more than half of the windows.
    Memory: one int32 image, one map in float64; of targets that are linear in the logits also one
    number a target for each window content seen.
    """

    def __init__(self, question: Question, fill: Baseline | None = None) -> None:
        self.question = question
        self.clean = np.array([value for value, _ in question.linear])
        self._fill = (Constant() if fill is None else fill).input(question)
        self._changed = ChangedValues(question)

    @cached_property
    def empty(self) -> NDArray[np.float64]:
        """Value of each target on the filled image, (n_targets,)."""
        inner = self.question.pipeline.plan.inner()
        everything = np.ones(inner.shape, np.bool_)
        filled = self.change(self.without(lambda index: everything[index]))
        return np.asarray(self.values([filled])[0])

    # -- changed images ---------------------------------------------------------------
    def without(self, is_removed: Callable[[tuple[slice, ...]], NDArray[np.bool_]]) -> Input:
        """Return the image with the fill in removed voxels; asked of a part of the image."""
        pipeline, fill = self.question.pipeline, self._fill
        inner = pipeline.plan.inner()

        def crop(box: Box) -> torch.Tensor:
            values = pipeline.clean(box).clone()
            common = box.intersect(inner)
            if common is not None:
                gone = torch.from_numpy(np.asarray(is_removed(common.within(inner))))
                index = (slice(None), *common.within(box))
                values[index] = torch.where(gone, fill(common), values[index])
            return values

        return crop

    def change(self, source: Input) -> Change:
        """Return a changed image whose windows are known by their very content."""
        pipeline = self.question.pipeline
        known: dict[int, Hashable] = {}

        def key(window: int) -> Hashable:
            if window not in known:
                box = pipeline.plan.box(window)
                content = source(box)
                same = torch.equal(content, pipeline.clean(box))
                known[window] = None if same else _digest(content)
            return known[window]

        return Change(source, key)

    def values(self, changes: Sequence[Change]) -> NDArray[np.float64]:
        """Value of each target at changed images, (n_changes, n_targets)."""
        if self.question.is_fixed:
            return np.asarray(self._changed.values(changes))
        found = [self._value(change) for change in changes]
        return np.array(found).reshape(len(changes), len(self.clean))

    def _value(self, change: Change) -> NDArray[np.float64]:
        windows = self._changed.windows
        n_changed = sum(change.key(w) is not None for w in windows)
        if 2 * n_changed > len(windows):  # by differences it may take two passes a window
            return np.asarray(self._changed.all_changed([change])[0])
        return np.asarray(self._changed.values([change])[0])

    # -- curves -------------------------------------------------------------------------
    def curves(
        self,
        maps: Maps,
        *,
        fractions: Sequence[float] | int = FRACTIONS,
        mode: Mode = "deletion",
        order: Order = "most",
        block: int = 1,
        by: RankBy = "kind",
    ) -> Curves:
        """Remove (or insert) voxels in the order of each target's map.

        Parameters
        ----------
        maps
            Of this question's targets.
        fractions
            Shares of the voxels, ascending, within 0…1; a number n: n equal steps.
        mode
            ``deletion``: from the image to the filled one. ``insertion``: the other way.
        order, block
            See `rank_voxels`.
        by
            See `relevance`.

        Raises
        ------
        MethodError
            If a setting is none of these, or the maps are of another image.
        """
        steps = checked_fractions(fractions)
        if mode not in get_args(Mode):
            raise MethodError(f"mode is deletion or insertion, got {mode!r}")

        def along(ranking: Ranking, counts: Sequence[int]) -> NDArray[np.float64]:
            found = np.empty((len(counts), len(self.clean)))
            last = ranking.count(1.0)
            changes = {}
            for step, n in enumerate(counts):
                if n in (0, last):
                    is_clean = (n == 0) == (mode == "deletion")
                    found[step] = self.clean if is_clean else self.empty
                else:
                    changes[step] = self.change(self.without(_cut(ranking, n, mode)))
            found[list(changes)] = self.values(list(changes.values()))
            return found

        return self.follow(maps, steps, along, mode=mode, order=order, block=block, by=by)

    def follow(
        self,
        maps: Maps,
        fractions: NDArray[np.float64],
        along: Callable[[Ranking, Sequence[int]], NDArray[np.float64]],
        *,
        mode: Mode,
        order: Order,
        block: int,
        by: RankBy,
    ) -> Curves:
        """Rank each target's map; `along` gives all targets after so many leading cubes."""
        targets = self.question.targets
        shape = self.question.pipeline.plan.inner().shape
        if (len(maps.values), *maps.values.shape[2:]) != (len(targets), *shape):
            raise MethodError(
                f"maps of {len(targets)} targets on an image of shape {shape} were expected, got "
                f"{len(maps.values)} on {maps.values.shape[2:]}; compute them for this question"
            )
        values = np.full((len(targets), len(fractions), len(targets)), np.nan)
        shares = np.tile(fractions, (len(targets), 1))
        flags: list[tuple[str, ...]] = []
        for a, target in enumerate(targets):
            scores = relevance(maps, a, float(self.clean[a] - self.empty[a]), by=by)
            flags.append(map_flags(scores))
            if target.support is not None:
                generator = self.question.noise.generator(_STREAM)
                ranking = rank_voxels(scores, generator, order=order, block=block)
                counts = [ranking.count(fraction) for fraction in fractions]
                shares[a] = [ranking.share(n) for n in counts]
                values[a] = along(ranking, counts)
        return Curves(
            values, shares, fractions, self.clean, self.empty, mode, order, tuple(flags)
        )  # fmt: skip


def removal_curves(
    question: Question,
    maps: Maps,
    *,
    fractions: Sequence[float] | int = FRACTIONS,
    mode: Mode = "deletion",
    fill: Baseline | None = None,
    order: Order = "most",
    block: int = 1,
    by: RankBy = "kind",
) -> Curves:
    """Remove (or insert) voxels in the order of one method's maps; see `Curver.curves`."""
    curver = Curver(question, fill)
    return curver.curves(maps, fractions=fractions, mode=mode, order=order, block=block, by=by)


def curve_passes(
    question: Question, *, n_curves: int = 1, fractions: Sequence[float] | int = FRACTIONS
) -> Passes:
    """Count the most passes that one `Curver` can run for so many calls of `Curver.curves`.

    Fewer are run where a step leaves windows as they were: a map of few voxels, a fill that is
    what stood there already, windows seen before in another curve.
    """
    steps = checked_fractions(fractions)
    n_between = int(((steps > 0) & (steps < 1)).sum())
    n_followed = sum(target.support is not None for target in question.targets)
    n_images = n_curves * n_followed * n_between + 1 + question.is_fixed  # filled; as it is
    n_windows = len(ChangedValues(question).windows)
    return Passes(n_forward=n_images * n_windows * question.pipeline.model.n_views)


def _cut(ranking: Ranking, n: int, mode: Mode) -> Callable[[tuple[slice, ...]], NDArray[np.bool_]]:
    """Tell what is absent once `n` leading cubes are removed (inserted)."""

    def is_absent(index: tuple[slice, ...]) -> NDArray[np.bool_]:
        place = ranking.place[index]
        return np.asarray(place < n if mode == "deletion" else place >= n)

    return is_absent


def _digest(content: torch.Tensor) -> bytes:
    return blake2b(content.contiguous().numpy().tobytes(), digest_size=16).digest()
