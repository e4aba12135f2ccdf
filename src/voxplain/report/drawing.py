"""A figure that can give the table it was drawn from.

Figures are made without pyplot: no window opens and no state of the user's is touched.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MUTED = "#5d6875"


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure and the table it was drawn from."""

    figure: Figure
    table: pd.DataFrame

    def png(self, dpi: int = 150) -> bytes:
        """PNG file."""
        return self._file("png", dpi=dpi)

    def svg(self) -> str:
        """SVG file; text is drawn as shapes, so it looks the same everywhere."""
        return self._file("svg").decode()

    def _repr_png_(self) -> bytes:
        return self.png(dpi=100)

    def _file(self, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format=kind, facecolor=self.figure.get_facecolor(), **options)
        return buffer.getvalue()


def blank(width: float, height: float, colour: str = "white") -> Figure:
    """Make an empty figure of so many inches that belongs to no window."""
    figure = Figure(figsize=(width, height), facecolor=colour)
    FigureCanvasAgg(figure)
    return figure
