"""Reading ``model.yaml``, with every fault of it at once and in plain words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from voxplain.errors import ModelError, all_faults
from voxplain.models.card import Card, InputCard, NetworkCard, WindowCard
from voxplain.space.labelmap import nearest

CARD = "model.yaml"


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice (plain YAML keeps the last, silently)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_card(path: Path) -> Card:
    """Read and check a ``model.yaml``.

    Raises
    ------
    ModelError
        If there is no such file, it is not YAML, or it breaks the schema; every fault of the
        card is in the one message.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError(f"no model card: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read as text: {error}") from None
    try:
        raw = yaml.load(text, _UniqueKeys)  # noqa: S506 (a subclass of SafeLoader)
    except yaml.YAMLError as error:
        raise ModelError(f"{path}: not valid YAML: {_yaml_fault(error)}") from None
    if not isinstance(raw, dict):
        raise ModelError(
            f"{path}: a model card is a mapping (name: …, kind: …), got {type(raw).__name__}"
        )
    try:
        return Card.model_validate(raw)
    except ValidationError as error:
        raise ModelError(all_faults(str(path), card_faults(error, raw))) from None


def card_faults(error: ValidationError, raw: Mapping[str, Any]) -> list[str]:
    """One plain sentence for each fault of a card, those that hide behind others included."""
    faults = sentences(error)
    unknown = [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
    if unknown and len(unknown) == error.error_count():
        try:  # checks between settings run only once every key is known
            Card.model_validate(_without(raw, unknown))
        except ValidationError as hidden:
            faults += sentences(hidden)
    return faults


def _without(raw: Mapping[str, Any], locations: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    heads = {loc[0] for loc in locations if len(loc) == 1}
    kept = {key: value for key, value in raw.items() if key not in heads}
    for key, value in kept.items():
        inner = [loc[1:] for loc in locations if loc[0] == key and len(loc) > 1]
        if inner and isinstance(value, Mapping):
            kept[key] = _without(value, inner)
    return kept


def sentences(error: ValidationError) -> list[str]:
    """One plain sentence for each fault that pydantic found."""
    return [line for fault in error.errors() for line in _sentence(dict(fault))]


_PARTS: dict[tuple[int | str, ...], type[BaseModel]] = {
    (): Card,
    ("network",): NetworkCard,
    ("input",): InputCard,
    ("window",): WindowCard,
}


_EXPECTED = {
    "tuple_type": "a list",
    "dict_type": "a mapping (name: value)",
    "model_type": "a mapping (name: value)",
    "string_type": "text (in quotes where YAML takes it for something else)",
}


def _sentence(fault: dict[str, Any]) -> list[str]:
    location: tuple[int | str, ...] = fault["loc"]
    where = ".".join(str(part) for part in location)
    context = fault.get("ctx", {})
    if fault["type"] == "extra_forbidden":
        *parent, key = location
        place = f" in {'.'.join(map(str, parent))}" if parent else ""
        part = _PARTS.get(tuple(parent))
        hint = nearest(str(key), tuple(part.model_fields)) if part else ""
        return [f"unknown key {str(key)!r}{place}{hint}"]
    if fault["type"] == "value_error":
        prefix = f"{where}: " if where else ""
        return [prefix + line for line in str(context["error"]).split("\n")]
    return [_value_sentence(fault, where)]


def _value_sentence(fault: dict[str, Any], where: str) -> str:
    kind, came = fault["type"], f"got {fault['input']!r}"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "string_pattern_mismatch" and where == "network.target":
        return f"{where}: expected an import path such as monai.networks.nets.UNet, {came}"
    if kind == "literal_error":
        return f"{where}: expected {fault['ctx']['expected']}, {came}"
    if kind in _EXPECTED:
        return f"{where}: expected {_EXPECTED[kind]}, {came}"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{where}: {message.removeprefix('input ')}, {came}"


def _yaml_fault(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())
