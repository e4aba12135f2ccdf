"""Configurations from presets, YAML files and ``KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from voxplain.counterfactual.config import Config
from voxplain.train.settings_file import checked, put_changes, source_values


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Values of the configurations that come with voxplain, by name."""
    folder = files("voxplain.counterfactual") / "presets"
    return {
        entry.name.removesuffix(".yaml"): yaml.safe_load(entry.read_text(encoding="utf-8"))
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".yaml")
    }


def read_config(source: str, changes: Sequence[str] = ()) -> Config:
    """Read a configuration and change some of its values.

    Parameters
    ----------
    source
        Name of a preset, or a YAML file: a whole configuration, or ``preset: NAME`` and what
        differs.
    changes
        Texts ``KEY=VALUE``, e.g. ``generators.coin.steps=500``.

    Raises
    ------
    TrainingError
        If there is no such preset or file, a key is unknown or a value out of range; all faults
        are in one message.
    """
    values = source_values(source, presets(), "configuration", whole=("generators",))
    return checked(Config, put_changes(values, changes), f"configuration {source}")


def absolute(config: Config) -> Config:
    """Return a configuration whose model folders do not depend on the working directory."""
    values = config.values()
    intensity = values["data"]["intensity"]
    parts = [(intensity, "model"), (values["classifier"], "card"), (values["judge"] or {}, "card")]
    for part, key in parts:
        folder = part.get(key)
        if folder is not None and Path(folder).exists():
            part[key] = str(Path(folder).resolve())
    return Config.model_validate(values)


def config_text(config: Config) -> str:
    """Return a configuration as YAML that `read_config` reads back to an equal one."""
    return yaml.safe_dump(config.values(), sort_keys=False, allow_unicode=True, width=88)
