"""Recipes from YAML files, presets and ``KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from voxplain.errors import TrainingError, all_faults
from voxplain.space.labelmap import nearest
from voxplain.train.presets import PRESETS
from voxplain.train.recipe import Recipe

BASE = "preset"


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
    values = _source(str(source))
    if classes is not None:
        values["classes"] = _mapping(Path(classes), "classes", "liver: 5, …")
    for text in changes:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise TrainingError(f"--set takes KEY=VALUE, e.g. --set epochs=50; got {text!r}")
        _put(values, key.split("."), _yaml(value, f"--set {text}"), text)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise TrainingError(all_faults(f"recipe {source}", _faults(error))) from None


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


def _source(source: str) -> dict[str, Any]:
    if source in PRESETS:
        return recipe_values(PRESETS[source])
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise TrainingError(
            f"no recipe {source!r}{nearest(source, tuple(PRESETS))}; or give a .yaml file"
        )
    given = _mapping(path, "recipe", "epochs: 50, …")
    base = given.pop(BASE, None)
    if base is None:
        return given
    if base not in PRESETS:
        raise TrainingError(f"recipe {path}: no preset {base!r}{nearest(str(base), [*PRESETS])}")
    return _over(recipe_values(PRESETS[base]), given)


def _mapping(path: Path, what: str, example: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{what} {path}: cannot be read as text: {error}") from None
    given = _yaml(text, f"{what} {path}")
    if not isinstance(given, dict):
        raise TrainingError(
            f"{what} {path}: expected a mapping ({example}), got {type(given).__name__}"
        )
    return given


def _over(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put the given values over others, part by part."""
    merged = dict(values)
    for key, value in given.items():
        own = merged.get(key)
        merged[key] = (
            _changed(key, own, value)
            if isinstance(own, dict) and isinstance(value, dict) and key != "classes"
            else value
        )
    return merged


def _changed(key: str, own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    if key == "network" and given.get("name", own["name"]) != own["name"]:
        own = {**own, "arguments": {}}  # those of another network
    return _over(own, given)


def _put(values: dict[str, Any], keys: Sequence[str], value: Any, text: str) -> None:
    *parents, last = keys
    place = values
    for key in parents:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise TrainingError(f"--set {text}: {key} is a value and has no parts")
    if keys == ["network", "name"] and place.get("name") != value:
        place["arguments"] = {}
    place[last] = value


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainingError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _faults(error: ValidationError) -> list[str]:
    faults: list[str] = []
    for fault in error.errors():
        location = tuple(str(part) for part in fault["loc"])
        where = ".".join(location)
        if fault["type"] == "extra_forbidden":
            place = f" in {'.'.join(location[:-1])}" if location[:-1] else ""
            hint = nearest(location[-1], tuple(_part(location[:-1]).model_fields))
            faults.append(f"unknown key {location[-1]!r}{place}{hint}")
        elif fault["type"] == "value_error":
            prefix = f"{where}: " if where else ""
            faults += [prefix + line for line in str(fault["ctx"]["error"]).split("\n")]
        else:
            message = fault["msg"][0].lower() + fault["msg"][1:]
            faults.append(f"{where}: {message.removeprefix('input ')}, got {fault['input']!r}")
    return faults


def _part(location: Sequence[str]) -> type[BaseModel]:
    part: type[BaseModel] = Recipe
    for key in location:
        kind = part.model_fields[key].annotation if key in part.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return part
        part = kind
    return part
