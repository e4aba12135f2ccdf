"""Targets after random parts of the image were removed: once for all targets and methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.assess.removed import Removals, cells_of, flat_mask
from voxplain.attribution.baselines import Baseline, Constant
from voxplain.attribution.changed import Change, ChangedValues
from voxplain.attribution.fills import fill_for
from voxplain.attribution.players import Players, check_players, players_of
from voxplain.attribution.question import Question
from voxplain.attribution.targets import ClassTarget, Difference, Target
from voxplain.attribution.where import Predicted
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Passes
from voxplain.space.box import Box

KINDS = ("voxels", "regions", "supervoxels")
"""What is removed; of supervoxels the text goes on with ``:N``."""

_AT_ONCE = 16  # masks held together
_STREAM = 0xFA17F  # of the generator
_MOST_VOXELS = 224**2
_SHARES = (8, 2, 8)  # one in so many parts of each kind is removed


class Remover:
    """Random removals of one image, planned: their passes can be told before they are run.

    Parameters
    ----------
    question
        Targets, model and image.
    kind
        ``voxels``; ``regions``: those of the question, by default the predicted classes with
        background; ``supervoxels:N``: about N SLIC supervoxels.
    n_runs
        Subsets, at least 3; the first ones do not depend on how many there are.
    n_removed
        Parts in a subset, at least 1 and fewer than there are. Default: of voxels 224², at most
        one in 8; of regions one in 2, of supervoxels one in 8, rounded down, at least 1.
    fill
        What stands in removed voxels; default 0 in the model's intensities. Padding stays.
    anew
        Descriptions of the question's targets, in its order: then also the drops are told of
        targets whose predicted mask is that of the perturbed prediction, as Agg²Exp's program
        has it. The explained targets stay as they are.

    Raises
    ------
    MethodError
        If a setting is none of these.

    Notes
    -----
    Subsets of equal size are drawn without replacement, each from a generator of seed, case,
    kind and run. Subsets may repeat where there are few parts. A single region is removed in
    every run: nothing varies, and the metrics have no value.
    Passes: of voxels, one for each run and view of each window that reaches a target; of
    parts, one for each view of each window and content not seen yet (see `ChangedValues`), and
    of targets that are not linear in the logits a run that changes more than half of the
    windows is computed anew.
    Memory: 4 bytes for each run and removed voxel; 16 masks at once; x − fill; of parts one
    int64 image.
    """

    def __init__(
        self,
        question: Question,
        kind: str = "voxels",
        *,
        n_runs: int = 100,
        n_removed: int | None = None,
        fill: Baseline | None = None,
        anew: Sequence[Target] | None = None,
    ) -> None:
        word = kind.partition(":")[0]
        if word not in KINDS or word not in {"supervoxels", kind}:
            raise MethodError(
                f"voxels, regions or supervoxels:N are removed at random; got {kind!r}"
            )
        if n_runs < 3:
            raise MethodError(f"n_runs is at least 3, for a correlation; got {n_runs}")
        if anew is not None and len(anew) != len(question.targets):
            raise MethodError(
                f"{len(question.targets)} targets were expected to be taken anew, got {len(anew)}"
            )
        self._question = question
        self._both = question if anew is None else _with_anew(question, anew)
        self._is_anew = anew is not None
        self._shape = question.pipeline.plan.inner().shape
        self._number = KINDS.index(word)
        self._players: Players | None = None
        fill = Constant() if fill is None else fill
        if word == "voxels":
            self._fill = fill.input(question)
            n_parts = int(np.prod(self._shape))
        else:
            check_players(kind)
            self._players = players_of(kind, question)
            self._fill = fill_for(fill, question, self._players)
            n_parts = len(self._players)
        if n_removed is None:
            n_removed = max(1, n_parts // _SHARES[self._number])
            if word == "voxels":
                n_removed = min(_MOST_VOXELS, n_removed)
        elif not 1 <= n_removed < n_parts:
            raise MethodError(
                f"n_removed is from 1 to {n_parts - 1}, fewer than the {n_parts} {word} of this "
                f"image; got {n_removed}"
            )
        self._n_parts = n_parts
        self._removed = np.stack([self._draw(run, n_removed) for run in range(n_runs)])

    def _draw(self, run: int, n: int) -> NDArray[np.integer]:
        generator = self._question.noise.generator(_STREAM, self._number, run)
        drawn = generator.choice(self._n_parts, n, replace=False, shuffle=False)
        return drawn.astype(np.min_scalar_type(self._n_parts))

    def passes(self) -> Passes:
        """Count what `run` takes, beside the clean prediction."""
        changed = ChangedValues(self._both)
        n_views = self._question.pipeline.model.n_views
        a_run = len(changed.windows) * n_views
        if self._players is None:
            return Passes(n_forward=len(self._removed) * a_run)
        changes = self._changes(self._players)
        anew = [self._is_mostly_new(changed, change) for change in changes]
        few = [change for change, is_new in zip(changes, anew, strict=True) if not is_new]
        return Passes(n_forward=sum(anew) * a_run + changed.passes(few).n_forward)

    def run(self) -> Removals:
        """Predict every perturbed image, once for all targets."""
        changed = ChangedValues(self._both)
        values = self._voxels(changed) if self._players is None else self._parts(changed)
        clean = np.array([value for value, _ in self._both.linear])
        drops = clean - values
        n = len(self._question.targets)
        pipeline = self._question.pipeline
        inner = pipeline.plan.inner()
        cells, parts = (
            (None, np.empty((0, 1), np.int64)) if self._players is None else cells_of(self._players)
        )
        return Removals(
            drops[:, :n], drops[:, n:] if self._is_anew else None, clean[:n], self._removed,
            cells, parts, (pipeline.clean(inner) - self._fill(inner)).numpy(),
        )  # fmt: skip

    def _voxels(self, changed: ChangedValues) -> NDArray[np.float64]:
        found = []
        for first in range(0, len(self._removed), _AT_ONCE):
            rows = self._removed[first : first + _AT_ONCE]
            masks = [torch.from_numpy(flat_mask(self._shape, row)) for row in rows]
            found.append(changed.all_changed([self._without(mask) for mask in masks]))
        return np.concatenate(found)

    def _without(self, mask: torch.Tensor) -> Change:
        pipeline, fill = self._question.pipeline, self._fill
        inner = pipeline.plan.inner()

        def source(box: Box) -> torch.Tensor:
            values = pipeline.clean(box).clone()
            common = box.intersect(inner)
            if common is not None:
                index = (slice(None), *common.within(box))
                gone = mask[common.within(inner)]
                values[index] = torch.where(gone, fill(common), values[index])
            return values

        return Change(source, lambda window: 0)

    def _changes(self, players: Players) -> list[Change]:
        fill: Input = self._fill
        present = np.ones((len(self._removed), len(players)), bool)
        np.put_along_axis(present, self._removed, values=False, axis=1)
        return [players.without(row, fill) for row in present]

    def _is_mostly_new(self, changed: ChangedValues, change: Change) -> bool:
        """Whether differences of stitched logits would take more passes than all windows."""
        windows = changed.windows
        return not self._both.is_fixed and (
            2 * sum(change.key(w) is not None for w in windows) > len(windows)
        )

    def _parts(self, changed: ChangedValues) -> NDArray[np.float64]:
        assert self._players is not None
        changes = self._changes(self._players)
        if self._both.is_fixed:
            return changed.values(changes)
        return np.concatenate([
            changed.all_changed([change])
            if self._is_mostly_new(changed, change)
            else changed.values([change])
            for change in changes
        ])  # fmt: skip


def _with_anew(question: Question, targets: Sequence[Target]) -> Question:
    """Ask for the bound targets and, beside them, those with predicted masks taken anew."""
    other = question.on(question.pipeline)
    other.prediction_logits = question.prediction_logits
    other.targets = [*question.targets, *(_anew(one, question).bind(other) for one in targets)]
    return other


def _anew(target: Target, question: Question) -> Target:
    """Let a predicted mask follow the input; other targets are as they were."""
    if isinstance(target, Difference):
        return Difference(_anew(target.plus, question), _anew(target.minus, question))
    if (
        isinstance(target, ClassTarget)
        and question.pipeline.is_dense
        and target.where == Predicted()
        and target.reduction != "weighted"  # the probability stands in place of the mask
    ):
        return replace(target, where=Predicted(hold=False))
    return target
