"""Settings and methods as a command line or a file names them: ``smoothgrad:n=8:noise=0.1``."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.attribution.method import Method
from voxplain.attribution.methods import method_of
from voxplain.errors import MethodError


def key_values(texts: Sequence[str], option: str) -> dict[str, str]:
    """Split texts ``KEY=VALUE`` of an option.

    Raises
    ------
    MethodError
        If a text is not of that form, or a key comes twice.
    """
    settings: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise MethodError(f"{option} takes KEY=VALUE, e.g. {option} n=8; got {text!r}")
        if key in settings:
            raise MethodError(f"{option} {key}=… is given twice: {settings[key]!r} and {value!r}")
        settings[key] = value
    return settings


def methods_of(texts: Sequence[str], option: str) -> dict[str, Method]:
    """Methods of texts ``NAME[:KEY=VALUE]…`` by their label: the name, or the text if twice.

    Raises
    ------
    MethodError
        If a method or a setting is unknown, or a text comes twice.
    """
    names = [text.partition(":")[0] for text in texts]
    methods: dict[str, Method] = {}
    for name, text in zip(names, texts, strict=True):
        label = name if names.count(name) == 1 else text
        if label in methods:
            raise MethodError(f"{option} {text} is given twice")
        methods[label] = method_of(name, key_values(settings_in(text), f"{option} {name}:"))
    return methods


def settings_in(text: str) -> list[str]:
    """Return the texts ``KEY=VALUE`` of ``NAME[:KEY=VALUE]…``."""
    settings: list[str] = []
    for part in filter(None, text.partition(":")[2].split(":")):
        if "=" in part or not settings:
            settings.append(part)
        else:  # of a value, e.g. players=cubes:64
            settings[-1] += f":{part}"
    return settings
