"""Recipes from YAML files, presets and ``KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from voxplain.train.presets import PRESETS
from voxplain.train.recipe import Recipe
from voxplain.train.settings_file import checked, put_changes, read_mapping, source_values

_WHOLE = ("classes",)


def read_recipe(
    source: str | Path, changes: Sequence[str] = (), classes: str | Path | None = None
) -> Recipe:
    """Read a recipe and change some of its values.

    Parameters
    ----------
    source
        Name of a preset, or a YAML file: a whole recipe, or ``preset: NAME`` and the values that
        differ from it.
    changes
        Texts ``KEY=VALUE`` with dots between the parts of a key and a value in YAML, e.g.
        ``optimiser.learning_rate=3e-4``, ``crop.size=[64, 64, 64]``.
    classes
        YAML file that maps each class to labels, in place of the recipe's.

    Raises
    ------
    TrainingError
        If there is no such preset or file, a key is unknown, or a value is out of range; all
        faults are in one message.
    """
    presets = {name: recipe_values(recipe) for name, recipe in PRESETS.items()}
    values = source_values(str(source), presets, "recipe", _WHOLE)
    if classes is not None:
        values["classes"] = read_mapping(Path(classes), "classes", "liver: 5, …")
    return checked(Recipe, put_changes(values, changes), f"recipe {source}")


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as YAML that `read_recipe` reads back to an equal one."""
    return yaml.safe_dump(recipe_values(recipe), sort_keys=False, allow_unicode=True, width=88)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values."""
    values = recipe.model_dump(mode="json")
    values["input"]["intensity"] = [
        _untagged(step.model_dump(mode="json", exclude={"channels"}))
        for step in recipe.input.intensity
    ]
    return values


def _untagged(step: dict[str, Any]) -> dict[str, Any]:
    """Return a step as it is written: ``{clip: [a, b]}``."""
    name = step.pop("step")
    if name == "clip":
        return {name: step["bounds"]}
    return {name: {key.removesuffix("_"): value for key, value in step.items()}}
