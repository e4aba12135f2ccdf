"""The learning rate of each step."""

from __future__ import annotations

import math

from voxplain.train.recipe import OptimiserRecipe


def rate(step: int, n_steps: int, recipe: OptimiserRecipe) -> float:
    """Share of the highest learning rate at a step (0, 1, …): linear warm-up, then half a cosine.

    Differs from the paper in that it falls at every step, not at every epoch.
    """
    n_warm = recipe.warmup * n_steps
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(n_steps - n_warm, 1)))
