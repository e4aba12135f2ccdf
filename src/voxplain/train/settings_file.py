"""Settings from YAML files, presets and ``KEY=VALUE``, checked by a pydantic model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError

from voxplain.errors import TrainingError, all_faults

BASE = "preset"
Settings = TypeVar("Settings", bound=BaseModel)


def _word(value: Any) -> Any:
    """Return the word that YAML takes for a truth value: off is false."""
    return "off" if value is False else value


Amp = Annotated[Literal["auto", "fp16", "bf16", "off"], BeforeValidator(_word)]
"""Mixed precision of a training."""


_MOST_NAMES = 30  # more are counted, and the nearest told


def among(name: str, known: Sequence[str]) -> str:
    """End a message that a name is not known: the nearest, and all where they are few.

    Parameters
    ----------
    name
        What was asked for.
    known
        What there is.

    Returns
    -------
    str
        Begins with a semicolon and has no full stop; of more than 30 names the three nearest
        and how many there are.
    """
    if not known:
        return "; there is none"
    if len(known) > _MOST_NAMES:
        close = get_close_matches(name, known, n=3, cutoff=0.0)
        return f"; the nearest of {len(known)} are {', '.join(map(repr, close))}"
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ";"
    return f"{hint} {'Known' if close else 'known'}: {', '.join(known)}"


def source_values(
    source: str, presets: Mapping[str, Mapping[str, Any]], what: str, whole: Collection[str] = ()
) -> dict[str, Any]:
    """Values of a preset, or of a YAML file: whole, or ``preset: NAME`` and what differs.

    Parameters
    ----------
    source
        Name of a preset, or a file.
    presets
        Values by name.
    what
        Word for messages, e.g. ``recipe``.
    whole
        Keys whose mapping a file replaces as a whole, instead of part by part.

    Raises
    ------
    TrainingError
        If there is no such preset or file, or it is not YAML.
    """
    if source in presets:
        return dict(presets[source])
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise TrainingError(
            f"no {what} {source!r}{among(source, tuple(presets))}; or give a .yaml file"
        )
    given = read_mapping(path, what, f"{BASE}: NAME, …")
    base = given.pop(BASE, None)
    if base is None:
        return given
    if base not in presets:
        raise TrainingError(f"{what} {path}: no preset {base!r}{among(str(base), [*presets])}")
    return put_over(presets[base], given, whole)


def read_mapping(path: Path, what: str, example: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises
    ------
    TrainingError
        If it cannot be read, or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TrainingError(f"{what} {path}: cannot be read, there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{what} {path}: cannot be read as text: {error}") from None
    given = _yaml(text, f"{what} {path}")
    if not isinstance(given, dict):
        raise TrainingError(
            f"{what} {path}: expected a mapping ({example}), got {type(given).__name__}"
        )
    return given


def put_over(
    values: Mapping[str, Any], given: Mapping[str, Any], whole: Collection[str] = ()
) -> dict[str, Any]:
    """Put given values over others, part by part; keys of `whole` are replaced entirely.

    Where a part has a ``name`` or ``kind`` and the given one is another, the ``arguments`` of
    the old one are left behind, and with another ``kind`` all of it.
    """
    merged = dict(values)
    for key, value in given.items():
        own = merged.get(key)
        if not (isinstance(own, Mapping) and isinstance(value, Mapping)) or key in whole:
            merged[key] = value
            continue
        if value.get("name", own.get("name")) != own.get("name") and "arguments" in own:
            own = {**own, "arguments": {}}
        if value.get("kind", own.get("kind")) != own.get("kind"):
            own = {}
        merged[key] = put_over(own, value, whole)
    return merged


def put_changes(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return values with each ``KEY=VALUE`` put in: dots between the parts of a key, YAML.

    Raises
    ------
    TrainingError
        If a text is not of that form, or goes into what has no parts.
    """
    for text in changes:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise TrainingError(f"--set takes KEY=VALUE, e.g. --set seed=1; got {text!r}")
        given: Any = _yaml(value, f"--set {text}")
        keys = key.split(".")
        _check_place(values, keys[:-1], text)
        for part in reversed(keys):
            given = {part: given}
        # a value replaces what stood there, also a mapping
        values = put_over(values, given, whole=(keys[-1],))
    return values


