"""Reading the config of a MONAI bundle as plain data, so that nothing of it runs unasked."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from voxplain.errors import ModelError, TrustError

_OPERATORS: Mapping[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_REFERENCE = re.compile(r"@([A-Za-z_][\w]*(?:(?:::|#)\w+)*)")
_LARGEST = 2**31
_RUNS = ("_mode_", "_requires_")
_NO_ARGUMENTS = (*_RUNS, "_target_", "_desc_", "_disabled_")


@dataclass
class PlainConfig:
    """A bundle's config with references followed and simple arithmetic done, nothing built.

    Parameters
    ----------
    raw
        The config as read from its file, macros resolved.
    file
        Its name, for messages.

    Attributes
    ----------
    would_run
        Every expression and every class outside of the allowed ones met so far.
    """

    raw: Mapping[str, Any]
    file: str
    would_run: list[str] = field(default_factory=list)

    def entry(self, name: str) -> Any:
        """Return one entry as plain data; what would run code is noted and stays text."""
        return self.plain(self.raw[name], name)

    def plain(self, value: Any, where: str) -> Any:
        """Return a value as plain data; what would run code is noted and stays text."""
        return self._plain(value, where, ())

    def follow(self, value: Any, where: str) -> tuple[Any, str]:
        """Follow a reference, and no other that lies in what it refers to; value and place."""
        return self._follow(value, where, ())[:2]

    def refuse_code(self) -> None:
        """Raise if anything met so far would run code.

        Raises
        ------
        TrustError
            With all of it.
        """
        found = list(dict.fromkeys(self.would_run))
        if found:
            lines = "\n".join(f"  - {line}" for line in found)
            raise TrustError(
                f"loading this bundle would run code that {self.file} names:\n{lines}\nRead it "
                "first; if you trust it, allow it with --trust-bundle (Python: trust_code=True)"
            )

    def note_class(self, target: str, where: str) -> None:
        """Note a class that is not among the allowed ones."""
        self.would_run.append(f"{where}: {target}")

    def _plain(self, value: Any, where: str, seen: tuple[str, ...]) -> Any:
        value, where, seen = self._follow(value, where, seen)
        if isinstance(value, Mapping):
            if any(key in value for key in _RUNS):
                self.would_run.append(f"{where}: {', '.join(k for k in _RUNS if k in value)}")
            return {k: self._plain(v, f"{where}::{k}", seen) for k, v in value.items()}
        if isinstance(value, list):
            return [self._plain(item, f"{where}::{i}", seen) for i, item in enumerate(value)]
        if isinstance(value, str) and value.startswith("$"):
            return self._expression(value, where, seen)
        return value

    def _follow(
        self, value: Any, where: str, seen: tuple[str, ...]
    ) -> tuple[Any, str, tuple[str, ...]]:
        while isinstance(value, str) and value.startswith("@"):
            name = value[1:]
            if name in seen:
                raise ModelError(f"{self.file}: {' → '.join((*seen, name))} refer to each other")
            value, where, seen = self._named(name, where), name, (*seen, name)
        return value, where, seen

    def _named(self, name: str, where: str) -> Any:
        value: Any = self.raw
        for part in re.split("::|#", name):
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ModelError(f"{self.file}: {where} refers to @{name}, which is not there") \
                    from None  # fmt: skip
        return value

    def _expression(self, text: str, where: str, seen: tuple[str, ...]) -> Any:
        """Value of an expression of numbers, lists and references; else it is noted."""
        references: dict[str, Any] = {}

        def stand_in(match: re.Match[str]) -> str:
            key = f"reference_{len(references)}"
            references[key] = self._plain(match[0], where, seen)
            return key

        try:
            tree = ast.parse(_REFERENCE.sub(stand_in, text[1:]).strip(), mode="eval")
            return _literal(tree.body, references)
        except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError):
            self.would_run.append(f"{where}: {text}")
            return text


def class_name(target: Any) -> str:
    """Last part of an import path."""
    return str(target).rpartition(".")[2]


def arguments_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in the entry of a class, without MONAI's own keys."""
    return {name: value for name, value in entry.items() if name not in _NO_ARGUMENTS}


def is_disabled(entry: Mapping[str, Any]) -> bool:
    """Whether MONAI leaves a class out."""
    return str(entry.get("_disabled_")).lower() == "true"


def classes_in(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield every class that plain data names, and its place."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield str(value["_target_"]), where
        for name, item in value.items():
            yield from classes_in(item, f"{where}::{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from classes_in(item, f"{where}::{index}")


def _literal(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Value of numbers, text, lists, + - * / // and known names; nothing is called or looked up.

    Raises
    ------
    ValueError
        If there is anything else, or a number grows beyond 2³¹.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item, names) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_number(_literal(node.operand, names)))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _literal(node.left, names), _literal(node.right, names)
        return _number(_OPERATORS[type(node.op)](_number(left), _number(right)))
    raise ValueError(ast.dump(node))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _LARGEST:
        raise ValueError(f"not a number: {value!r}")
    return value
