"""Every module is small, says what it is, and has a name that means something."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import voxplain

PACKAGE = Path(voxplain.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES = 400
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc", "tools"}


def lines_of_code(source: str) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            first = node.body[0]
            documented.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in documented
        for number, line in enumerate(source.splitlines(), 1)
    )


def test_lines_of_code_leave_out_what_is_said_about_them() -> None:
    source = (
        '"""Module."""\n\n# a comment\ndef f():\n    """One.\n\n    Two.\n    """\n    return 1\n'
    )
    assert lines_of_code(source) == 2


def test_there_are_modules() -> None:
    assert len(MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "a module begins with a docstring"
    assert lines_of_code(source) < LINES, "split it: one concept a file"
    names = set(path.relative_to(PACKAGE).with_suffix("").parts)
    assert not names & EMPTY_NAMES, "name it after what it holds"