def _check_place(values: Mapping[str, Any], parents: Sequence[str], text: str) -> None:
    place: Any = values
    for key in parents:
        place = place.get(key)
        if place is None:
            return
        if not isinstance(place, Mapping):
            raise TrainingError(f"--set {text}: {key} is a value and has no parts")


def checked(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Check values; all faults are in one message.

    Raises
    ------
    TrainingError
        If a key is unknown, or a value is out of range.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise TrainingError(all_faults(where, _faults(error, kind, values))) from None


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainingError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _faults(error: ValidationError, kind: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    faults: list[str] = []
    for fault in error.errors():
        location = tuple(str(part) for part in fault["loc"])
        own = _own_keys(fault["loc"], values)
        where = ".".join(own)
        if fault["type"] == "extra_forbidden":
            place = f" in {'.'.join(own[:-1])}" if own[:-1] else ""
            known = tuple(_part(kind, location[:-1]).model_fields)
            faults.append(f"unknown key {location[-1]!r}{place}{among(location[-1], known)}")
        elif fault["type"] == "value_error":
            prefix = f"{where}: " if where else ""
            faults += [prefix + line for line in str(fault["ctx"]["error"]).split("\n")]
        elif fault["type"] == "tuple_type":
            faults.append(f"{where}: {_list_words(where, fault['input'])}")
        elif fault["type"] in ("union_tag_not_found", "union_tag_invalid"):
            faults.append(_kind_words(own, fault["input"], kind, values))
        else:
            message = fault["msg"][0].lower() + fault["msg"][1:]
            faults.append(f"{where}: {message.removeprefix('input ')}, got {fault['input']!r}")
    return faults


def _own_keys(location: Sequence[str | int], values: Any) -> tuple[str, ...]:
    """Return the keys of a place as a user wrote them: without what pydantic adds for unions."""
    keys: list[str] = []
    for at, key in enumerate(location):
        if isinstance(values, Mapping):
            is_own, is_last = key in values, at == len(location) - 1
            if not is_own and not is_last:
                continue  # the tag of a union
            values = values.get(key)
        elif isinstance(values, Sequence) and not isinstance(values, str) and isinstance(key, int):
            values = values[key] if key < len(values) else None
        else:
            continue  # the member of a union
        keys.append(str(key))
    return tuple(keys)


def _list_words(where: str, given: Any) -> str:
    if isinstance(given, str | int | float):
        return f"expected a list, e.g. {where}=[{given}], got {given!r}"
    return f"expected a list, got {given!r}"


def _kind_words(
    own: Sequence[str], given: Any, kind: type[BaseModel], values: Mapping[str, Any]
) -> str:
    """Say which kinds there are of a part, or which parts there are if one has none."""
    field = next((f for key in own if (f := kind.model_fields.get(key)) is not None), None)
    tags = [tag for model in _models(field and field.annotation) if (tag := _tag(model))]
    where, kinds = ".".join(own), " or ".join(filter(None, (", ".join(tags[:-1]), tags[-1])))
    if isinstance(given, Mapping) and "kind" in given:
        return f"{where}.kind: expected {kinds}, got {given['kind']!r}"
    beside: Any = values
    for key in own[:-1]:
        beside = beside[key]
    others = [key for key in beside if key != own[-1]] if isinstance(beside, Mapping) else []
    if not others:
        return f"{where}: has no kind; give {where}.kind: {kinds}"
    hint = among(own[-1], others)
    return f"no {own[-1]!r} in {'.'.join(own[:-1])}{hint}; for a new one give {where}.kind: {kinds}"


def _part(kind: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """Return the model at a place, as far as the way there leads through plain models."""
    part = kind
    for key in location:
        field = part.model_fields.get(key)
        if field is None:
            continue  # the key of a mapping, or the tag of a union
        models = [m for m in _models(field.annotation) if m is not part]
        tagged = [m for m in models if str(m.model_fields.get("kind")) and _tag(m) in location]
        part = (tagged or models or [part])[0]
    return part


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)
