"""From what a user asks to a bound `Question`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxplain.attribution.parse import targets_of
from voxplain.attribution.question import Question
from voxplain.attribution.targets import Target
from voxplain.errors import TargetError
from voxplain.inference.noise import NoiseField
from voxplain.inference.pipeline import Pipeline
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume


def ask(
    pipeline: Pipeline,
    image: Volume,
    targets: str | Target | Sequence[str | Target],
    regions: LabelMap | None,
    seed: int,
) -> Question:
    """Bind targets and regions; the clean prediction is computed here where they need it.

    Parameters
    ----------
    pipeline
        Model and prepared image.
    image
        As it was read; its hash decides the noise, so cases differ and names do not matter.
    targets, regions, seed
        See `voxplain.attribution.explain`.

    Raises
    ------
    TargetError
        If a target is not there, or was asked for twice.
    """
    grid = pipeline.image.grid
    if regions is not None:
        regions = resample_labels(regions, grid)
    elif not pipeline.is_dense:
        regions = LabelMap(np.zeros((1, *grid.shape), np.uint8), grid, {0: "image"})
    noise = NoiseField(seed, case=int(image.sha256()[:16], 16))
    wanted = targets_of(targets, pipeline.model.answers)
    names = [target.name for target in wanted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TargetError(f"a target was asked for twice: {', '.join(twice)}")
    return Question(pipeline, wanted, image.grid, noise, regions)
