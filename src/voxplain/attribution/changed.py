"""Targets' values at inputs that differ from the image in places; only those windows are run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.attribution.question import Question
from voxplain.inference.pipeline import Input, Job, Passes

_TOGETHER = 4  # windows of one change that are run at once; even, so a window keeps both contents

Seen = tuple[int, Hashable]
"""A window and what is changed in it (None: nothing)."""


@dataclass(frozen=True)
class Change:
    """An input that differs from the clean one in places.

    Parameters
    ----------
    source
        The changed input volume.
    key
        What a window sees of the change: windows get equal keys for equal contents, and None
        where nothing in them differs from the clean image. Two changes given to one
        `ChangedValues` must not share a key in a window where they differ.
    """

    source: Input
    key: Callable[[int], Hashable]


class ChangedValues:
    """Values of every target of a question at changed inputs.

    Targets that are linear in the logits (a held mask and score ``logit``) need one number a
    window and content, which is kept: T(x') = T(x) + Σ_w (t_w(x') − t_w(x)), over the windows
    that differ. Others need the stitched logits, L' = L + Σ_w g_w/Σg (ℓ_w(x') − ℓ_w(x)) on
    their support; window logits are kept, the least recently used dropped first, in as much
    memory as the stitched logits take.

    Parameters
    ----------
    question
        Targets, model and image.

    Notes
    -----
    Passes: one forward pass for each view of each window and content not kept, the clean content
    of a window that changes among them.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._pipeline = question.pipeline
        self._cotangents = [cotangent for _, cotangent in question.linear]
        self._clean = np.array([value for value, _ in question.linear])
        self._active = self._pipeline.active_windows(self._cotangents)
        self._is_linear = question.is_fixed
        self._numbers: dict[Seen, NDArray[np.float64]] = {}
        self._logits: OrderedDict[Seen, torch.Tensor] = OrderedDict()
        if not self._is_linear:
            box = question.support
            windows = [] if box is None else self._pipeline.windows_for(box)
            _ = question.support_logits
            self._active = {w: list(range(len(question.targets))) for w in windows}

    @property
    def windows(self) -> list[int]:
        """Windows that a target depends on."""
        return list(self._active)

    # -- what has to be run -----------------------------------------------------------
    def passes(self, changes: Sequence[Change]) -> Passes:
        """Count the passes that `values` would run for these changes, in this order, from new."""
        if self._is_linear:
            n_runs = len({seen for change in changes for seen in self._needed(change)})
        else:
            n_runs, kept = 0, OrderedDict[Seen, None]()
            for change in changes:
                for part in _parts(list(self._needed(change))):
                    n_runs += sum(seen not in kept for seen in part)
                    for seen in part:
                        kept[seen] = None
                        kept.move_to_end(seen)
                    while len(kept) > self._n_kept:
                        kept.popitem(last=False)
        return Passes(n_forward=n_runs * self._pipeline.model.n_views)

    def _needed(self, change: Change) -> Iterator[Seen]:
        """Windows that differ, changed and clean."""
        for w in self._active:
            key = change.key(w)
            if key is not None:
                yield w, key
                yield w, None

    @property
    def _n_kept(self) -> int:
        """Windows whose logits take as much memory as the stitched logits of the volume."""
        return max(_TOGETHER, self._pipeline.inner.n_voxels // self._pipeline.plan.box(0).n_voxels)

    # -- values -----------------------------------------------------------------------
    def values(self, changes: Sequence[Change]) -> NDArray[np.float64]:
        """Return the value of each target at each changed input, (n_changes, n_targets)."""
        if self._is_linear:
            return self._linear_values(changes)
        return np.array([self._value(change) for change in changes]).reshape(
            len(changes), len(self._clean)
        )

    def all_changed(self, changes: Sequence[Change]) -> NDArray[np.float64]:
        """Return values at inputs that differ from the image in every window; nothing is kept.

        (n_changes, n_targets); one forward pass for each view of each window and change.
        """
        if not self._is_linear:
            return self._whole_values(changes)
        values = np.zeros((len(changes), len(self._clean)))
        for w in self._active:
            values += self.window_values(changes, w)
        return values

    def _whole_values(self, changes: Sequence[Change]) -> NDArray[np.float64]:
        found = np.zeros((len(changes), len(self._clean)))
        box = self._question.support
        if box is None:
            return found
        for i, change in enumerate(changes):
            logits = self._pipeline.logits(change.source, box)
            for t, target in enumerate(self._question.targets):
                if target.support is not None:
                    part = logits[(slice(None), *target.support.within(box))]
                    found[i, t] = target.linearise(part)[0]
        return found

    def window_values(self, changes: Sequence[Change], window: int) -> NDArray[np.float64]:
        """Return what one window adds to targets that are linear: (n_changes, n_targets).

        The targets' values are sums of these over the windows, so a game over regions is a sum
        of the windows' games. Nothing is kept.
        """
        assert self._is_linear
        views = range(self._pipeline.model.n_views)
        jobs: list[Job] = [(v, window, i) for v in views for i in range(len(changes))]
        sources = [change.source for change in changes]
        found = self._pipeline.scores(jobs, sources, self._cotangents, self._active)
        return np.asarray(found.reshape(len(views), len(changes), -1).sum(0))

    def _linear_values(self, changes: Sequence[Change]) -> NDArray[np.float64]:
        sources: list[Input] = []
        wanted: dict[Seen, int] = {}
        for change in changes:
            new = [seen for seen in self._needed(change) if seen not in self._numbers]
            for seen in new:
                if seen not in wanted:
                    wanted[seen] = len(sources)
                    sources.append(self._pipeline.clean if seen[1] is None else change.source)
        views = range(self._pipeline.model.n_views)
        order = sorted(wanted, key=lambda seen: seen[0])
        jobs = [(v, seen[0], wanted[seen]) for v in views for seen in order]
        found = self._pipeline.scores(jobs, sources, self._cotangents, self._active)
        numbers = found.reshape(len(views), len(order), len(self._clean)).sum(0)
        self._numbers.update(zip(order, numbers, strict=True))
        values = np.tile(self._clean, (len(changes), 1))
        for i, change in enumerate(changes):
            for w, key in self._needed(change):
                values[i] += self._numbers[w, key] if key is not None else -self._numbers[w, None]
        return values

    def _value(self, change: Change) -> list[float]:
        """Value of each target from stitched logits."""
        box = self._question.support
        if box is None:
            return [0.0] * len(self._clean)
        logits = self._question.support_logits.clone()
        for part in _parts(list(self._needed(change))):
            self._run(part, change.source)
            for w, key in part:
                common = self._pipeline.output_box(w).intersect(box)
                assert common is not None
                sign = -1.0 if key is None else 1.0
                logits[(slice(None), *common.within(box))] += sign * self._logits[w, key]
                self._logits.move_to_end((w, key))
            while len(self._logits) > self._n_kept:
                self._logits.popitem(last=False)
        return [
            target.linearise(logits[(slice(None), *target.support.within(box))])[0]
            if target.support is not None
            else 0.0
            for target in self._question.targets
        ]

    def _run(self, needed: Sequence[Seen], source: Input) -> None:
        """Run what is not kept; window logits are kept weighted, mean over views."""
        pipeline, box = self._pipeline, self._question.support
        assert box is not None
        new = [seen for seen in needed if seen not in self._logits]
        sources = [pipeline.clean, source]
        views = range(pipeline.model.n_views)
        jobs = [(v, w, int(key is not None)) for v in views for w, key in new]
        sums: dict[Seen, torch.Tensor] = {}

        def run(part: Sequence[Job]) -> None:
            batch = pipeline.batch(part, sources)
            with torch.no_grad():
                logits = pipeline.forward(batch, part[0][0]).cpu()
            for (_, w, i), values in zip(part, logits, strict=True):
                common = pipeline.output_box(w).intersect(box)
                assert common is not None
                inside = (slice(None), *common.within(pipeline.output_box(w)))
                weighted = values[inside] * pipeline.share(w)[inside[1:]]
                seen = (w, keys[w] if i else None)
                sums[seen] = sums[seen] + weighted if seen in sums else weighted
            pipeline.count(len(part))

        keys = {w: key for w, key in needed if key is not None}
        pipeline.in_batches(jobs, run)
        self._logits.update(sums)


def _parts(needed: Sequence[Seen]) -> Iterator[Sequence[Seen]]:
    for start in range(0, len(needed), _TOGETHER):
        yield needed[start : start + _TOGETHER]
