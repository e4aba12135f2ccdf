"""How many millimetres of surroundings a model needs to find a lesion."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch

from voxplain.attribution.baselines import Baseline, Constant
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Input, Job
from voxplain.lesions.case import LesionCase
from voxplain.lesions.context_inputs import Amount, ContextFill, Mode, Surroundings, fill_name
from voxplain.records.lesion_tables import CONTEXT
from voxplain.regions.lesion import Lesion

DISTANCES_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0)
"""Distances that are asked for unless others are named."""

PAPER_STEPS = tuple(range(1, 35))
"""Voxel steps of Spagnolo et al., with the fill 0 and mode ``keep``."""

_MOST_NUMBERS = 2**25
"""Logits of a lesion's voxels that are held at once, over all distances."""


def context(
    case: LesionCase,
    *,
    distances_mm: Sequence[float] = DISTANCES_MM,
    steps: Sequence[int] | None = None,
    fill: Baseline | None = None,
    modes: Sequence[Mode] = ("keep",),
    lesions: Sequence[Lesion] | None = None,
    patient: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Show the model each lesion with more and more of its surroundings.

    Parameters
    ----------
    case
        Model, image and lesions.
    distances_mm
        How far the surroundings reach: distance of a voxel's centre to that of the nearest
        voxel of the lesion, in mm, on grids of any spacing and direction.
    steps
        In place of `distances_mm`: numbers of dilations of the lesion by its 18 neighbours (2D:
        8). n steps hold all voxels within n times the smallest spacing, and the table tells
        this distance.
    fill
        What stands where the image is taken away; default 0 in the model's intensities. See
        `voxplain.lesions.context_inputs.ContextFill` for what `Inpainted` does, and others that
        continue the surroundings, which serve the mode ``remove`` alone.
    modes
        ``keep``: the image is kept on the lesion and so much around it, the rest is filled; the
        whole image comes last, at inf. ``remove``: what is outside of the lesion and so near
        is filled; the whole image comes first, at 0.
    lesions
        Default: all of the case, controls too.
    patient
        What is the same for all scans of one patient; default the case's name.
    progress
        Called with the passes done and in all.

    Returns
    -------
    pandas.DataFrame
        Columns `CONTEXT`; a row a lesion, mode and distance. Probability: of the lesions' class
        over the lesion's own voxels, NaN for a model without activation. ``is_detected``:
        some voxel of the lesion is still one of a lesion by the case's rule.

    Raises
    ------
    MethodError
        If distances, steps or modes are none, or not what they should be; if the fill does not
        fit the image, or the mode.

    Notes
    -----
    Only windows that hold a voxel of the lesion are run, each once for every content that it
    sees, times the views; where all of them see the image as it is, nothing is run. Memory:
    one batch, and the logits of the lesion's voxels.

    References
    ----------
    Spagnolo et al. 2026, arXiv 2406.09335: mode ``keep``, fill 0, steps 1 to 34.
    """
    amounts = _amounts(case, distances_mm, steps, modes)
    chosen = case.lesions if lesions is None else list(lesions)
    taken = ContextFill(case, Constant() if fill is None else fill)
    taken.check(amounts)
    pipeline = case.pipeline
    _ = case.logits  # its passes come before those that are counted here
    n_jobs = sum(
        len(jobs) for lesion in chosen for _, jobs in _plans(_Asked(case, lesion, taken, amounts))
    )
    total = pipeline.passes.total + n_jobs * pipeline.model.n_views
    before = pipeline.on_pass

    def tell(n: int) -> None:
        before(n)
        if progress is not None:
            progress(pipeline.passes.total, total)

    rows: list[dict[str, Any]] = []
    pipeline.on_pass = tell
    try:
        for lesion in chosen:
            rows += _rows(_Asked(case, lesion, taken, amounts))
    finally:
        pipeline.on_pass = before
    same = {
        "case": case.image.name, "patient": patient or case.image.name,
        "model": pipeline.info.name, "fill": fill_name(taken.fill),
    }  # fmt: skip
    frame = pd.DataFrame([{**same, **row} for row in rows], columns=list(CONTEXT))
    kinds = {"n_steps": "Int64", "distance_mm": "float64", "is_detected": "bool"}
    return frame.astype(kinds)


def _amounts(
    case: LesionCase, distances_mm: Sequence[float], steps: Sequence[int] | None,
    modes: Sequence[Mode],
) -> list[Amount]:  # fmt: skip
    """Every amount once, by mode and distance, the whole image among them."""
    wrong = [mode for mode in modes if mode not in get_args(Mode)]
    if wrong or not modes:
        raise MethodError(f"modes are keep and remove, got {wrong or 'none'}")
    made: list[tuple[float, int | None]]
    if steps is None:
        if not len(distances_mm) or not all(d >= 0 for d in distances_mm):
            raise MethodError(
                f"distances are at least 0 mm, e.g. 0,2,5,10; got {list(distances_mm) or 'none'}"
            )
        made = [(float(d), None) for d in distances_mm if math.isfinite(d)]
    else:
        if not len(steps) or not all(n >= 0 and n == int(n) for n in steps):
            raise MethodError(
                f"steps are whole numbers of at least 0, e.g. 1 to 34; got {list(steps) or 'none'}"
            )
        least = min(case.grid.spacing)
        made = [(int(n) * least, int(n)) for n in steps]
    found = []
    for mode in dict.fromkeys(modes):
        whole = (math.inf, None) if mode == "keep" else (0.0, None if steps is None else 0)
        found += [Amount(mode, *one) for one in sorted({*made, whole}, key=lambda pair: pair[0])]
    return found


@dataclass(frozen=True)
class _Asked:
    """One lesion and what is asked about it."""

    case: LesionCase
    lesion: Lesion
    fill: ContextFill
    amounts: list[Amount]

    def surroundings(self) -> Surroundings:
        return Surroundings(self.case, self.lesion, self.fill, self.amounts)

    def places(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Windows that hold the lesion: which of its voxels, and where in the window.

        Voxels count in the order of its mask, places in the flattened window.
        """
        pipeline = self.case.pipeline
        box = self.case.padded(self.lesion.box)
        index = np.argwhere(self.lesion.mask) + np.asarray(box.start)
        found = {}
        for w in pipeline.windows_for(box):
            output = pipeline.output_box(w)
            local = index - np.asarray(output.start)
            held = ((local >= 0) & (local < output.shape)).all(axis=1)
            if held.any():
                flat = np.ravel_multi_index(tuple(local[held].T), output.shape)
                found[w] = torch.from_numpy(np.flatnonzero(held)), torch.from_numpy(flat)
        return found


_Content = tuple[int, Hashable]
"""A window and what it sees."""

_Jobs = dict[_Content, list[int]]
"""Contents that have to be run, with the amounts (by their place in a part) that they serve."""


def _plans(asked: _Asked) -> Iterator[tuple[list[Amount], _Jobs]]:
    """Amounts whose logits are held at once, and what has to be run for them."""
    surroundings, windows = asked.surroundings(), asked.places()
    n_numbers = asked.case.pipeline.info.n_classes * asked.lesion.n_voxels
    most = max(1, _MOST_NUMBERS // n_numbers)
    for first in range(0, len(asked.amounts), most):
        part = asked.amounts[first : first + most]
        jobs: _Jobs = {}
        for i, amount in enumerate(part):
            keys = {w: surroundings.key(w, amount) for w in windows}
            if all(key is None for key in keys.values()):
                continue  # the model sees the image as it is
            for content in keys.items():
                jobs.setdefault(content, []).append(i)
        yield part, jobs


def _rows(asked: _Asked) -> Iterator[dict[str, Any]]:
    """One row an amount."""
    case, lesion = asked.case, asked.lesion
    clean = case.logits[(slice(None), *lesion.box.slices)][:, torch.from_numpy(lesion.mask)]
    surroundings = asked.surroundings()
    for amounts, jobs in _plans(asked):
        changed = {i for served in jobs.values() for i in served}
        stitched = _stitched(asked, surroundings, amounts, jobs)
        for i, amount in enumerate(amounts):
            logits = stitched[i] if i in changed else clean
            probability = case.probability(logits)
            n_detected = int(np.count_nonzero(case.detected(logits)))
            yield {
                "instance": lesion.name,
                "type": lesion.type,
                "mode": amount.mode,
                "distance_mm": amount.distance_mm,
                "n_steps": amount.n_steps,
                "probability_mean": float(probability.mean(dtype=np.float64)),
                "probability_max": float(probability.max()),
                "n_detected_voxels": n_detected,
                "is_detected": n_detected > 0,
                "n_voxels": lesion.n_voxels,
            }


def _stitched(
    asked: _Asked, surroundings: Surroundings, amounts: list[Amount], wanted: _Jobs
) -> torch.Tensor:
    """Blended logits of the lesion's voxels, (n_amounts, n_classes, n_voxels)."""
    pipeline = asked.case.pipeline
    windows = asked.places()
    shape = (len(amounts), pipeline.info.n_classes, asked.lesion.n_voxels)
    stitched = torch.zeros(shape, dtype=pipeline.compute.dtype)
    contents = list(wanted)
    sources: list[Input] = [
        pipeline.clean if key is None else surroundings.source(amounts[wanted[w, key][0]])
        for w, key in contents
    ]

    def run(jobs: Sequence[Job]) -> None:
        batch = pipeline.batch(jobs, sources)
        with torch.no_grad():
            logits = pipeline.forward(batch, jobs[0][0])
        for (_, w, i), values in zip(jobs, logits, strict=True):
            voxels, flat = windows[w]
            own = values.flatten(1)[:, flat.to(values.device)].cpu()
            own = own * pipeline.share(w).flatten()[flat]
            for amount in wanted[contents[i]]:
                stitched[amount][:, voxels] += own
        pipeline.count(len(jobs))

    views = range(pipeline.model.n_views)
    pipeline.in_batches([(v, w, i) for v in views for i, (w, _) in enumerate(contents)], run)
    return stitched
