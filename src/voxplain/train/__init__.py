"""Training a network on a cohort: a recipe in, a MONAI bundle out."""

from voxplain.errors import TrainingError
from voxplain.train.bundle import Trained
from voxplain.train.loop import Moment
from voxplain.train.planning import Plan, plan
from voxplain.train.presets import PRESETS
from voxplain.train.recipe import Recipe
from voxplain.train.recipe_file import read_recipe, recipe_text
from voxplain.train.training import train

__all__ = [
    "PRESETS",
    "Moment",
    "Plan",
    "Recipe",
    "Trained",
    "TrainingError",
    "plan",
    "read_recipe",
    "recipe_text",
    "train",
]
