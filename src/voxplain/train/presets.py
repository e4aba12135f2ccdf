"""Recipes that come with voxplain."""

from __future__ import annotations

from collections.abc import Mapping

from voxplain.train.recipe import (
    AugmentationRecipe,
    CropRecipe,
    InputRecipe,
    LossRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
    ValidationRecipe,
)

_HU = ({"clip": [-1024, 1024]}, {"scale": {"from": [-1024, 1024], "to": [0, 1]}})

AGG2EXP = Recipe(
    name="agg2exp",
    network=NetworkRecipe(name="swin_unetr"),
    input=InputRecipe.model_validate({"spacing": (1.5, 1.5, 1.5), "intensity": _HU}),
    augmentation=AugmentationRecipe(zoom=0.3, rotate90=0.1, shift=0.2),
)
"""Chest CT of Agg²Exp (WACV 2025): every other value is the default of `Recipe`."""

IES = Recipe(
    name="ies",
    network=NetworkRecipe(name="unet"),
    input=InputRecipe.model_validate(
        {"spacing": (1.0, 1.0, 1.0), "intensity": ({"zscore": {"over": "nonzero"}},)}
    ),
    loss=LossRecipe(name="ndice_focal"),
    augmentation=AugmentationRecipe(rotate90=0.1, shift=0.2),
    validation=ValidationRecipe(blend="gaussian"),
)
"""White-matter lesions in FLAIR and MPRAGE of IES (Sci. Rep. 2026).

Networks, spacing, intensities, windows and loss are the paper's; what it does not tell (rate,
epochs, augmentation) is as in `AGG2EXP`, without the zoom.
"""

UNET = Recipe(
    name="unet",
    network=NetworkRecipe(
        name="unet",
        arguments={"channels": [16, 32, 64, 128], "strides": [2, 2, 2], "norm": "instance"},
    ),
    input=InputRecipe.model_validate({"intensity": _HU}),
    crop=CropRecipe(size=(48, 48, 32), per_case=4, centre="class", to_foreground=False),
    loss=LossRecipe(over_batch=True, by_rarity=True, smooth=1.0),
    optimiser=OptimiserRecipe(learning_rate=4e-3, warmup=0.2, gradient_norm=5.0),
    validation=ValidationRecipe(every=10, blend="gaussian"),
    batch=4,
    epochs=70,
)
"""A small U-Net for CT of a few millimetres, trained on a CPU in minutes."""

PRESETS: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (AGG2EXP, IES, UNET)}
