"""How results show themselves in a notebook: a renderer that a layer above supplies."""

from __future__ import annotations

from collections.abc import Callable

_renderers: list[Callable[[object], str]] = []


def render_with(renderer: Callable[[object], str]) -> None:
    """Use a function from now on to turn a result into HTML."""
    _renderers[:] = [renderer]


def render(result: object) -> str | None:
    """Return a result as HTML; None (a notebook then prints it) without a renderer."""
    return _renderers[0](result) if _renderers else None
